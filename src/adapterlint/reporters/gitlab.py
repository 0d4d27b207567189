"""GitLab's code quality report: a list of issues, shown in merge requests.

Source: GitLab's documentation, "Code Quality report format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from adapterlint.findings import Severity
from adapterlint.report import Report, Reported
from adapterlint.reporters.folding import effect_lines
from adapterlint.reporters.places import file_of, fingerprints
from adapterlint.reporters.text import clipped, printable

_SEVERITIES = {Severity.ERROR: "major", Severity.WARNING: "minor", Severity.NOTE: "info"}


def render(report: Report, color: bool = False) -> str:
    """The issues as JSON text in ASCII; never coloured."""
    shown = report.shown
    named = zip(shown, fingerprints(shown), strict=True)
    return json.dumps([_issue(item, fingerprint, report) for item, fingerprint in named], indent=2)


def _issue(item: Reported, fingerprint: str, report: Report) -> dict[str, Any]:
    finding = item.finding
    first = item.place.start[0] if item.place.start else 1
    last = item.place.end[0] if item.place.end else first
    return {
        "description": ". ".join(_words(item, report)),
        "check_name": f"{finding.rule} {finding.name}",
        "fingerprint": fingerprint,
        "severity": _SEVERITIES[finding.severity],
        "location": {"path": printable(file_of(item.place.location)), "lines": {"begin": first, "end": last}},
    }


def _words(item: Reported, report: Report) -> Iterator[str]:
    yield clipped(item.finding.message)
    if item.place.location.tensor is not None:
        yield f"Tensor: {clipped(item.place.location.tensor)}"
    for line in effect_lines(item.finding.effects, report):
        yield line.text
