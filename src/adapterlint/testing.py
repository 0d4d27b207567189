"""Tests of rules from their own files: words, examples, and that a fix ends its finding.

For the rules of a plugin, in pytest::

    import pytest
    from adapterlint.testing import rule_cases
    from my_plugin import MyRule

    @pytest.mark.parametrize("case", rule_cases(MyRule), ids=str)
    def test_rule(case, tmp_path):
        case.run(tmp_path)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from adapterlint.api import example_request
from adapterlint.cli import main
from adapterlint.findings import Finding, Safety, Severity
from adapterlint.rules.base import Rule, SetRule
from adapterlint.rules.examples import AnyExample, SetExample
from adapterlint.rules.registry import AnyRule, also
from adapterlint.run import Request, Run, examine, to_report

HEADINGS = ("## What it does", "## Why is this bad?", "## Example", "## Fix", "## References")


class Case(NamedTuple):
    """One test of a rule; its text is a readable id.

    Attributes:
        rule: the rule.
        kind: ``words``, ``valid``, ``invalid`` or ``fix``.
        number: of the example.
        example: the example, but for words.
    """

    rule: AnyRule
    kind: str
    number: int = 0
    example: AnyExample | None = None

    def __str__(self) -> str:
        return f"{self.rule.code}-{self.kind}{'' if self.example is None else self.number}"

    def run(self, directory: Path) -> None:
        """Run the test in an empty directory; an AssertionError tells what is wrong."""
        if self.example is None:
            check_words(self.rule)
        elif self.kind == "fix":
            check_fix(self.rule, self.example, directory)
        else:
            check_example(self.rule, self.example, directory, silent=self.kind == "valid")


def rule_cases(*rules: type[Rule] | type[SetRule] | AnyRule) -> list[Case]:
    """Every test of the rules, given as classes or objects."""
    return [case for rule in rules for case in _cases(rule() if isinstance(rule, type) else rule)]


def _cases(rule: AnyRule) -> Iterator[Case]:
    yield Case(rule, "words")
    for kind, examples in (("valid", rule.valid()), ("invalid", rule.invalid()), ("fix", rule.invalid())):
        yield from (Case(rule, kind, number, example) for number, example in enumerate(examples))


def check_words(rule: AnyRule) -> None:
    """The rule has a code, a name, all headings in order, and examples of both kinds."""
    doc = inspect.cleandoc(type(rule).__doc__ or "")
    positions = [doc.find(heading) for heading in HEADINGS]
    assert -1 not in positions, f"{rule.code}: its docstring needs the headings {', '.join(HEADINGS)}"
    assert positions == sorted(positions), f"{rule.code}: the headings of its docstring are out of order"
    assert "TODO" not in doc, f"{rule.code}: its docstring is not finished"
    assert re.fullmatch(r"[A-Z]{2,8}\d{2,4}", rule.code), f"not a code: {rule.code!r}"
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name), f"not a kebab-case name: {rule.name!r}"
    assert rule.valid() and rule.invalid(), f"{rule.code}: it needs valid and invalid examples"


def check_example(rule: AnyRule, example: AnyExample, directory: Path, silent: bool) -> None:
    """The rule reports on an invalid example, and is silent on a valid one; no rule crashes on either."""
    found, run = said(rule, example, directory)
    assert run.errors == [], f"a rule crashed on {example.title!r}:\n{run.errors[0]}"
    if silent:
        assert found == [], f"{rule.code} reports on the valid example {example.title!r}: {found[0].message}"
    else:
        assert found != [], f"{rule.code} is silent on the invalid example {example.title!r}"


def said(rule: AnyRule, example: AnyExample, directory: Path) -> tuple[list[Finding], Run]:
    """What the rule says of the example, and the run that it is from; a set example is one explicit set."""
    request = example_request(example, directory)
    with also(rule):
        run = examine(request)
        findings = run.findings
        if request.suppressions is not None:
            findings += [item.finding for item in to_report(request, run, 0.0).findings]
    return [finding for finding in findings if finding.rule == rule.code], run


def check_fix(rule: AnyRule, example: AnyExample, directory: Path) -> None:
    """The fixes that the rule offers end its findings; applied a second time they change nothing."""
    found, run = said(rule, example, directory)
    if not any(_can_be_applied(finding) for finding in found):
        return
    paths = [checked.subject.adapter.path for checked in run.adapters]
    with also(rule):
        output = _fix(example, paths, directory)
        again = _examined(rule, example, paths, directory)
        left = [item for item in again if item.severity is not Severity.NOTE and _can_be_applied(item)]
        assert left == [], f"{rule.code}: the fix of {example.title!r} does not end the finding:\n{output}"
        before = _bytes(paths)
        _fix(example, paths, directory)
        assert before == _bytes(paths), f"{rule.code}: a second fix of {example.title!r} changes something"


def _can_be_applied(finding: Finding) -> bool:
    fix = finding.fix
    return fix is not None and fix.safety is not Safety.DISPLAY and bool(fix.edits or fix.form)


def _fix(example: AnyExample, paths: list[str], directory: Path) -> str:
    """Write every fix, for all releases; returns the output."""
    base = ["--base", str(directory / "base")] if example.base else []
    grouping = "--set" if isinstance(example, SetExample) else "--no-sets"
    options = ["--isolated", "--target", "peft>=0.3", "--unsafe-fixes", "--inplace"]
    result = CliRunner().invoke(main, ["fix", *paths, *base, grouping, *options])
    assert result.exit_code in (0, 1), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return str(result.output)


def _examined(rule: AnyRule, example: AnyExample, paths: list[str], directory: Path) -> list[Finding]:
    base = str(directory / "base") if example.base else None
    run = examine(Request(paths, base=base, grouping="one" if isinstance(example, SetExample) else "none"))
    return [finding for finding in run.findings if finding.rule == rule.code]


def _bytes(paths: list[str]) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for root in paths for path in Path(root).iterdir() if path.is_file()}
