"""GitHub's workflow commands: annotations on the lines of a pull request.

Source: the toolkit's command encoding; a step shows ten errors, ten warnings and ten notices, and drops the rest.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from adapterlint.findings import Severity
from adapterlint.report import Place, Report, Reported, path_of
from adapterlint.reporters.closing import summary, verdicts
from adapterlint.reporters.folding import effect_lines
from adapterlint.reporters.places import relative
from adapterlint.reporters.text import clipped, plural, printable

LIMIT = 10
"""Annotations of one kind that GitHub shows of a step."""

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def render(report: Report, color: bool = False) -> str:
    """Workflow commands, errors first and at most ten of a kind, then plain lines for the log; never coloured."""
    ordered = sorted(report.shown, key=lambda item: -item.finding.severity.rank)
    seen: Counter[str] = Counter()
    lines = []
    for item in ordered:
        kind = _COMMANDS[item.finding.severity]
        seen[kind] += 1
        if seen[kind] <= LIMIT:
            lines.append(_command(kind, item, report))
    left = [plural(seen[kind] - LIMIT, f"more {kind}", f"more {kind}s") for kind in seen if seen[kind] > LIMIT]
    if left:
        rest = "the job summary has all" if os.environ.get("GITHUB_STEP_SUMMARY") else "use another format to see all"
        lines.append(f"left out: {', '.join(left)} (GitHub shows {LIMIT} of a kind); {rest}")
    closing = () if report.quiet else (*verdicts(report, color=False), *summary(report))
    plain = (line.replace("##[", "#\\x23[") for line in closing)
    return "\n".join([*lines, *plain])  # the runner takes ##[ for a command wherever it stands


def _command(kind: str, item: Reported, report: Report) -> str:
    finding = item.finding
    properties = {
        "file": printable(relative(path_of(item.place.location))),
        **_span(item.place),
        "title": f"{finding.rule} {finding.name}",
    }
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    text = "\n".join(_message(item, report))
    return f"::{kind} {listed}::{_data(text)}"


def _message(item: Reported, report: Report) -> Iterator[str]:
    finding = item.finding
    yield clipped(finding.message)
    if item.place.location.tensor is not None:
        yield f"tensor: {clipped(item.place.location.tensor)}"
    for line in effect_lines(finding.effects, report):
        yield line.text
    if finding.fix is not None:
        yield f"fix ({finding.fix.safety.value}): {clipped(finding.fix.title)}"


def _span(place: Place) -> dict[str, str]:
    """Columns stand only with spans of one line: GitHub refuses others."""
    if place.start is None or place.end is None:
        return {}
    lines = {"line": str(place.start[0]), "endLine": str(place.end[0])}
    if place.start[0] != place.end[0]:
        return lines
    return {"line": lines["line"], "col": str(place.start[1]), **lines, "endColumn": str(place.end[1])}


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
