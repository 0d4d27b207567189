"""Where the keys of a TOML document stand. tomllib tells values only, and a message about one must name its line."""

from __future__ import annotations

import re
from typing import Any

from adapterlint.findings import pointer_to

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|"{1,2}(?!")|[^"\\])*"""("{0,2})' r"|'''.*?'''('{0,2})" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")


def positions(text: str) -> dict[Path, int]:
    """Code-point offsets of every key, and of every element of an array; tables are where their header is.

    Args:
        text: a document that tomllib accepts; of others the result means nothing.
    """
    return _Scanner(text).run()


def offset_of(text: str, pointer: str) -> int | None:
    """The offset of a value, by its JSON pointer; None if there is no such value."""
    try:
        found = positions(text)
    except (ValueError, IndexError, RecursionError):
        return None
    return next((at for path, at in found.items() if pointer_to(*path) == pointer), None)


class _Scanner:
    """Walks the text once, and only as finely as it takes to tell keys from values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._member(table)
            self._skip(_BLANK)
        return self._found

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"not TOML at offset {self._at}")
        self._at = found.end()
        return found[0]

    def _header(self) -> Path:
        start = self._at
        array = self._text.startswith("[[", self._at)
        self._at += 2 if array else 1
        path = self._inside((), self._key())
        self._at += 2 if array else 1
        if array:
            number = self._arrays[path] = self._arrays.get(path, -1) + 1
            self._found.setdefault(path, start)
            path = (*path, number)
        self._found.setdefault(path, start)
        return path

    def _inside(self, table: Path, names: list[str]) -> Path:
        """The path of a header, with the number of the present element of every array of tables that it passes."""
        path = table
        for position, name in enumerate(names):
            path = (*path, name)
            if position < len(names) - 1 and path in self._arrays:
                path = (*path, self._arrays[path])
        return path

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip(_SPACE)
            if self._text[self._at] in "\"'":
                names.append(_unquoted(self._skip(_STRING)))
            else:
                names.append(self._skip(_BARE))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return names
            self._at += 1

    def _member(self, table: Path) -> None:
        start = self._at
        names = self._key()
        for count in range(1, len(names) + 1):
            self._found.setdefault((*table, *names[:count]), start)
        self._at += 1  # the equals sign
        self._value((*table, *names))

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        first = self._text[self._at]
        if first == "[":
            self._elements(path)
        elif first == "{":
            self._members(path)
        else:
            self._skip(_STRING if first in "\"'" else _SCALAR)

    def _elements(self, path: Path) -> None:
        number = 0
        self._at += 1
        self._skip(_BLANK)
        while self._text[self._at] != "]":
            element = (*path, number)
            self._found[element] = self._at
            self._value(element)
            number += 1
            self._comma()
        self._at += 1

    def _members(self, path: Path) -> None:
        self._at += 1
        self._skip(_BLANK)
        while self._text[self._at] != "}":
            self._member(path)
            self._comma()
        self._at += 1

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)


def _unquoted(token: str) -> str:
    from adapterlint.config.files import parse

    value: Any = next(iter(parse(f"{token} = 0")))
    return str(value)
