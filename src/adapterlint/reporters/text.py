"""Text that a terminal may show: escaped, measured in columns, cut to a window, coloured on request."""

from __future__ import annotations

from typing import NamedTuple

LINE_WIDTH = 100
"""Columns of source text that are shown of a line."""

MESSAGE_LENGTH = 600
"""Characters of a message that are shown."""

TAB = "    "
ELLIPSIS = "..."

_STYLES = {
    "error": {"fg": "red", "bold": True},
    "warning": {"fg": "yellow", "bold": True},
    "note": {"fg": "cyan", "bold": True},
    "good": {"fg": "green", "bold": True},
    "frame": {"fg": "blue", "bold": True},
    "strong": {"bold": True},
}


def printable(text: str, keep: str = "") -> str:
    """The text with control, bidirectional and unpaired characters as escapes such as ``\\x1b``, less those to keep."""
    if text.isprintable():
        return text
    return "".join(char if char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def clipped(text: str, length: int = MESSAGE_LENGTH) -> str:
    """The printable text, its middle left out where it is longer than ``length`` characters."""
    if len(text) <= length:  # escapes may make it longer; what is bounded is how much of the text is shown
        return printable(text)
    head = length * 2 // 3
    tail = length - head - len(ELLIPSIS)
    return printable(text[:head]) + ELLIPSIS + printable(text[-tail:])


def paint(text: str, role: str, color: bool) -> str:
    """The text in the colour of a role (``error``, ``frame``, …), or as it is."""
    if not color or not text:
        return text
    from click import style

    return style(text, **_STYLES[role])  # type: ignore[arg-type]


def plural(count: int, word: str, words: str | None = None) -> str:
    """A count with its noun: ``1 adapter``, ``4 adapters``."""
    return f"{count} {word if count == 1 else words or word + 's'}"


def width(text: str) -> int:
    """Terminal columns of a printable text."""
    return len(text) if text.isascii() else sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if char < "\u0300":
        return 1
    import unicodedata  # only for what is beyond Latin

    if unicodedata.category(char) in ("Mn", "Me") or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


class Window(NamedTuple):
    """The part of a line that is shown.

    Attributes:
        text: what to print.
        offset: columns in front of the span.
        length: columns of the span, at least 1.
    """

    text: str
    offset: int
    length: int


def window(line: str, start: int, end: int, limit: int = LINE_WIDTH) -> Window:
    """A line cut to at most about ``limit`` columns around a span.

    Args:
        line: the line, without its end.
        start: column of the first character of the span, from 1, in code points.
        end: column after its last character.
        limit: columns to show.
    """
    first = min(max(start - 1, 0), len(line))
    last = min(max(end - 1, first + 1), len(line))
    left, right = _bounds(line, first, limit)
    before = "".join(map(_shown, line[left:first]))
    marked = "".join(map(_shown, line[first : min(last, right)]))
    after = "".join(map(_shown, line[max(first, min(last, right)) : right]))
    head, tail = ELLIPSIS if left else "", ELLIPSIS if right < len(line) else ""
    return Window(head + before + marked + after + tail, len(head) + width(before), max(width(marked), 1))


def _shown(char: str) -> str:
    return TAB if char == "\t" else _escaped(char)


def _bounds(line: str, focus: int, limit: int) -> tuple[int, int]:
    """Where to cut: a third of the columns stand before the focus, more where less follows it."""
    right, used = _forward(line, focus, limit - limit // 3)
    left, taken = _backward(line, focus, limit - used)
    right, _ = _forward(line, focus, limit - taken)
    while 0 < left < focus and width(_shown(line[left])) == 0:
        left += 1
    return left, right


def _forward(line: str, start: int, room: int) -> tuple[int, int]:
    used = 0
    for position in range(start, len(line)):
        columns = width(_shown(line[position]))
        if used + columns > room:
            return position, used
        used += columns
    return len(line), used


def _backward(line: str, start: int, room: int) -> tuple[int, int]:
    used = 0
    for position in range(start, 0, -1):
        columns = width(_shown(line[position - 1]))
        if used + columns > room:
            return position, used
        used += columns
    return 0, used
