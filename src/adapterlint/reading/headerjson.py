"""The JSON of a safetensors header in the form that the library writes, at less than the price of ``json.loads``.

:func:`parse_ordinary` takes that form and gives up on any other, which is then for
:func:`adapterlint.reading.headerserde.parse_strict` to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache, reduce
from itertools import accumulate, repeat
from json import JSONDecoder
from math import prod
from operator import or_
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
_NUMBER = "(?:0|[1-9][0-9]{0,18})"  # below 2**64, whatever the digits
_SHAPE = re.compile(rf":\[((?:{_NUMBER}(?:,{_NUMBER})*)?)\],")
_ODD = re.compile(r"[\\\x00-\x1f]")
_PIECES = 10  # of one entry, between quotation marks
_MOST_SHAPES = 1 << 14
_MOST_TEXT = 1 << 17
# A complex number needs the alignment of its parts only; below a byte there is nothing to align.
ALIGN_MASK = {dtype: (4 if dtype == "C64" else max(bits // 8, 1)) - 1 for dtype, bits in DTYPE_BITS.items()}
"""By dtype, the bits that are zero in the address of an aligned element."""


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


class Run(NamedTuple):
    """How tensors lie that lie one after another, as they are listed, whole: in nearly all files they do.

    Attributes:
        end: where the last one ends, relative to the data section.
        mask: the bits that have to be zero in the start of the data section for all to be aligned; None if that would
            not do.
    """

    end: int
    mask: int | None


class Entries(Mapping[str, TensorEntry]):
    """Tensors by name, made from columns when one is asked for: of most files only the columns are ever looked at.

    Files with the same tensors may share one object.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    @cached_property
    def run(self) -> Run | None:
        """How the tensors lie; None if not one after another, or if there are none."""
        return run_of(self.columns)

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


def run_of(columns: Columns) -> Run | None:
    """How tensors lie, if one after another."""
    _, dtypes, shapes, begins, ends = columns
    if not ends or begins[0] or begins[1:] != ends[:-1]:
        return None
    found = set(dtypes)
    if len(found) == 1:
        known = {shape: _bytes(dtypes[0], shape) for shape in set(shapes)}
        sizes = tuple(map(known.__getitem__, shapes))
    else:
        sizes = tuple(map(_bytes, dtypes, shapes))
    if 0 in sizes or tuple(accumulate(sizes)) != ends:
        return None
    mask = reduce(or_, (ALIGN_MASK[dtype] for dtype in found))
    return Run(ends[-1], None if any(size & mask for size in set(sizes)) else mask)


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Size of a tensor; 0 also for one that is not a whole number of bytes, or whose bits 64 bits cannot count."""
    bits = prod(shape) * DTYPE_BITS[dtype]
    return 0 if bits > U64_MAX or bits & 7 else bits >> 3


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

    None for any other, which proves nothing against it. Cut at its quotation marks such a text falls into pieces of
    which every tenth is of one kind, so that the columns are slices of it; a JSON parser makes thousands of objects.
    """
    metadata: dict[str, str] = {}
    start = 1
    try:
        if text.startswith(_OPENING):
            metadata, start = _metadata(text)
        elif not text.startswith("{"):
            return None
        return Parsed(_tensors(text[start - 1 : start], text[start:].rstrip(" ")), metadata, ())
    except (ValueError, KeyError, RecursionError):
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


def _tensors(before: str, text: str) -> Entries:
    """The tensors from the end of a header, behind a character. Raises ValueError if something is unusual."""
    if text == "}" and before != ",":
        return Entries(columns_of({}))
    return _shared(text) if len(text) <= _MOST_TEXT else Entries(_columns(text))


@lru_cache(maxsize=256)
def _shared(text: str) -> Entries:
    return Entries(_columns(text))


def _columns(text: str) -> Columns:
    """The columns of ``"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},...}}``, names without escapes."""
    pieces = text.split('"')
    count = len(pieces) // _PIECES
    usual = (
        len(pieces) == count * _PIECES + 1
        and not pieces[0]
        and pieces[2::_PIECES].count(":{") == count
        and pieces[3::_PIECES].count("dtype") == count
        and pieces[4::_PIECES].count(":") == count
        and pieces[6::_PIECES].count(",") == count
        and pieces[7::_PIECES].count("shape") == count
        and pieces[9::_PIECES].count("data_offsets") == count
    )
    if not usual or not count:
        raise ValueError
    names = _plain(tuple(pieces[1::_PIECES]))
    begins, ends = _offsets("".join(pieces[10::_PIECES]), count)
    return Columns(names, _dtypes(pieces[5::_PIECES]), _shapes(pieces[8::_PIECES]), begins, ends)


@lru_cache(maxsize=64)
def _plain(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if there is nothing odd about them; the same object for all files with the same."""
    if len(set(names)) != len(names) or METADATA_KEY in names or _ODD.search("".join(names)):
        raise ValueError
    return names


def _offsets(text: str, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Begins and ends from ``:[0,24]},:[24,25]}}``."""
    if text.encode().translate(None, b"0123456789") != b":[,]}," * (count - 1) + b":[,]}}":
        raise ValueError
    numbers = _DECODER.decode(f"[{text[2:-3].replace(']},:[', ',')}]")  # which takes no zero in front
    if max(numbers) > U64_MAX:
        raise ValueError
    begins, ends = tuple(numbers[::2]), tuple(numbers[1::2])
    if not begins[0] and begins[1:] == ends[:-1]:
        begins = (0, *ends[:-1])  # the same objects
    return begins, ends


def _dtypes(texts: list[str]) -> tuple[str, ...]:
    if texts.count(texts[0]) == len(texts):
        return (_DTYPES[texts[0]],) * len(texts)
    return tuple(map(_DTYPES.__getitem__, texts))


def _shapes(texts: list[str]) -> tuple[tuple[int, ...], ...]:
    """Shapes from texts such as ``:[2,3],``; few of them differ."""
    try:
        return tuple(map(_SHAPES.__getitem__, texts))
    except KeyError:
        if len(_SHAPES) > _MOST_SHAPES:
            _SHAPES.clear()
    for text in set(texts):
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise ValueError
        _SHAPES[text] = tuple(map(int, found[1].split(","))) if found[1] else ()
    return tuple(map(_SHAPES.__getitem__, texts))


_DTYPES = {dtype: dtype for dtype in DTYPE_BITS}  # the same few objects for all
_DECODER = JSONDecoder()
_SHAPES: dict[str, tuple[int, ...]] = {}
