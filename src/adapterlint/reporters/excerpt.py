"""Lines of a config with carets under the place that is meant."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.report import Place
from adapterlint.reporters.text import LINE_WIDTH, Window, paint, window


def gutter(*places: Place) -> int:
    """Columns of the widest line number of the places."""
    return max((len(str(line)) for place in places for line, _ in place.excerpt), default=1)


def excerpt(place: Place, columns: int, role: str, label: str, color: bool) -> Iterator[str]:
    """The lines of a place, the span marked.

    Args:
        place: a place with an excerpt; without one nothing comes.
        columns: width of the line numbers.
        role: colour of the marks.
        label: what to write beside the marks.
        color: whether to use colours at all.
    """
    if place.start is None or place.end is None or not place.excerpt:
        return
    drawing = _Drawing(columns, role, f" {label}" if label else "", color)
    yield drawing.bar()
    if place.end[0] == place.start[0]:
        yield from drawing.one_line(place, place.start, place.end)
    else:
        yield from drawing.many_lines(place, place.start, place.end)


class _Drawing:
    def __init__(self, columns: int, role: str, label: str, color: bool) -> None:
        self._columns = columns
        self._role = role
        self._label = label
        self._color = color

    def bar(self, rest: str = "", number: int | None = None) -> str:
        """A line with the frame in front of it."""
        lead = "" if number is None else str(number)
        return (paint(f"{lead:>{self._columns}} |", "frame", self._color) + (f" {rest}" if rest else "")).rstrip()

    def one_line(self, place: Place, start: tuple[int, int], end: tuple[int, int]) -> Iterator[str]:
        for number, text in place.excerpt:
            if number != start[0]:
                yield self.bar(window(text, 1, 1).text, number)
                continue
            part = window(text, start[1], end[1])
            yield self.bar(part.text, number)
            yield self.bar(" " * part.offset + self._marks("^" * part.length))

    def many_lines(self, place: Place, start: tuple[int, int], end: tuple[int, int]) -> Iterator[str]:
        before = start[0]
        for number, text in place.excerpt:
            if number > before + 1:
                yield self._rest("...", "|")
            before = number
            if number < start[0]:
                yield self.bar("  " + window(text, 1, 1).text, number)
            elif number == start[0]:
                part = window(text, start[1], start[1] + 1, LINE_WIDTH - 2)
                yield self.bar("  " + part.text, number)
                yield self.bar(" " + self._marks("_" * (part.offset + 1) + "^", label=False))
            else:
                part = self._later(number, text, end)
                yield self._rest(part.text, "|", number)
                if number == end[0]:
                    yield self.bar(self._marks("|" + "_" * (part.offset + part.length) + "^"))

    def _later(self, number: int, text: str, end: tuple[int, int]) -> Window:
        return window(text, end[1] - 1, end[1], LINE_WIDTH - 2) if number == end[0] else window(text, 1, 1)

    def _rest(self, text: str, mark: str, number: int | None = None) -> str:
        return self.bar(f"{paint(mark, self._role, self._color)} {text}", number)

    def _marks(self, marks: str, label: bool = True) -> str:
        return paint(marks + (self._label if label else ""), self._role, self._color)
