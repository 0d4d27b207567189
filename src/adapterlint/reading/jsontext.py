"""Reads adapter_config.json the way PEFT does, and knows where every key and value stands.

PEFT calls ``json.load`` on the file opened as UTF-8 text. The standard library is therefore the only judge here of what
is fatal and of what a value is; the positions come from a second pass, made only when somebody asks for them.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from adapterlint.findings import pointer_to
from adapterlint.reading.jsontree import (
    Member,
    Node,
    NumberRefusedError,
    item_at,
    member_named,
    parse_tree,
    split_pointer,
)
from adapterlint.reading.problems import Problem

__all__ = ["BOM", "LFS_START", "Document", "Member", "Node", "read_text", "split_pointer"]

BOM = "\ufeff"
LFS_START = "version https://git-lfs"

_LINE_END = re.compile(r"\r\n|\n|\r")
_NON_FINITE = ("NaN", "Infinity", "-Infinity")


@dataclass(frozen=True)
class Document:
    """A JSON text, its value and, on demand, its positions.

    Attributes:
        text: the text without its byte order mark, line ends as they are; undecodable bytes stand as U+FFFD.
        bom: whether the file starts with a byte order mark.
        value: the plain value (the last of duplicate keys counts, as in ``json``); None if it could not be read.
            It can be as deep as ``json`` takes, which is deeper than ``repr`` or a recursive walk may stand.
        problems: what is wrong with the file, the reason for refusing it first.
        readable: whether ``value`` and ``root`` stand for the text; a byte order mark does not prevent that.
    """

    text: str
    bom: bool = False
    value: Any = field(default=None, repr=False, compare=False)
    problems: tuple[Problem, ...] = ()
    readable: bool = True

    @cached_property
    def root(self) -> Node | None:
        """The positioned tree, or None if the text is not readable."""
        return parse_tree(self.text) if self.readable else None

    @cached_property
    def newline(self) -> str:
        """The first line end of the text; a line feed if there is none."""
        found = _LINE_END.search(self.text)
        return found.group() if found else "\n"

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(found.end() for found in _LINE_END.finditer(self.text))]

    def find(self, pointer: str, occurrence: int | None = None) -> Node | None:
        """The value at a JSON pointer, or None. Raises ValueError if it is not a pointer.

        ``occurrence`` picks one of the duplicates of the last key, from 0; the last is the default, as in ``json``.
        """
        parts = split_pointer(pointer)
        if not parts:
            return self.root
        parent = self._parent(parts)
        if parent is None:
            return None
        if parent.value_kind == "array":
            return item_at(parent, parts[-1])
        member = member_named(parent, parts[-1], occurrence)
        return member.node if member else None

    def find_member(self, pointer: str, occurrence: int | None = None) -> Member | None:
        """The key and value at a JSON pointer, or None if no key stands there; see :meth:`find`."""
        parts = split_pointer(pointer)
        parent = self._parent(parts) if parts else None
        return member_named(parent, parts[-1], occurrence) if parent else None

    def _parent(self, parts: list[str]) -> Node | None:
        node = self.root
        for part in parts[:-1]:
            if node is None:
                return None
            if node.value_kind == "array":
                node = item_at(node, part)
            else:
                member = member_named(node, part)
                node = member.node if member else None
        return node

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every value with its pointer, in the order of the text, less what a later duplicate of its key hides."""
        pending = [("", self.root)] if self.root else []
        while pending:
            pointer, node = pending.pop()
            yield pointer, node
            last = {member.key: member.node for member in node.members}
            members = [m for m in node.members if m.node is last[m.key]]
            pending += [(pointer + pointer_to(m.key), m.node) for m in reversed(members)]
            pending += [(f"{pointer}/{i}", node.items[i]) for i in reversed(range(len(node.items)))]

    def duplicates(self) -> list[tuple[str, list[Member]]]:
        """Pointers of the keys that stand more than once in their object, at any level, each with all its members.

        What stands inside a value that a later duplicate hides is left out: no pointer leads there.
        """
        found = []
        for pointer, node in self.walk():
            groups: dict[str, list[Member]] = {}
            for member in node.members:
                groups.setdefault(member.key, []).append(member)
            found += [(pointer + pointer_to(key), group) for key, group in groups.items() if len(group) > 1]
        return found

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1, in code points; LF, CR LF and CR end a line."""
        offset = min(max(offset, 0), len(self.text))
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line_text(self, line: int) -> str:
        """The text of a line, counted from 1, without its line end; empty if there is no such line."""
        starts = self._line_starts
        if not 1 <= line <= len(starts):
            return ""
        end = starts[line] if line < len(starts) else len(self.text)
        return self.text[starts[line - 1] : end].rstrip("\r\n")


def read_text(data: bytes) -> Document:
    """Reads the bytes of a config. Never raises: what is wrong stands in :attr:`Document.problems`.

    Kinds, all fatal but the last two: ``empty``, ``not-utf8``, ``bom``, ``lfs-pointer``, ``bad-json``, ``bad-number``,
    ``too-deep``; ``duplicate-key`` (detail ``"same values"`` or ``"different values"``), ``non-finite-literal``
    (detail: the literal). The detail of a fatal problem is the exception that PEFT's ``json.load`` raises; after
    ``bom`` it is the one that would follow if the mark were gone.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _undecodable(data, error)
    bom = text.startswith(BOM)
    text = text.removeprefix(BOM)
    start = (_bom_problem(),) if bom else ()
    odd = False
    try:
        try:
            value = _DECODER.decode(text)
        except _OddError:
            value, odd = json.loads(text), True
    except (ValueError, RecursionError) as error:
        return Document(text, bom, problems=(*start, _failure(text, error)), readable=False)
    document = Document(text, bom, value, start)
    return Document(text, bom, value, start + tuple(_oddities(document))) if odd else document


class _OddError(Exception):
    """Something that ``json`` passes over: then a second look is worth its time."""


def _pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) != len(members):
        raise _OddError
    return made


def _constant(literal: str) -> float:
    raise _OddError(literal)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _bom_problem() -> Problem:
    detail = "JSONDecodeError: Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)"
    return Problem("bom", "The file starts with a byte order mark, which json.load refuses", offset=0, detail=detail)


def _undecodable(data: bytes, error: UnicodeDecodeError) -> Document:
    from adapterlint.reading import jsonmend  # needed for a broken config only

    text = data.decode("utf-8", "replace")
    offset = len(data[: error.start].decode("utf-8"))
    bom = text.startswith(BOM)
    if _looks_utf16(data):
        message = "The file is UTF-16, not UTF-8"
    else:
        message = f"The file is not UTF-8: byte 0x{data[error.start]:02x} at position {error.start} is no character"
    detail = f"UnicodeDecodeError: {error}"
    problem = Problem("not-utf8", message, offset=offset - bom, detail=detail, mend=jsonmend.recoding(data))
    return Document(text.removeprefix(BOM), bom, problems=(problem,), readable=False)


def _looks_utf16(data: bytes) -> bool:
    zeros = [byte == 0 for byte in data[:4]]
    return data[:2] in (b"\xff\xfe", b"\xfe\xff") or zeros in ([True, False] * 2, [False, True] * 2)


def _failure(text: str, error: ValueError | RecursionError) -> Problem:
    """The problem for what ``json.loads`` raised on this text."""
    if isinstance(error, RecursionError):
        return Problem("too-deep", "The values are nested too deeply for json.load", detail=f"RecursionError: {error}")
    if not isinstance(error, json.JSONDecodeError):
        digits = "A number has more digits than Python converts"
        return Problem("bad-number", digits, offset=_refused_number(text), detail=f"ValueError: {error}")
    from adapterlint.reading import jsonmend

    # A file opened as text has line feeds only, so lines and offsets in the exception are counted without the CRs.
    before = _LINE_END.sub("\n", text[: error.pos])
    seen = json.JSONDecodeError(error.msg, before, len(before))
    detail = f"JSONDecodeError: {seen}"
    if not text.strip():
        return Problem("empty", "The file is empty", offset=error.pos, detail=detail)
    if text.startswith(LFS_START):
        message = "The file is a Git LFS pointer, not the config: fetch it with `git lfs pull`"
        return Problem("lfs-pointer", message, offset=error.pos, detail=detail)
    if _looks_utf16(text[:4].encode("utf-8")):
        message = "The file is UTF-16 without a byte order mark, not UTF-8"
        mend = jsonmend.recoding(text.encode("utf-8"))
        return Problem("not-utf8", message, offset=error.pos, detail=detail, mend=mend)
    message = f"The file is not JSON: {error.msg} at line {seen.lineno}, column {seen.colno}"
    return Problem("bad-json", message, offset=error.pos, detail=detail, mend=jsonmend.cuts(text))


def _refused_number(text: str) -> int | None:
    try:
        parse_tree(text)
    except NumberRefusedError as refused:
        return refused.offset
    return None


def _oddities(document: Document) -> Iterator[Problem]:
    """What ``json.load`` takes without a word and other readers refuse."""
    for pointer, members in document.duplicates():
        same = _same_values([document.text[m.node.start : m.node.end] for m in members])
        message = f"Key {members[0].key!r} stands {len(members)} times in one object, and only the last one counts"
        detail = "same values" if same else "different values"
        offset = members[-1].key_start
        yield Problem("duplicate-key", message, fatal=False, pointer=pointer, offset=offset, detail=detail)
    for pointer, node in document.walk():
        literal = document.text[node.start : node.end]
        if literal in _NON_FINITE:
            message = f"{literal} at {pointer or 'the root'} is not JSON, though Python reads it"
            yield Problem(
                "non-finite-literal", message, fatal=False, pointer=pointer, offset=node.start, detail=literal
            )


def _same_values(texts: list[str]) -> bool:
    """Whether the texts stand for one value; 1, 1.0 and true are three."""
    try:
        return len({json.dumps(json.loads(text), sort_keys=True) for text in set(texts)}) == 1
    except RecursionError:
        return False
