"""Edits adapter_config.json by span: outside the edited value, key or line every character stays as it was.

What is written follows the text around it: indentation, line ends, separators, one item per line or not, and escapes
(``\\uXXXX`` as ``json.dumps`` writes by default, raw characters if the text has some already). Texts come and go
without their byte order mark; :func:`apply_edits` keeps it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from adapterlint.findings import ConfigEdit, CutText, RecodeText, SetConfig, StripBom, pointer_to
from adapterlint.reading.jsontext import Document, read_text
from adapterlint.reading.jsontree import Node, array_index, split_pointer

Span: TypeAlias = tuple[int, int]

_SURROGATE = re.compile("[\ud800-\udfff]")


class EditError(ValueError):
    """An edit that the text does not allow.

    Attributes:
        pointer: the JSON pointer of the edit.
        cause: why not.
    """

    def __init__(self, pointer: str, cause: str) -> None:
        super().__init__(pointer, cause)
        self.pointer = pointer
        self.cause = cause

    def __str__(self) -> str:
        return f"cannot edit {self.pointer or 'the document'}: {self.cause}"


def apply_edits(data: bytes, edits: Iterable[ConfigEdit]) -> bytes:
    """The file after the edits, made one after another: each sees the text that the one before it left.

    So the ``occurrence`` of a :class:`RemoveConfig` counts what is still there. A byte order mark stays unless a
    :class:`StripBom` takes it. Raises EditError if an edit cannot be made.
    """
    for edit in edits:
        if isinstance(edit, StripBom):
            while data.startswith(codecs.BOM_UTF8):
                data = data.removeprefix(codecs.BOM_UTF8)
            continue
        if isinstance(edit, RecodeText):
            data = data.decode(edit.encoding).removeprefix("\ufeff").encode("utf-8")
            continue
        document = read_text(data)
        if isinstance(edit, SetConfig):
            text = set_value(document, edit.pointer, edit.value)
        elif isinstance(edit, CutText):
            text = _replaced(document.text, edit.begin, edit.end, "")
        else:
            text = remove(document, edit.pointer, edit.occurrence)
        data = (codecs.BOM_UTF8 if document.bom else b"") + text.encode("utf-8")
    return data


def set_value(document: Document, pointer: str, value: Any) -> str:
    """The text with another value at the pointer; of duplicate keys the last one, which counts, is set.

    A last key that is missing is added at the end of its object, an item ``-`` at the end of its array (RFC 6902).
    Raises EditError if the parent does not exist or is no object or array, or if the value is not JSON.
    """
    text, old = document.text, _root(document, pointer)
    if pointer:
        parent, token = _parent(document, pointer)
        found = document.find(pointer)
        if found is None:
            return _added(document, pointer, parent, token, value)
        old = found
    # A list that stood on one line is written on one line again, whatever the others do.
    spread = _broken(text, old) if old.members or old.items else None
    return _replaced(text, old.start, old.end, _dumped(document, pointer, value, _indent_at(text, old.start), spread))


def remove(document: Document, pointer: str, occurrence: int | None = None) -> str:
    """The text without the key (or array item) at the pointer, its value and one comma.

    A line goes if nothing else stood on it. Of duplicate keys ``occurrence`` names one, from 0; without it all go.
    Raises EditError if there is nothing at the pointer.
    """
    parent, token = _parent(document, pointer)
    if parent.value_kind == "array":
        index = array_index(token)
        doomed = [index] if index is not None and index < len(parent.items) else []
    else:
        doomed = [index for index, member in enumerate(parent.members) if member.key == token]
        if occurrence is not None:
            doomed = doomed[occurrence : occurrence + 1] if occurrence >= 0 else []
    if not doomed:
        raise EditError(pointer, "there is nothing to remove")
    text, children = document.text, _children(parent)
    if len(doomed) == len(children):
        return _replaced(text, parent.start + 1, parent.end - 1, "")
    kept, at = [], 0
    for first, last in _runs(doomed):
        start, end = _doomed_span(text, parent, children, first, last)
        kept.append(text[at:start])
        at = end
    return "".join(kept) + text[at:]


def rename_key(document: Document, pointer: str, new_key: str) -> str:
    """The text with another key at the pointer, its value kept; of duplicate keys the last one is renamed.

    Raises EditError if the key does not exist or the object has the new one already.
    """
    parent, token = _parent(document, pointer)
    member = document.find_member(pointer)
    if member is None:
        raise EditError(pointer, "there is no such key")
    if new_key != token and parent.named(new_key):
        raise EditError(pointer, f"the object has a key {new_key!r} already")
    return _replaced(document.text, member.key_start, member.key_end, _dumped(document, pointer, new_key))


def _root(document: Document, pointer: str) -> Node:
    if document.root is None:
        raise EditError(pointer, f"the file cannot be read: {document.problems[-1].message}")
    return document.root


def _parent(document: Document, pointer: str) -> tuple[Node, str]:
    """The object or array that holds the pointer's last key, and that key."""
    _root(document, pointer)
    if not pointer:
        raise EditError(pointer, "it has no key")
    try:
        *parts, token = split_pointer(pointer)
    except ValueError as error:
        raise EditError(pointer, str(error)) from None
    parent = document.find(pointer_to(*parts))
    if parent is None:
        raise EditError(pointer, "its parent does not exist")
    if parent.value_kind not in ("object", "array"):
        raise EditError(pointer, f"its parent is a {parent.value_kind}, not an object or array")
    return parent, token


def _replaced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _children(parent: Node) -> list[Span]:
    """The spans of the members (from key to value) or items."""
    if parent.value_kind == "array":
        return [(item.start, item.end) for item in parent.items]
    return [(member.key_start, member.node.end) for member in parent.members]


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Ascending indices as runs of neighbours: ``[1, 2, 5]`` -> ``[(1, 2), (5, 5)]``."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


def _doomed_span(text: str, parent: Node, children: list[Span], first: int, last: int) -> Span:
    """What to cut so that the children from ``first`` to ``last`` go, and one comma with each."""
    before = children[first - 1][1] if first else parent.start + 1
    start, end = children[first][0], children[last][1]
    if last + 1 == len(children):
        return before, end
    after = children[last + 1][0]
    # A neighbour behind them on their line keeps its place: cut up to it, so that the start of the line stays.
    if first == 0 or (_multiline(text[before:start]) and not _multiline(text[end:after])):
        return start, after
    return before, end


def _added(document: Document, pointer: str, parent: Node, token: str, value: Any) -> str:
    """The text with one member or item more at the end of ``parent``."""
    text, style = document.text, _style(document)
    if parent.value_kind == "object":
        key = _dumped(document, pointer, token) + style.colon
    elif token == "-" or array_index(token) == len(parent.items):
        key = ""
    else:
        raise EditError(pointer, f"its parent is an array with {len(parent.items)} items")
    children = _children(parent)
    if children:
        start, end = children[-1]
        before = children[-2][1] if len(children) > 1 else parent.start + 1
        lead = text[before:start].rpartition(",")[2]
        if len(children) == 1 and not _multiline(lead):
            lead = style.gap
        return _replaced(text, end, end, f",{lead}{key}{_dumped(document, pointer, value, _indent_at(text, start))}")
    outer = _indent_at(text, parent.start)
    if not style.spread and not _broken(text, parent):
        return _replaced(text, parent.start + 1, parent.end - 1, key + _dumped(document, pointer, value, outer))
    inner = outer + style.unit
    new = f"{document.newline}{inner}{key}{_dumped(document, pointer, value, inner)}{document.newline}{outer}"
    return _replaced(text, parent.start + 1, parent.end - 1, new)


def _dumped(document: Document, pointer: str, value: Any, indent: str = "", spread: bool | None = None) -> str:
    """The value as JSON in the document's style, on a line that begins with ``indent``.

    ``spread`` overrides whether lists and objects stand on several lines.
    """
    style = _style(document)
    spread = style.spread if spread is None else spread
    escape = document.text.isascii()
    separators = ("," if spread else f",{style.gap}", style.colon)
    unit = style.unit if spread else None
    try:
        new = json.dumps(value, ensure_ascii=escape, allow_nan=False, indent=unit, separators=separators)
    except (TypeError, ValueError, RecursionError) as error:
        raise EditError(pointer, f"the new value is not JSON: {error}") from None
    # Half a surrogate pair cannot be encoded as UTF-8, but it can be escaped.
    new = _SURROGATE.sub(lambda half: f"\\u{ord(half.group()):04x}", new)
    return new.replace("\n", document.newline + indent)


@dataclass(frozen=True, slots=True)
class _Style:
    """How a text is laid out.

    Attributes:
        spread: whether lists and inner objects have an item per line.
        unit: what one level adds to the indentation.
        colon: what stands between a key and its value.
        gap: what follows a comma within a line.
    """

    spread: bool
    unit: str
    colon: str
    gap: str


def _style(document: Document) -> _Style:
    """The style of the first places that show it; of ``json.dumps`` where none does."""
    text = document.text
    nodes = [node for _, node in document.walk()]
    filled = [(node, _children(node)) for node in nodes if node.members or node.items]
    # The root is on several lines in most files: it tells about lists only where there is no other evidence.
    spread = any(_broken(text, node) for node in [node for node, _ in filled if node is not nodes[0]] or nodes[:1])
    units = (_unit(text, node, children) for node, children in filled if _broken(text, node))
    colons = (text[member.key_end : member.node.start] for node, _ in filled for member in node.members)
    colon = next((found for found in colons if found in (":", ": ", " : ")), ": ")
    gaps = (text[left[1] : right[0]] for _, children in filled for left, right in pairwise(children))
    gap = next((found.rpartition(",")[2] for found in gaps if not _multiline(found)), colon.lstrip(" ")[1:])
    return _Style(spread, next(units, "  "), colon, gap)


def _unit(text: str, node: Node, children: list[Span]) -> str:
    inner, outer = _indent_at(text, children[0][0]), _indent_at(text, node.start)
    return inner.removeprefix(outer)


def _broken(text: str, node: Node) -> bool:
    """Whether the object or array has a line end behind its bracket."""
    children = _children(node)
    return _multiline(text[node.start + 1 : children[0][0] if children else node.end - 1])


def _multiline(text: str) -> bool:
    return "\n" in text or "\r" in text


def _indent_at(text: str, offset: int) -> str:
    """The blanks at the start of the line that holds the offset."""
    start = max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1
    end = start
    while text[end] in " \t":
        end += 1
    return text[start:end]
