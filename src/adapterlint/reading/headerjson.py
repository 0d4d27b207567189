"""The JSON of a safetensors header in its plain form, at about the price of ``json.loads``.

:func:`parse_ordinary` takes the headers that all known writers produce and gives up on any other, which is then for
:func:`adapterlint.reading.headerserde.parse_strict` to judge.
"""

from __future__ import annotations

import json
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, NamedTuple

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
METADATA_KEY = "__metadata__"
"""The one key of a header that is no tensor."""


_fields = itemgetter("dtype", "shape", "data_offsets")


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


class Parsed(NamedTuple):
    """What the JSON of a header holds.

    Attributes:
        tensors: by name, in the order of first appearance; of duplicates the last one counts.
        metadata: the strings of ``__metadata__``.
        problems: notes, and at most one fatal problem, after which nothing more was read.
    """

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    problems: tuple[Problem, ...]


def parse_ordinary(raw: bytes, text: str) -> Parsed | None:
    """Parse a header in which nothing is out of the ordinary; None for any other, which proves nothing against it.

    Args:
        raw: the header.
        text: the same, decoded.
    """
    # Escapes may hide surrogates, and json takes -0 for the integer that it is not in serde.
    # (One byte is found several times faster than two.)
    if (b"\\" in raw and b"\\u" in raw) or (b"-" in raw and _has_negative_zero(raw)):
        return None
    try:
        document = json.loads(text)
        has_metadata = METADATA_KEY in document
        metadata = document.pop(METADATA_KEY, {})
        tensors = _ordinary_tensors(document)
        strings = [*metadata, *metadata.values()]
        in_metadata = "".join(strings).count(":")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    # Each key has its colon, so that this finds duplicates, which json overwrites, and fields beyond the three.
    keys = 4 * len(tensors) + has_metadata * (1 + len(metadata))
    if raw.count(b":") - in_metadata != keys:
        return None
    return Parsed(tensors, metadata, ())


def _ordinary_tensors(document: dict[str, Any]) -> dict[str, TensorEntry]:
    """The tensors of a parsed header; any of the caught exceptions if an entry is not of the plain form."""
    if not document:
        return {}
    # Column by column, so that the loops run in C: headers have thousands of tensors.
    dtypes, shapes, ranges = zip(*map(_fields, document.values()), strict=True)
    begins, ends = zip(*ranges, strict=True)
    numbers = [*chain.from_iterable(shapes), *begins, *ends]
    plain = (
        DTYPE_BITS.keys() >= set(dtypes)
        and {*map(type, shapes), *map(type, ranges)} == {list}
        and set(map(type, numbers)) == {int}  # not isinstance: True is an int too
        and min(numbers) >= 0
        and max(numbers) <= U64_MAX
    )
    if not plain:
        raise ValueError
    # The constructor of a NamedTuple is Python code; this is what it does.
    columns = zip(document, dtypes, map(tuple, shapes), begins, ends, strict=True)
    return dict(zip(document, map(tuple.__new__, repeat(TensorEntry), columns), strict=False))


def _has_negative_zero(raw: bytes) -> bool:
    """Whether a number may be written ``-0``; inside a text or a number, where others precede it, it does no harm."""
    found = raw.find(b"-0")
    while found > 0:
        if raw[found - 1] in b"[,: \t\r\n":
            return True
        found = raw.find(b"-0", found + 2)
    return False
