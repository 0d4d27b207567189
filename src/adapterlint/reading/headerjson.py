"""The JSON of a safetensors header in the form that the library writes, at less than the price of ``json.loads``.

:func:`parse_ordinary` takes that form and gives up on any other, which is then for
:func:`adapterlint.reading.headerserde.parse_strict` to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain, repeat
from json import JSONDecoder
from typing import NamedTuple

from .problems import Problem

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits per element of every dtype that safetensors 0.8.0 knows, in the order in which its error text lists them."""

U64_MAX = 2**64 - 1
LIBRARY = "Error while deserializing header: "
"""How every text of the library's ``SafetensorError`` starts."""
METADATA_KEY = "__metadata__"
"""The one key of a header that is no tensor."""


_OPENING = f'{{"{METADATA_KEY}":{{'
_NUMBER = "(0|[1-9][0-9]{0,18})"  # below 2**64, whatever the digits
_ENTRY = re.compile(
    r'"([^"\\}\x00-\x1f]+)":\{"dtype":"([A-Z0-9_]+)","shape":\[([0-9,]*)\],'
    rf'"data_offsets":\[{_NUMBER},{_NUMBER}\]\}}'
)
_ENTRY_BYTES = len('"":{"dtype":"","shape":[],"data_offsets":[,]}')
_SHAPE = re.compile(f"(?:{_NUMBER}(?:,{_NUMBER})*)?")
_MOST_SHAPES = 1 << 14


class TensorEntry(NamedTuple):
    """One tensor of a header.

    Attributes:
        name: its name.
        dtype: one of :data:`DTYPE_BITS`.
        shape: its dimensions, each below 2**64.
        begin: where its bytes start, relative to the data section.
        end: where they end (exclusive), relative to the data section.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Columns(NamedTuple):
    """Tensors of a header, field by field, in file order; fields as in :class:`TensorEntry`."""

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]


class Entries(Mapping[str, TensorEntry]):
    """Tensors by name, made from columns when one is asked for: of most files only the columns are ever looked at."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    @cached_property
    def _entries(self) -> dict[str, TensorEntry]:
        # The constructor of a NamedTuple is Python code; this is what it does.
        made = map(tuple.__new__, repeat(TensorEntry), zip(*self.columns, strict=True))
        return dict(zip(self.columns.names, made, strict=True))

    def __getitem__(self, name: str) -> TensorEntry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.names)

    def __len__(self) -> int:
        return len(self.columns.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._entries == dict(other)

    __hash__ = None  # type: ignore[assignment]


def columns_of(tensors: Mapping[str, TensorEntry]) -> Columns:
    """The columns of a header's tensors."""
    if isinstance(tensors, Entries):
        return tensors.columns
    return Columns(*zip(*tensors.values(), strict=True)) if tensors else Columns((), (), (), (), ())


class Parsed(NamedTuple):
    """What the JSON of a header holds.

    Attributes:
        tensors: by name, in the order of first appearance; of duplicates the last one counts.
        metadata: the strings of ``__metadata__``.
        problems: notes, and at most one fatal problem, after which nothing more was read.
    """

    tensors: Mapping[str, TensorEntry]
    metadata: dict[str, str]
    problems: tuple[Problem, ...]


def parse_ordinary(text: str) -> Parsed | None:
    """Parse a header as the library writes it: without white space and escapes, and the metadata first.

    None for any other, which proves nothing against it. A regular expression gives the columns at once that a JSON
    parser gives as thousands of objects.
    """
    metadata: dict[str, str] = {}
    start = 1
    try:
        if text.startswith(_OPENING):
            metadata, start = _metadata(text)
        elif not text.startswith("{"):
            return None
        return Parsed(_tensors(text, start), metadata, ())
    except (ValueError, RecursionError):
        return None


def _metadata(text: str) -> tuple[dict[str, str], int]:
    """The metadata, and where the tensors start. Raises ValueError if something is out of the ordinary."""
    begin = len(_OPENING) - 1
    metadata, end = _DECODER.raw_decode(text, begin)
    # Escapes may hide surrogates; each key has its colon, so that this finds duplicates, which json overwrites.
    plain = (
        set(map(type, metadata.values())) <= {str}
        and text.count('":"', begin, end) == len(metadata)
        and text.find("\\u", begin, end) < 0
    )
    if not plain or text[end : end + 1] not in (",", "}"):
        raise ValueError
    return metadata, end + (text[end] == ",")


def _tensors(text: str, start: int) -> Entries:
    """The tensors from an offset to the end of the text. Raises ValueError if something is out of the ordinary."""
    rows = _ENTRY.findall(text, start)
    stripped = text.rstrip(" ")
    if not rows:
        if stripped[start:] == "}" and stripped[start - 1] != ",":
            return Entries(columns_of({}))
        raise ValueError
    # Between the entries stands one comma each, behind them a brace, and nothing else.
    length = len("".join(chain.from_iterable(rows))) + len(rows) * (_ENTRY_BYTES + 1)
    whole = len(stripped) - start == length and stripped.endswith("}}")
    if not whole or text.count('},"', start) != len(rows) - 1:
        raise ValueError
    names, dtypes, shapes, begins, ends = zip(*rows, strict=True)
    if not DTYPE_BITS.keys() >= set(dtypes):
        raise ValueError
    known = set(names)
    if len(known) != len(names) or METADATA_KEY in known:
        raise ValueError
    dtypes = tuple(map(_DTYPES.__getitem__, dtypes))  # the same few objects for all
    stops = tuple(map(int, ends))
    if begins[0] == "0" and begins[1:] == ends[:-1]:  # one behind the other, as the library writes them
        return Entries(Columns(names, dtypes, _numbers(shapes), (0, *stops[:-1]), stops))
    return Entries(Columns(names, dtypes, _numbers(shapes), tuple(map(int, begins)), stops))


def _numbers(shapes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes from their texts; few of them differ."""
    if len(_SHAPES) > _MOST_SHAPES:
        _SHAPES.clear()
    for text in set(shapes) - _SHAPES.keys():
        if not _SHAPE.fullmatch(text):
            raise ValueError
        _SHAPES[text] = tuple(map(int, text.split(","))) if text else ()
    return tuple(map(_SHAPES.__getitem__, shapes))


_DTYPES = {dtype: dtype for dtype in DTYPE_BITS}
_DECODER = JSONDecoder()
_SHAPES: dict[str, tuple[int, ...]] = {}
