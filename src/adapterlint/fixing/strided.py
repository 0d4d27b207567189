"""Where the bytes of a tensor are, and how a view that does not lie in one run is read in order."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_ELEMENTS = 1 << 17
"""Elements that are gathered at once."""


class Source(NamedTuple):
    """Where bytes come from: a file and the offset in it, in bytes."""

    file: str
    offset: int


class Strided(NamedTuple):
    """Elements that are spread over a file.

    Attributes:
        file: the file.
        offset: its first element, in bytes from the start of the file.
        itemsize: bytes an element.
        shape: dimensions.
        strides: elements from one index to the next, for each dimension; 0 repeats, and none is negative.
    """

    file: str
    offset: int
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def span(self) -> int:
        """Elements from the first to the last one, both included; 0 if there are none."""
        if not self.numel:
            return 0
        return 1 + sum(stride * (size - 1) for size, stride in zip(self.shape, self.strides, strict=True))


def gather(view: Strided) -> Iterator[bytes]:
    """The elements in row-major order, in blocks. Raises OSError, EOFError if the file ends too early."""
    import numpy as np

    if not view.numel:
        return
    stored = _mapped(view)
    # numpy has at most 64 dimensions, torch more; those of one element say nothing.
    kept = [(size, step * view.itemsize) for size, step in zip(view.shape, view.strides, strict=True) if size != 1]
    shape, strides = [size for size, _ in kept], [step for _, step in kept]
    for block in _blocks(np.lib.stride_tricks.as_strided(stored, shape, strides, writeable=False)):
        yield block
        _forget(stored)


def _blocks(array: NDArray[Any]) -> Iterator[bytes]:
    """Row-major bytes of an array, however large, a block at a time."""
    if array.size <= BLOCK_ELEMENTS or not array.ndim:
        yield array.tobytes()
        return
    rows = max(1, BLOCK_ELEMENTS // max(1, array.size // len(array)))
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        if rows == 1 and part.size > BLOCK_ELEMENTS:
            yield from _blocks(part[0])
        else:
            yield part.tobytes()


def differs(view: Strided, path: str, offset: int) -> bool:
    """Whether ``path`` from ``offset`` on does not hold the elements in order.

    The place of each element is worked out from its index, so that this proves what :func:`gather` did.
    """
    import numpy as np

    stored = _mapped(view)
    for start in range(0, view.numel, BLOCK_ELEMENTS):
        rest: NDArray[Any] = np.arange(start, min(start + BLOCK_ELEMENTS, view.numel), dtype=np.int64)
        places = np.zeros_like(rest)
        count = len(rest)
        for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
            rest, index = np.divmod(rest, size)
            places += index * stride
        with open(path, "rb") as file:
            file.seek(offset + start * view.itemsize)
            written = file.read(count * view.itemsize)
        if stored[places].tobytes() != written:
            return True
        _forget(stored)
    return False


def _forget(stored: NDArray[Any]) -> None:
    """Give the pages back that were read: the memory taken must not grow with the file."""
    pages = getattr(stored, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _mapped(view: Strided) -> NDArray[Any]:
    """The stored elements from the first to the last one, read as they are needed."""
    import numpy as np

    if os.path.getsize(view.file) < view.offset + view.span * view.itemsize:
        raise EOFError(f"{view.file} ends before its tensors do")
    dtype = np.dtype(f"V{view.itemsize}")
    if not view.span:
        return np.empty(0, dtype)
    return np.memmap(view.file, dtype, "r", view.offset, (view.span,))
