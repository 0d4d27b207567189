"""Adapters and sets against targets: who loads what, and why not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from adapterlint.findings import Outcome
from adapterlint.report import Report, Verdict
from adapterlint.reporters.folding import fold, said
from adapterlint.reporters.text import clipped, paint, width

_ROLES = {Outcome.RAISES: "error", Outcome.WRONG: "error", Outcome.UNKNOWN: "warning", Outcome.LOADS: "good"}
_NAME_LENGTH = 40


class Row(NamedTuple):
    """An adapter or a set, and its verdict for every target.

    Attributes:
        kind: ``adapter`` or ``set``.
        name: what stands in the first column.
        paths: the directories.
        verdicts: one for each target, in the report's order.
    """

    kind: str
    name: str
    paths: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


def rows(report: Report) -> list[Row]:
    """One row an adapter, then one a set."""
    names = {adapter.path: adapter.name for adapter in report.adapters}
    found = [
        Row("adapter", item.path, (item.path,), tuple(item.verdicts[target] for target in report.targets))
        for item in report.adapters
    ]
    for item in report.sets:
        title = " + ".join(names.get(path, path) for path in item.adapters)
        found.append(Row("set", title, item.adapters, tuple(item.verdicts[target] for target in report.targets)))
    return found


def render(report: Report, color: bool = False) -> str:
    """A table: neighbouring targets on which nothing differs share a column; reasons stand below, numbered."""
    table = rows(report)
    columns = list(spans(report, table))
    notes: dict[str, int] = {}
    lines = [["", *(title for title, _ in columns)]]
    roles: list[list[str]] = [[""] * (len(columns) + 1)]
    for row in table:
        cells = [row.verdicts[index] for _, index in columns]
        lines.append([clipped(row.name, _NAME_LENGTH), *(_cell(verdict, notes) for verdict in cells)])
        roles.append(["strong", *(_ROLES[verdict.outcome] for verdict in cells)])
    text = [*_align(lines, roles, color)]
    if notes:
        text += ["", *(f"[{number}] {why}" for why, number in notes.items())]
    return "\n".join(text)


def as_dict(report: Report) -> dict[str, Any]:
    """The matrix as plain data: every target of its own, with the reason in each cell."""
    return {
        "version": 1,
        "targets": list(report.targets),
        "rows": [
            {
                "kind": row.kind,
                "name": row.name,
                "paths": list(row.paths),
                "cells": {
                    target: {
                        "outcome": verdict.outcome.value,
                        "rules": list(verdict.rules),
                        "exception": verdict.exception,
                        "reason": reason(verdict),
                        "assumes": list(verdict.assumes),
                    }
                    for target, verdict in zip(report.targets, row.verdicts, strict=True)
                },
            }
            for row in rows(report)
        ],
    }


def render_json(report: Report) -> str:
    """The matrix as JSON text."""
    return json.dumps(as_dict(report), indent=2, ensure_ascii=False)


def spans(report: Report, table: Sequence[Row]) -> Iterator[tuple[str, int]]:
    """Columns, as (title, position of a target): neighbouring targets on which nothing differs share one."""
    for first, last in _columns(table, len(report.targets)):
        yield fold(report.targets[first : last + 1], report.releases).removeprefix("peft "), first


def _columns(table: Sequence[Row], count: int) -> Iterator[tuple[int, int]]:
    """Runs of targets, as (first, last) positions, in which every row's verdict says the same."""
    first = 0
    for index in range(1, count + 1):
        if index == count or any(_same(row.verdicts[index], row.verdicts[first]) is False for row in table):
            yield first, index - 1
            first = index


def _same(one: Verdict, other: Verdict) -> bool:
    return (one.outcome, one.rules, one.exception) == (other.outcome, other.rules, other.exception)


def _cell(verdict: Verdict, notes: dict[str, int]) -> str:
    if verdict.outcome is Outcome.LOADS:
        return "loads"
    number = notes.setdefault(reason(verdict), len(notes) + 1)
    return f"{verdict.outcome.value} [{number}]"


def reason(verdict: Verdict) -> str:
    """Why a cell says what it says: the rules, and what happens; empty for ``loads``."""
    if verdict.outcome is Outcome.LOADS:
        return ""
    return f"{', '.join(verdict.rules)}: {said(verdict, '')}"


def _align(lines: Sequence[Sequence[str]], roles: Sequence[Sequence[str]], color: bool) -> Iterator[str]:
    widths = [max(width(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line, names in zip(lines, roles, strict=True):
        cells = []
        for text, role, wanted in zip(line, names, widths, strict=True):
            shown = paint(text, role, color) if role else text
            cells.append(shown + " " * (wanted - width(text)))
        yield "  ".join(cells).rstrip()
