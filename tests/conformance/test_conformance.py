"""Predictions against the kept measurements of PEFT releases, and the page that shows them. Needs no PEFT."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("ml_dtypes")
sys.path.insert(0, str(Path(__file__).parent))

from cases import RULES
from records import RELEASES, Cell, agrees, plain
from table import AGAIN, PAGE, Comparison, compare, page
from untold import KNOWN, SKIPPED, UNTOLD


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare()


def test_every_fixture_was_measured_as_it_is(found: Comparison) -> None:
    assert found.stale == [], AGAIN


def test_predictions_are_what_was_measured(found: Comparison) -> None:
    assert found.disagreements == []


def test_the_page_is_not_stale(found: Comparison) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(found), "python tests/conformance/table.py"


def test_the_table_shows_enough(found: Comparison) -> None:
    whole = [cells for _, cells in found.rows if all(cell.outcome != "undefined" for cell in cells)]
    outcomes = Counter(cell.outcome for cells in whole for cell in cells)
    assert len(whole) >= 120 and len(RELEASES) >= 6
    assert outcomes["loads"] < outcomes.total() * 2 / 3
    assert {fixture.rule for fixture, _ in found.rows} >= {rule.code for rule in RULES} | {"ok", "set"}


def test_nothing_is_left_out_that_does_not_exist(found: Comparison) -> None:
    names = {fixture.name for fixture, _ in found.rows}
    assert UNTOLD.keys() <= names and not (SKIPPED | KNOWN).keys() & names


@pytest.mark.parametrize(
    ("said", "measured", "expected"),
    [
        (Cell("loads"), Cell("loads"), True),
        (Cell("wrong"), Cell("inert"), True),
        (Cell("loads"), Cell("inert"), False),
        (Cell("unknown"), Cell("loads"), False),
        (Cell("unknown"), Cell("undefined"), True),
        (Cell("raises", "KeyError: 'a'"), Cell("undefined"), False),
        (Cell("raises", "KeyError: 'a'"), Cell("raises", "KeyError: 'a'"), True),
        (Cell("raises", "KeyError: 'a'"), Cell("raises", "KeyError: 'b'"), False),
        (Cell("raises", "KeyError: 'a'"), Cell("raises", "TypeError: 'a'"), False),
    ],
)
def test_when_cells_agree(said: Cell, measured: Cell, expected: bool) -> None:
    assert agrees(said, measured) is expected


def test_texts_are_compared_without_what_nobody_can_foretell() -> None:
    text = "ValueError: Target modules {'b',  'a'} not found in /x/y/adapter"
    assert plain(text, Path("/x/y")) == "ValueError: Target modules {'a', 'b'} not found in adapter"
