"""JUnit's XML: a test case for every adapter and every set, for the dashboards of CI services."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from adapterlint.findings import Severity
from adapterlint.report import AdapterReport, Report, Reported, SetReport
from adapterlint.reporters.folding import fold_verdicts
from adapterlint.reporters.full import finding_lines
from adapterlint.reporters.places import relative
from adapterlint.reporters.text import clipped, plural, printable


def render(report: Report, color: bool = False) -> str:
    """A test suite; errors are failures, warnings and notes stand in the case's output. Never coloured."""
    cases = [*_adapters(report), *_sets(report), *_settings(report)]
    failures = sum(failed for failed, _ in cases)
    counts = f'tests="{len(cases)}" failures="{failures}" errors="{len(report.internal_errors)}"'
    seconds = f'time="{report.summary.seconds:.3f}"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<testsuites name="adapterlint" {counts} {seconds}>']
    lines.append(f'  <testsuite name="adapterlint" {counts} skipped="0" {seconds}>')
    lines.append(f'    <properties><property name="targets" value="{_text(" ".join(report.targets))}"/></properties>')
    lines += [line for _, case in cases for line in case]
    if report.internal_errors:
        lines.append(f"    <system-err>{_text(chr(10).join(report.internal_errors))}</system-err>")
    return "\n".join([*lines, "  </testsuite>", "</testsuites>"])


def _settings(report: Report) -> Iterator[tuple[bool, list[str]]]:
    """What is about ignores and the baseline, and so about no adapter and no set."""
    adapters = {adapter.path for adapter in report.adapters}
    about = [item for item in report.shown if not item.finding.adapters and item.finding.location.path not in adapters]
    if about:
        yield _case("adapterlint.settings", "configuration", about, None, report)


def _adapters(report: Report) -> Iterator[tuple[bool, list[str]]]:
    by_path: dict[str, list[Reported]] = {}
    for item in report.shown:
        if not item.finding.adapters:
            by_path.setdefault(item.finding.location.path, []).append(item)
    for adapter in report.adapters:
        yield _case("adapterlint.adapter", relative(adapter.path), by_path.get(adapter.path, []), adapter, report)


def _sets(report: Report) -> Iterator[tuple[bool, list[str]]]:
    for item in report.sets:
        found = [each for each in report.shown if each.finding.adapters == item.adapters]
        yield _case("adapterlint.set", " + ".join(map(relative, item.adapters)), found, item, report)


def _case(
    kind: str, name: str, found: Sequence[Reported], subject: AdapterReport | SetReport | None, report: Report
) -> tuple[bool, list[str]]:
    errors = [item for item in found if item.finding.severity is Severity.ERROR]
    lines = [f'    <testcase classname="{kind}" name="{_text(name)}" time="0">']
    if errors:
        first = errors[0].finding
        more = f" (and {plural(len(errors) - 1, 'more error')})" if len(errors) > 1 else ""
        message = f"{first.rule} {clipped(first.message)}{more}"
        body = "\n\n".join("\n".join(finding_lines(item, report)) for item in errors)
        lines.append(f'      <failure type="{first.rule}" message="{_text(message)}">{_text(body)}</failure>')
    rest = ["\n".join(finding_lines(item, report)) for item in found if item not in errors]
    if subject is not None:
        rest.insert(0, "\n".join(line.text for line in fold_verdicts(subject.verdicts, report.releases)))
    lines.append(f"      <system-out>{_text(chr(10).join(rest))}</system-out>")
    return bool(errors), [*lines, "    </testcase>"]


def _text(text: str) -> str:
    """Escaped for elements and attributes; characters that XML has no way to hold stand as escapes such as \\x1b."""
    return escape(printable(text, keep="\n"))
