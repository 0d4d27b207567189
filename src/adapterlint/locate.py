"""Symbolic locations -> rows, columns and excerpts, for the report only."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

from adapterlint.assemble import read_config
from adapterlint.findings import CONFIG_FILE, Finding, Location, RemoveConfig, Safety, SetConfig
from adapterlint.reading.jsontext import Document
from adapterlint.report import Place, Replacement, Report, Reported

_CONTEXT = 1  # lines shown before the one that is meant
_WHOLE = 6  # spans of up to so many lines are shown whole, longer ones by both ends


class Locator:
    """Works out places; each config file is read once, when a finding first points into it."""

    def __init__(self) -> None:
        self._document: Callable[[str], Document] = lru_cache(maxsize=256)(read_config)

    def report(self, finding: Finding) -> Reported:
        """The finding with all its places."""
        return Reported(finding, self.place(finding.location), tuple(self.place(item) for item in finding.related))

    def place(self, location: Location) -> Place:
        """One location's rows and columns; only places in texts have them."""
        if location.file != CONFIG_FILE and (location.offset is not None or location.file.endswith(".toml")):
            return _in_text(location)
        if location.file != CONFIG_FILE or (location.pointer is None and location.offset is None):
            return Place(location)
        document = self._document(location.path)
        span = _span(document, location)
        if span is None:
            return Place(location)
        start, end = document.position(span[0]), document.position(span[1])
        if location.offset is not None and end[0] != start[0]:  # a line end, which is a character of its line
            end = start[0], start[1] + 1
        excerpt = tuple((line, document.line_text(line)) for line in _lines(start[0], end[0]))
        return Place(location, start, end, excerpt)


def with_replacements(report: Report) -> Report:
    """The report, each finding with its fix as text: safe fixes that only edit a readable config, and only those."""
    document = lru_cache(maxsize=256)(read_config)
    return report._replace(
        findings=tuple(item._replace(replacement=_replacement(item.finding, document)) for item in report.findings)
    )


def _replacement(finding: Finding, read: Callable[[str], Document]) -> Replacement | None:
    fix = finding.fix
    if fix is None or fix.safety is not Safety.SAFE or finding.location.file != CONFIG_FILE:
        return None
    edits = [edit for edit in fix.edits if isinstance(edit, (SetConfig, RemoveConfig))]
    document = read(finding.location.path)
    if not edits or len(edits) != len(fix.edits) or not document.readable:
        return None
    from adapterlint.reading.jsonedit import EditError, apply_edits

    old = document.text
    try:
        new = apply_edits(old.encode("utf-8"), edits).decode("utf-8")
    except (EditError, UnicodeError):
        return None
    start = _shared(old, new)
    same = _shared(old[start:][::-1], new[start:][::-1])
    first, last = document.position(start), document.position(len(old) - same)
    text = new[start : len(new) - same]
    return Replacement(first, last, text, document.line_text(first[0]), document.line_text(last[0]))


def _shared(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


def _in_text(location: Location) -> Place:
    """A place in a configuration file of the user, or the beginning of a line of a baseline."""
    from adapterlint.config.positions import offset_of  # only for findings about ignores and the baseline

    try:
        with open(os.path.join(location.path, location.file), encoding="utf-8-sig", errors="replace") as file:
            text = file.read()
    except OSError:  # it was there a moment ago
        return Place(location)
    offset = offset_of(text, location.pointer or "") if location.offset is None else location.offset
    if offset is None or offset > len(text):
        return Place(location)
    line, column = text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1
    words = text[offset:].split("\n", 1)[0]
    return Place(location, (line, column), (line, column + max(len(words), 1)), ((line, text.split("\n")[line - 1]),))


def _lines(first: int, last: int) -> list[int]:
    """Numbers of the lines to show for a span, with the context before it."""
    lines = list(range(max(1, first - _CONTEXT), last + 1))
    return lines if last - first < _WHOLE else [*lines[: _CONTEXT + _WHOLE // 2], *lines[-2:]]


def _span(document: Document, location: Location) -> tuple[int, int] | None:
    if location.offset is not None:
        return location.offset, min(location.offset + 1, max(len(document.text), location.offset))
    pointer = location.pointer or ""
    if location.on_key:
        member = document.find_member(pointer)
        if member is not None:
            return member.key_start, member.key_end
    node = document.find(pointer)
    if node is None:
        return None
    if not pointer:
        return node.start, node.start + 1
    return node.start, node.end
