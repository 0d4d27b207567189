"""``check --statistics``: how often each rule reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from adapterlint.cli.output import echo, use_color
from adapterlint.cli.reports import Destination
from adapterlint.findings import Safety
from adapterlint.report import Report
from adapterlint.reporters.closing import fixed_by
from adapterlint.reporters.text import paint


def counts(report: Report) -> list[dict[str, Any]]:
    """One entry a rule that reports, those that report most often first."""
    found: dict[str, dict[str, Any]] = {}
    for item in report.shown:
        finding = item.finding
        entry = found.setdefault(
            finding.rule,
            {"rule": finding.rule, "name": finding.name, "count": 0, "error": 0, "warning": 0, "note": 0, "fixable": 0},
        )
        entry["count"] += 1
        entry[finding.severity.value] += 1
        entry["fixable"] += fixed_by(finding) is Safety.SAFE
    return sorted(found.values(), key=lambda entry: (-entry["count"], entry["rule"]))


def counted_instead(wanted: Sequence[Destination]) -> tuple[Callable[[Report], None], list[Destination]]:
    """Something that prints the counts in place of the report for the standard output, and the reports for files.

    Raises:
        click.UsageError: the report for the standard output is in a format that has no place for counts.
    """
    format_ = next((item.format for item in wanted if item.file is None), "full")
    if format_ not in ("full", "concise", "json"):
        raise click.UsageError(f"--statistics is printed as text or JSON, not as {format_}")
    return (_print_json if format_ == "json" else _print), [item for item in wanted if item.file is not None]


def _print_json(report: Report) -> None:
    click.echo(json.dumps(counts(report), indent=2))


def _print(report: Report) -> None:
    text = "\n".join(_lines(report, use_color()))
    if text or not report.quiet:
        echo(text or "No findings")


def _lines(report: Report, color: bool) -> Iterator[str]:
    entries = counts(report)
    if not entries:
        return
    width = max(len(str(entry["count"])) for entry in entries)
    size = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        worst = next(word for word in ("error", "warning", "note") if entry[word])
        parts = [f"{entry[word]} {word}" for word in ("error", "warning", "note") if entry[word]]
        if entry["fixable"]:
            parts.append(f"{entry['fixable']} fixable")
        code = paint(entry["rule"], worst, color)
        yield f"{entry['count']:>{width}}  {code}  {entry['name']:<{size}}  {', '.join(parts)}"
