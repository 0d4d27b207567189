"""Every rule, from its own file: words, examples, and that no example of any rule crashes another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapterlint.rules.base import Rule, SetRule
from adapterlint.rules.examples import AnyExample
from adapterlint.rules.registry import all_rules
from rules_util import findings_of, run_example

HEADINGS = ["## What it does", "## Why is this bad?", "## Example", "## Fix", "## References"]


def _cases(kind: str) -> list[object]:
    return [
        pytest.param(rule, example, id=f"{rule.code}-{kind}{number}")
        for rule in all_rules()
        for number, example in enumerate(getattr(rule, kind)())
    ]


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)
def test_words(rule: Rule | SetRule) -> None:
    doc = type(rule).__doc__ or ""
    positions = [doc.find(heading) for heading in HEADINGS]
    assert -1 not in positions and positions == sorted(positions), f"{rule.code}: headings missing or out of order"
    assert re.fullmatch(r"AL\d{3}", rule.code)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name)
    assert rule.valid() and rule.invalid(), f"{rule.code} has no examples"


@pytest.mark.parametrize(("rule", "example"), _cases("valid"))
def test_valid(rule: Rule | SetRule, example: AnyExample, tmp_path: Path) -> None:
    run = run_example(example, tmp_path)
    assert run.errors == []
    assert findings_of(run, rule.code) == []


@pytest.mark.parametrize(("rule", "example"), _cases("invalid"))
def test_invalid(rule: Rule | SetRule, example: AnyExample, tmp_path: Path) -> None:
    run = run_example(example, tmp_path)
    assert run.errors == []
    assert findings_of(run, rule.code) != []
