"""The JSON report, version 1: a contract that ``schemas/report-v1.json`` validates."""

from __future__ import annotations

import json
from typing import Any

from adapterlint.findings import Effect, Finding
from adapterlint.report import AdapterReport, Place, Report, Reported, SetReport, Verdict, path_of

VERSION = 1

_quoted = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder().encode


def render(report: Report, color: bool = False) -> str:
    """The report as JSON text in ASCII, so that no name can act on a terminal or fail to be encoded; never coloured."""
    return pretty(as_dict(report))


def pretty(value: Any, margin: str = "\n") -> str:
    """``json.dumps(value, indent=2)`` for plain data with texts for keys, which goes through Python generators."""
    if isinstance(value, dict) and value:
        inner = margin + "  "
        members = [
            f"{inner}{_quoted(key)}: {_quoted(item) if isinstance(item, str) else pretty(item, inner)}"
            for key, item in value.items()
        ]
        return f"{{{','.join(members)}{margin}}}"
    if isinstance(value, list) and value:
        inner = margin + "  "
        return f"[{','.join([inner + pretty(item, inner) for item in value])}{margin}]"
    return "null" if value is None else _encode(value)


def as_dict(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    return {
        "version": VERSION,
        "tool": {"name": "adapterlint", "version": report.tool_version},
        "targets": list(report.targets),
        "base": {"path": report.base.path, "parameters": report.base.parameters} if report.base else None,
        "adapters": [_adapter(item) for item in report.adapters],
        "sets": [_set(item) for item in report.sets],
        "findings": [finding_as_dict(item) for item in report.findings],
        "skipped": [{"rule": item.rule, "path": item.path, "needs": item.needs} for item in report.skipped],
        "summary": {
            "adapters": report.summary.adapters,
            "errors": report.summary.errors,
            "warnings": report.summary.warnings,
            "notes": report.summary.notes,
            "fixable": report.summary.fixable,
            "seconds": report.summary.seconds,
        },
    }


def _adapter(item: AdapterReport) -> dict[str, Any]:
    return {
        "path": item.path,
        "name": item.name,
        "peft_type": item.peft_type,
        "tensors": item.tensors,
        "modules": item.modules,
        "applies": {"modules": item.applies[0], "of": item.applies[1]} if item.applies else None,
        "verdicts": {target: _verdict(found) for target, found in item.verdicts.items()},
    }


def _set(item: SetReport) -> dict[str, Any]:
    return {
        "base": item.base,
        "adapters": list(item.adapters),
        "verdicts": {target: _verdict(found) for target, found in item.verdicts.items()},
        "operations": {
            operation: {
                target: {"outcome": found.outcome.value, "rules": list(found.rules)}
                for target, found in verdicts.items()
            }
            for operation, verdicts in item.operations.items()
        },
    }


def _verdict(found: Verdict) -> dict[str, Any]:
    return {
        "outcome": found.outcome.value,
        "inert": found.inert,
        "stage": found.stage,
        "adapter": found.adapter,
        "rules": list(found.rules),
        "exception": found.exception,
        "assumes": list(found.assumes),
        "missing": list(found.missing),
    }


def finding_as_dict(item: Reported) -> dict[str, Any]:
    """One finding as it stands in the report."""
    finding = item.finding
    return {
        "rule": finding.rule,
        "name": finding.name,
        "severity": finding.severity.value,
        "message": finding.message,
        **_place(item.place),
        "related": [{**_place(place), "label": place.location.label} for place in item.related],
        "effects": [_effect(effect) for effect in finding.effects],
        "fix": _fix(finding),
        "url": finding.url,
    }


def _place(place: Place) -> dict[str, Any]:
    location = place.location
    found = None
    if place.start and place.end:
        found = {
            "start": {"line": place.start[0], "column": place.start[1]},
            "end": {"line": place.end[0], "column": place.end[1]},
        }
    return {
        "path": path_of(location),
        "pointer": location.pointer,
        "tensor": location.tensor,
        "range": found,
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "targets": effect.targets,
        "operation": effect.operation,
        "outcome": effect.outcome.value,
        "exception": effect.exception,
    }


def _fix(finding: Finding) -> dict[str, Any] | None:
    return {"title": finding.fix.title, "safety": finding.fix.safety.value} if finding.fix else None
