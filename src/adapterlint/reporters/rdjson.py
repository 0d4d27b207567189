"""Reviewdog's diagnostic format (rdjson): comments on pull requests of many forges.

Source: reviewdog's proto/rdf. Its columns count bytes of UTF-8, and the end of a range is exclusive.
"""

from __future__ import annotations

import json
from typing import Any

from adapterlint.findings import DOC_URL, Severity
from adapterlint.report import Place, Replacement, Report, Reported
from adapterlint.reporters.folding import effect_lines
from adapterlint.reporters.places import file_of
from adapterlint.reporters.text import clipped, printable

NEEDS_REPLACEMENTS = True
_SEVERITIES = {Severity.ERROR: "ERROR", Severity.WARNING: "WARNING", Severity.NOTE: "INFO"}


def render(report: Report, color: bool = False) -> str:
    """The diagnostics as JSON text in ASCII; never coloured."""
    result = {
        "source": {"name": "adapterlint", "url": DOC_URL},
        "diagnostics": [_diagnostic(item, report) for item in report.shown],
    }
    return json.dumps(result, indent=2)


def _diagnostic(item: Reported, report: Report) -> dict[str, Any]:
    finding = item.finding
    found: dict[str, Any] = {
        "message": _message(item, report),
        "location": {"path": printable(file_of(item.place.location)), **_range(item.place)},
        "severity": _SEVERITIES[finding.severity],
        "code": {"value": finding.rule, "url": finding.url},
    }
    if item.replacement is not None:
        found["suggestions"] = [_suggestion(item.replacement)]
    return found


def _message(item: Reported, report: Report) -> str:
    lines = [f"{clipped(item.finding.message)} ({item.finding.name})"]
    if item.place.location.tensor is not None:
        lines.append(f"tensor: {clipped(item.place.location.tensor)}")
    lines += [line.text for line in effect_lines(item.finding.effects, report)]
    return "\n".join(lines)


def _range(place: Place) -> dict[str, Any]:
    """Nothing where there is no text. Columns need the text of their line; without it the lines stand alone."""
    if place.start is None or place.end is None:
        return {}
    texts = dict(place.excerpt)
    start, end = ({"line": line} for line, _ in (place.start, place.end))
    if place.start[0] in texts and place.end[0] in texts:
        start["column"] = _bytes(texts[place.start[0]], place.start[1])
        end["column"] = _bytes(texts[place.end[0]], place.end[1])
    return {"range": {"start": start, "end": end}}


def _bytes(text: str, column: int) -> int:
    return len(text[: column - 1].encode("utf-8", "surrogatepass")) + 1


def _suggestion(item: Replacement) -> dict[str, Any]:
    start = {"line": item.start[0], "column": _bytes(item.first_line, item.start[1])}
    end = {"line": item.end[0], "column": _bytes(item.last_line, item.end[1])}
    return {"range": {"start": start, "end": end}, "text": item.text}
