"""Where everything stands in a JSON text: a tree with the span of every key and value, and JSON pointers into it."""

from __future__ import annotations

import re
from json.decoder import WHITESPACE, scanstring  # type: ignore[attr-defined]
from json.scanner import NUMBER_RE
from typing import Literal, NamedTuple, TypeAlias

ValueKind: TypeAlias = Literal["object", "array", "string", "number", "boolean", "null"]
Scalar: TypeAlias = str | int | float | bool | None

_LITERALS: dict[str, tuple[ValueKind, Scalar]] = {
    "true": ("boolean", True),
    "false": ("boolean", False),
    "null": ("null", None),
    "NaN": ("number", float("nan")),
    "Infinity": ("number", float("inf")),
    "-Infinity": ("number", float("-inf")),
}


class Member(NamedTuple):
    """A key and its value in an object; ``key_start`` and ``key_end`` span the key with its quotes."""

    key: str
    key_start: int
    key_end: int
    node: Node


class Node(NamedTuple):
    """A value and its span in code points, ``text[start:end]``.

    Attributes:
        start: offset of the first character.
        end: offset after the last character.
        value_kind: the JSON type.
        scalar: the value, unless it is an object or an array.
        members: the members of an object in the order of the text, duplicates included.
        items: the items of an array.
    """

    start: int
    end: int
    value_kind: ValueKind
    scalar: Scalar = None
    members: tuple[Member, ...] = ()
    items: tuple[Node, ...] = ()

    def named(self, key: str) -> list[Member]:
        """The members with this key, more than one if it is duplicated."""
        return [member for member in self.members if member.key == key]


def split_pointer(pointer: str) -> list[str]:
    """The unescaped tokens of a JSON pointer (RFC 6901). Raises ValueError if it does not start with ``/``."""
    if not pointer:
        return []
    if pointer[0] != "/":
        raise ValueError(f"not a JSON pointer: {pointer!r}")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]


def array_index(token: str) -> int | None:
    """The array index that a pointer token stands for, or None: RFC 6901 has no leading zeros and only ASCII digits."""
    # More than 15 digits is no index of anything, and int() refuses 4301.
    if len(token) > 15 or not re.fullmatch("0|[1-9][0-9]*", token):
        return None
    return int(token)


def item_at(array: Node, token: str) -> Node | None:
    """The item of an array at the index that a pointer token stands for, or None."""
    index = array_index(token)
    return array.items[index] if index is not None and index < len(array.items) else None


def member_named(node: Node, key: str, occurrence: int | None = None) -> Member | None:
    """The last member of an object with this key, or the one that ``occurrence`` counts to from 0; None without one."""
    found = node.named(key)
    if occurrence is None:
        return found[-1] if found else None
    return found[occurrence] if 0 <= occurrence < len(found) else None


class NumberRefusedError(ValueError):
    """``int`` refuses the digits at this offset."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class _Open:
    """An object or array whose end is not reached yet."""

    __slots__ = ("items", "key", "members", "start", "value_kind")

    def __init__(self, start: int, value_kind: Literal["object", "array"]) -> None:
        self.start = start
        self.value_kind: Literal["object", "array"] = value_kind
        self.key = ("", 0, 0)
        self.members: list[Member] = []
        self.items: list[Node] = []

    def read_key(self, text: str, at: int) -> int:
        """Takes the key at this offset, if this is an object; gives the offset of the value."""
        if self.value_kind == "array":
            return at
        key, end = scanstring(text, at + 1)
        self.key = (key, at, end)
        return _skip(text, _skip(text, end) + 1)

    def add(self, node: Node) -> None:
        if self.value_kind == "array":
            self.items.append(node)
        else:
            self.members.append(Member(*self.key, node))

    def close(self, end: int) -> Node:
        return Node(self.start, end, self.value_kind, None, tuple(self.members), tuple(self.items))


def parse_tree(text: str) -> Node:
    """The positioned tree of a text that ``json.loads`` accepts; on any other text the result means nothing.

    It does not recurse, since newer Pythons take texts deeper than their own stack.
    """
    opened: list[_Open] = []
    at = _skip(text, 0)
    while True:
        if text[at] in "{[":
            opened.append(_Open(at, "object" if text[at] == "{" else "array"))
            at = _skip(text, at + 1)
            if text[at] not in "}]":
                at = opened[-1].read_key(text, at)
                continue
            node = opened.pop().close(at + 1)
        else:
            node = _scalar(text, at)
        # Close whatever ends here; a comma means that the next value begins.
        while opened:
            opened[-1].add(node)
            at = _skip(text, node.end)
            if text[at] == ",":
                at = opened[-1].read_key(text, _skip(text, at + 1))
                break
            node = opened.pop().close(at + 1)
        else:
            return node


def _skip(text: str, at: int) -> int:
    found = WHITESPACE.match(text, at)
    return found.end() if found else at


def _scalar(text: str, at: int) -> Node:
    if text[at] == '"':
        value, end = scanstring(text, at + 1)
        return Node(at, end, "string", value)
    for literal, (kind, meaning) in _LITERALS.items():
        if text.startswith(literal, at):
            return Node(at, at + len(literal), kind, meaning)
    found = NUMBER_RE.match(text, at)
    if found is None:
        raise ValueError(f"no JSON value at offset {at}")
    integer, fraction, exponent = found.groups()
    try:
        number = float(found.group()) if fraction or exponent else int(integer)
    except ValueError:
        raise NumberRefusedError(at) from None
    return Node(at, found.end(), "number", number)
