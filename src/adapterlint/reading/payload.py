"""Questions about the bytes of a tensor, answered block by block: the memory taken does not grow with the tensor.

Offsets are in bytes from the start of the file, as ``Header.data_start + entry.begin`` gives them. All functions raise
OSError if a file cannot be read and EOFError if it ends early; a header without fatal problem rules the latter out,
unless the file changes meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

BLOCK_BYTES = 1 << 20

_Path = str | os.PathLike[str]

# Bytes per number of the types whose highest bit is a sign that a zero may carry.
_SIGNED_ZERO_BYTES = {"F64": 8, "C64": 4, "F32": 4, "F16": 2, "BF16": 2, "F8_E5M2": 1, "F8_E4M3": 1}
_ZEROS = bytes(BLOCK_BYTES)

# dtype -> bytes per number, and the bits that are all set in exactly the numbers that are not finite.
_NON_FINITE_BITS = {
    "F64": (8, 0x7FF0_0000_0000_0000),
    "C64": (4, 0x7F80_0000),
    "F32": (4, 0x7F80_0000),
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F8_E5M2": (1, 0x7C),
    "F8_E4M3": (1, 0x7F),
    "F8_E8M0": (1, 0xFF),
}
# These have no infinity, and one NaN: what would be -0.
_FNUZ = ("F8_E4M3FNUZ", "F8_E5M2FNUZ")


def read_blocks(path: _Path, offset: int, size: int, block: int = BLOCK_BYTES) -> Iterator[memoryview]:
    """Yield ``size`` bytes from ``offset`` on, in views of up to ``block`` bytes; each is valid until the next one."""
    buffer = memoryview(bytearray(min(block, size)))
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while size > 0:
            view = buffer[: min(block, size)]
            _fill(file, view, path)
            yield view
            size -= len(view)


def _fill(file: Any, view: memoryview, path: _Path) -> None:
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled:])
        if not count:
            raise EOFError(f"{os.fspath(path)} ends before its tensors do")
        filled += count


def is_zero(path: _Path, offset: int, size: int, dtype: str) -> bool:
    """Whether all numbers are 0, as -0.0 is too; stops at the first block that holds something else.

    True of a tensor without elements. Not of any other of dtype F8_E8M0, which has no zero.
    """
    if dtype == "F8_E8M0" and size:
        return False
    return all(_ZEROS.startswith(view) or _is_signed_zero(view, dtype) for view in read_blocks(path, offset, size))


def _is_signed_zero(view: memoryview, dtype: str) -> bool:
    data = view.tobytes()  # slices and counts faster than a view
    if dtype == "F4":  # two numbers to a byte
        return not data.translate(None, b"\x00\x08\x80\x88")
    width = _SIGNED_ZERO_BYTES.get(dtype)
    if width is None:
        return False
    # The sign is in the last byte of each number: those may be 0x80 too, the others may not.
    signs = data[width - 1 :: width]
    others = len(data) - len(signs)
    return not signs.translate(None, b"\x00\x80") and data.count(0) == others + signs.count(0)


def equal(path_a: _Path, offset_a: int, path_b: _Path, offset_b: int, size: int) -> bool:
    """Whether two ranges hold the same bytes. (So NaN equals the same NaN, and 0.0 is not -0.0.)"""
    block = min(BLOCK_BYTES, size)
    a, b = bytearray(block), bytearray(block)  # two of these are compared as memory, two views item by item
    with open(path_a, "rb", buffering=0) as file_a, open(path_b, "rb", buffering=0) as file_b:
        file_a.seek(offset_a)
        file_b.seek(offset_b)
        while size > 0:
            if size < block:
                del a[size:], b[size:]
            _fill(file_a, memoryview(a), path_a)
            _fill(file_b, memoryview(b), path_b)
            if a != b:
                return False
            size -= block
    return True


def is_finite(path: _Path, offset: int, size: int, dtype: str) -> bool:
    """Whether no number is infinite or NaN; of types that know neither it is true without a look."""
    blocks = read_blocks(path, offset, size)
    if dtype in _NON_FINITE_BITS and all(surely_finite(view.tobytes(), dtype) for view in blocks):
        return True
    return first_non_finite(path, offset, size, dtype) is None


def surely_finite(data: bytes, dtype: str) -> bool:
    """Whether the high bytes alone show that all numbers are finite; False means that a closer look is needed.

    It settles everything but numbers beyond 1e38, and F8 types without infinity.
    """
    if dtype not in _NON_FINITE_BITS:
        return dtype not in _FNUZ
    width, suspects = _suspects(dtype)
    highest = data[width - 1 :: width]
    if len(suspects) == 2:  # memchr is faster than translate
        return suspects[:1] not in highest and suspects[1:] not in highest
    return len(highest.translate(None, suspects)) == len(highest)


@lru_cache(maxsize=16)
def _suspects(dtype: str) -> tuple[int, bytes]:
    """Bytes per number, and the high bytes that a number which is not finite may have."""
    width, bits = _NON_FINITE_BITS[dtype]
    high = bits >> 8 * (width - 1)
    return width, bytes(byte for byte in range(256) if byte & high == high)


def first_non_finite(path: _Path, offset: int, size: int, dtype: str) -> int | None:
    """Index of the first element that is infinite or NaN (in either part, for C64), or None."""
    if dtype in _FNUZ:
        return _find_byte(path, offset, size, b"\x80")
    if dtype not in _NON_FINITE_BITS:
        return None
    width, bits = _NON_FINITE_BITS[dtype]
    index = _first_with_bits(path, offset, size, width, bits)
    return index // 2 if index is not None and dtype == "C64" else index


def _find_byte(path: _Path, offset: int, size: int, byte: bytes) -> int | None:
    before = 0
    for view in read_blocks(path, offset, size):
        found = view.tobytes().find(byte)
        if found >= 0:
            return before + found
        before += len(view)
    return None


def _first_with_bits(path: _Path, offset: int, size: int, width: int, bits: int) -> int | None:
    """Index of the first little-endian number of ``width`` bytes in which all ``bits`` are set.

    The bits lie in the highest two bytes. Whole blocks are looked at as one large number each, without numpy.
    """
    high, low = _marks(bits >> 8 * (width - 1)), _marks(bits >> 8 * (width - 2) & 0xFF if width > 1 else 0)
    before = 0
    for view in read_blocks(path, offset, size):
        data = view.tobytes()
        highest = data[width - 1 :: width]
        found = int.from_bytes(highest.translate(high), "little")
        if found and width > 1:
            found &= int.from_bytes(data[width - 2 :: width].translate(low), "little")
        if found:
            return before + ((found & -found).bit_length() - 1) // 8
        before += len(highest)
    return None


@lru_cache(maxsize=16)
def _marks(bits: int) -> bytes:
    """For ``bytes.translate``: 1 for bytes in which all of the bits are set, 0 for others."""
    return bytes(int(byte & bits == bits) for byte in range(256))
