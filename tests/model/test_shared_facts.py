"""What adapters share, because it depends on less than all of each, is what each would have by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterlint import assemble
from adapterlint.discover import discover
from adapterlint.model import peft
from adapterlint.model.base import Base
from adapterlint.model.subject import Subject

FIXTURES = Path(__file__).parents[2] / "fixtures"


def bases() -> list[Base | None]:
    return [None, *(assemble.read_base(str(path))[0] for path in sorted((FIXTURES / "base").iterdir()))]


def subjects() -> Iterator[Subject]:
    """Every fixture on every base, its own or not, so that the same names meet other bases and other configs."""
    found = discover([str(FIXTURES / part) for part in ("ok", "sets", "hostile")])
    for base in bases():
        for item in found:
            subject = assemble.subject(assemble.read_adapter(item, base), base, "none")
            if subject.adapter.readable:
                yield subject


def covered(subject: Subject) -> dict[str, object]:
    selection = peft.Selection(subject.adapter, subject.base)
    inside = subject.base.modules if subject.base and not subject.adapter.get("layer_replication") else None
    return {
        module: entry
        for module, entry in subject.adapter.modules.items()
        if selection(module) and (inside is None or module in inside)
    }


def selected(subject: Subject) -> tuple[str, ...]:
    if subject.base is None:
        return ()
    selection, names = peft.Selection(subject.adapter, subject.base), peft.saved_names(subject.adapter)
    return tuple(m for m in subject.base.modules if selection(m) and peft.saved_root(names, m) is None)


@pytest.fixture(scope="module")
def everything() -> list[Subject]:
    return list(subjects())


def test_layers_are_those_of_each(everything: list[Subject]) -> None:
    for subject in everything:
        assert subject.covered == covered(subject)
        assert subject.selected == selected(subject)
        assert subject.layers == frozenset(subject.selected if subject.base else subject.covered)
    assert len({tuple(subject.covered) for subject in everything}) > 6
    assert len({id(subject.layers) for subject in everything}) < len(everything) / 4
