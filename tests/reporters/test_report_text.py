"""Escapes, widths and windows, against Python's notion of a printable text and the columns of known blocks."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reports_util import columns

from adapterlint.reporters.text import clipped, plural, printable, width, window

# Old enough for every width table to agree on.
ALPHABET = 'ab"{},:\t é日本語한글ﾊＡe\u0301\u0302\U0001f600\x1b\x00\x7f\u202e\u200b\ud800\r'
TEXTS = st.text(alphabet=ALPHABET, max_size=300)


@given(st.text(max_size=60))
def test_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_printable_keeps_what_can_be_read_and_names_the_rest() -> None:
    assert printable("日本語 é \U0001f600") == "日本語 é \U0001f600"
    assert printable("a\x1b[31m\n\u202e\ud800\x85") == "a\\x1b[31m\\n\\u202e\\ud800\\x85"


@given(TEXTS)
def test_width_is_that_of_a_terminal(text: str) -> None:
    shown = printable(text)
    assert width(shown) == sum(map(columns, shown))


@given(TEXTS)
def test_width_is_what_rich_takes_it_for(text: str) -> None:
    cells = pytest.importorskip("rich.cells")
    assert width(printable(text)) == cells.cell_len(printable(text))


def drawn(text: str) -> str:
    return "".join("    " if char == "\t" else printable(char) for char in text)


@settings(max_examples=400)
@given(TEXTS, st.data())
def test_a_window_shows_the_span_at_its_columns(line: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(1, len(line) + 1))
    end = data.draw(st.integers(start, len(line) + 1))
    limit = data.draw(st.sampled_from([20, 60, 100, 10_000]))
    span = drawn(line[start - 1 : max(end - 1, start)])
    assume(not span or spacing(span))  # a mark has no column of its own
    found = window(line, start, end, limit)
    assert found.length >= 1
    assert found.text.isprintable()
    assert sum(map(columns, found.text)) <= limit + 6 + 10  # both ellipses, and one escape that the focus keeps whole
    before, marked = split(found.text, found.offset, found.length)
    if limit == 10_000:
        assert found.text == drawn(line)
        assert before == spacing(drawn(line[: start - 1]))
        assert marked == spacing(span)
    else:
        assert spacing(span).startswith(marked)
        assert spacing(drawn(line[: start - 1])).endswith(before.removeprefix("..."))


def split(text: str, offset: int, length: int) -> tuple[str, str]:
    """What takes columns in front of a column, and from it on for some columns."""
    column, before, marked = 0, "", ""
    for char in spacing(text):
        if column < offset:
            before += char
        elif column < offset + length:
            marked += char
        column += columns(char)
    return before, marked


def spacing(text: str) -> str:
    """The text less the marks that stand on the letter before them."""
    return "".join(char for char in text if columns(char))


def test_clipped() -> None:
    assert clipped("short\n") == "short\\n"
    text = clipped("a" * 1000 + "z" * 1000, 100)
    assert len(text) == 100 and text.startswith("a" * 60) and "..." in text and text.endswith("z" * 20)
    assert len(clipped("\x1b" * 10_000, 100)) <= 403


def test_plural() -> None:
    assert [plural(0, "adapter"), plural(1, "adapter"), plural(2, "adapter")] == [
        "0 adapters",
        "1 adapter",
        "2 adapters",
    ]
    assert plural(2, "check needs", "checks need") == "2 checks need"
