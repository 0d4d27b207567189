"""SARIF 2.1.0, as GitHub's code scanning takes it.

Source: OASIS SARIF 2.1.0 errata 01; GitHub, "SARIF support for code scanning": 25,000 results a run are accepted, 5,000
shown, and every result needs a location with a region, and a fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from adapterlint.findings import DOC_URL, Effect
from adapterlint.report import Place, Replacement, Report, Reported, RuleDoc
from adapterlint.reporters.folding import effect_lines
from adapterlint.reporters.places import file_of, fingerprints, uri
from adapterlint.reporters.ruledoc import as_markdown, as_text, first_sentence
from adapterlint.reporters.text import clipped

NEEDS_REPLACEMENTS = True
LIMIT = 5000
"""Results that GitHub shows of a run."""

_RELATED = 50  # of 100 that GitHub shows
_ROOT = "%SRCROOT%"
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_NAME_LENGTH = 400


def render(report: Report, color: bool = False) -> str:
    """The report as JSON text in ASCII; never coloured."""
    return json.dumps(as_dict(report), indent=2)


def as_dict(report: Report) -> dict[str, Any]:
    """One run; of more than 5,000 results the worst, and a notification that says so."""
    named = list(zip(report.shown, fingerprints(report.shown), strict=True))
    kept = sorted(named, key=lambda pair: -pair[0].finding.severity.rank)[:LIMIT]
    names = {item.finding.rule: item for item, _ in kept}
    codes = sorted(names)
    driver = {
        "name": "adapterlint",
        "informationUri": DOC_URL.removesuffix("rules/"),
        "version": report.tool_version,
        "semanticVersion": report.tool_version,
        "rules": [_rule(code, names[code], report.rules.get(code)) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The root of the repository."}}},
        "invocations": [_invocation(report, len(named) - len(kept))],
        "results": [_result(item, name, codes, report) for item, name in kept],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _invocation(report: Report, left: int) -> dict[str, Any]:
    notes = [{"level": "error", "message": {"text": f"A rule failed: {trace}"}} for trace in report.internal_errors]
    if left:
        text = f"{left} results are left out; the {LIMIT} worst are here."
        notes.append({"level": "warning", "message": {"text": text}})
    found: dict[str, Any] = {"executionSuccessful": not report.internal_errors}
    return {**found, "toolExecutionNotifications": notes} if notes else found


def _rule(code: str, item: Reported, doc: RuleDoc | None) -> dict[str, Any]:
    """A rule's descriptor, from its documentation; without one, from a finding of it."""
    finding = item.finding
    short = (first_sentence(doc.text) if doc else "") or f"{finding.name}."
    text, markdown = (as_text(doc.text), as_markdown(doc.text)) if doc else ("", "")
    return {
        "id": code,
        "name": "".join(part.capitalize() for part in finding.name.split("-")),
        "shortDescription": {"text": _sentence(short)},
        "fullDescription": {"text": _sentence(short)},
        "help": {"text": text or _sentence(short), "markdown": markdown or _sentence(short)},
        "helpUri": finding.url,
        "defaultConfiguration": {"level": doc.severity if doc else finding.severity.value},
        "properties": {"tags": ["peft", "lora", "compatibility"], "precision": "very-high"},
    }


def _sentence(text: str) -> str:
    return text.rstrip(".:") + "."


def _result(item: Reported, fingerprint: str, codes: Sequence[str], report: Report) -> dict[str, Any]:
    finding = item.finding
    found: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": codes.index(finding.rule),
        "level": finding.severity.value,
        "message": {"text": _message(item, report)},
        "locations": [_location(item.place)],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint},
    }
    if item.related:
        places = item.related[:_RELATED]
        found["relatedLocations"] = [{"id": n, **_location(place)} for n, place in enumerate(places, 1)]
    if item.replacement is not None and finding.fix is not None:
        found["fixes"] = [_fix(finding.fix.title, item.place, item.replacement)]
    found["properties"] = {
        "effects": [_effect(effect) for effect in finding.effects],
        "fix": finding.fix.safety.value if finding.fix else None,
    }
    return found


def _message(item: Reported, report: Report) -> str:
    lines = [_sentence(clipped(item.finding.message))]
    lines += [line.text for line in effect_lines(item.finding.effects, report)]
    if item.finding.fix is not None:
        lines.append(f"Fix ({item.finding.fix.safety.value}): {clipped(item.finding.fix.title)}")
    return "\n".join(lines)


def _location(place: Place) -> dict[str, Any]:
    """Tensors and directories have no lines: they stand at line 1, and the tensor is a logical location."""
    location = place.location
    found: dict[str, Any] = {"physicalLocation": {"artifactLocation": _artifact(place), "region": _region(place)}}
    name, kind = (location.tensor, "member") if location.tensor is not None else (location.pointer, "property")
    if name:
        shown = clipped(name, _NAME_LENGTH)
        found["logicalLocations"] = [{"name": shown, "fullyQualifiedName": shown, "kind": kind}]
    if location.label:
        found["message"] = {"text": clipped(location.label)}
    return found


def _artifact(place: Place) -> dict[str, str]:
    """A file below the root by its relative URI; one elsewhere by an absolute one."""
    path = uri(file_of(place.location))
    return {"uri": path} if path.startswith("file:") else {"uri": path, "uriBaseId": _ROOT}


def _region(place: Place) -> dict[str, int]:
    start, end = place.start or (1, 1), place.end or (1, 2)
    return _span(start, max(end, start))


def _span(start: tuple[int, int], end: tuple[int, int]) -> dict[str, int]:
    return {"startLine": start[0], "startColumn": start[1], "endLine": end[0], "endColumn": end[1]}


def _fix(title: str, place: Place, item: Replacement) -> dict[str, Any]:
    replacement: dict[str, Any] = {"deletedRegion": _span(item.start, item.end)}
    if item.text:
        replacement["insertedContent"] = {"text": item.text}
    change = {"artifactLocation": _artifact(place), "replacements": [replacement]}
    return {"description": {"text": _sentence(clipped(title))}, "artifactChanges": [change]}


def _effect(effect: Effect) -> dict[str, Any]:
    fields: Iterable[tuple[str, Any]] = (
        ("targets", effect.targets),
        ("operation", effect.operation),
        ("outcome", effect.outcome.value),
        ("exception", clipped(effect.exception) if effect.exception else None),
    )
    return {name: value for name, value in fields if value is not None}
