"""Every rule, from its own file: words, examples, and that no example of any rule crashes another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from rules_util import findings_of, run_example

from adapterlint.cli import main
from adapterlint.findings import Safety, Severity
from adapterlint.rules.base import Rule, SetRule
from adapterlint.rules.examples import AnyExample, SetExample
from adapterlint.rules.registry import all_rules
from adapterlint.run import Request, examine

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


def _fixable() -> list[object]:
    return [
        pytest.param(rule, example, id=f"{rule.code}-fix{number}")
        for rule in all_rules()
        for number, example in enumerate(rule.invalid())
    ]


@pytest.mark.parametrize(("rule", "example"), _fixable())
def test_the_fix_ends_the_finding(rule: Rule | SetRule, example: AnyExample, tmp_path: Path) -> None:
    run = run_example(example, tmp_path)
    offered = [
        finding for finding in findings_of(run, rule.code) if finding.fix and (finding.fix.edits or finding.fix.form)
    ]
    if not offered or all(finding.fix and finding.fix.safety is Safety.DISPLAY for finding in offered):
        pytest.skip("no fix that can be applied")
    paths = [checked.subject.adapter.path for checked in run.adapters]
    base = ["--base", str(tmp_path / "base")] if example.base else []
    grouping = "--set" if isinstance(example, SetExample) else "--no-sets"
    options = ["fix", *paths, *base, grouping, "--target", "peft>=0.3", "--unsafe-fixes", "--inplace"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code in (0, 1), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    again = examine(
        Request(
            paths,
            base=str(tmp_path / "base") if example.base else None,
            grouping="one" if isinstance(example, SetExample) else "none",
        )
    )
    left = [finding for finding in findings_of(again, rule.code) if finding.severity is not Severity.NOTE]
    still = [finding for finding in left if finding.fix and (finding.fix.edits or finding.fix.form)]
    assert still == [], result.output
    before = {path.name: path.read_bytes() for root in paths for path in Path(root).iterdir() if path.is_file()}
    CliRunner().invoke(main, options)
    after = {path.name: path.read_bytes() for root in paths for path in Path(root).iterdir() if path.is_file()}
    assert before == after, "a second fix must do nothing"
