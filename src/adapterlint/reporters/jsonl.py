"""JSON lines: the JSON report, version 1, a record a line, for tools that read streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from adapterlint.report import Report
from adapterlint.reporters.json import as_dict

_LISTS = (("adapters", "adapter"), ("sets", "set"), ("findings", "finding"), ("skipped", "skipped"))


def render(report: Report, color: bool = False) -> str:
    """One JSON object a line, in ASCII; never coloured."""
    return "\n".join(json.dumps(record) for record in _records(report))


def _records(report: Report) -> Iterator[dict[str, Any]]:
    """First the run, last the summary; ``kind`` tells them apart, the other keys are those of the JSON report."""
    whole = as_dict(report)
    yield {"kind": "run", **{key: whole[key] for key in ("version", "tool", "targets", "base")}}
    for key, kind in _LISTS:
        for item in whole[key]:
            yield {"kind": kind, **item}
    yield {"kind": "summary", **whole["summary"]}
