"""A stored tensor as its header describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import repeat
from operator import sub
from typing import NamedTuple


class Tensor(NamedTuple):
    """Name, dtype and shape of a stored tensor.

    Attributes:
        name: name in the file.
        dtype: safetensors dtype name (``F32``, ``BF16``, …).
        shape: dimensions; ``()`` for a scalar.
        file: the file that holds it, relative to its directory.
        offset: absolute byte offset of its data in that file; -1 where the bytes are not stored in one run.
        nbytes: size of its data in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str = ""
    offset: int = -1
    nbytes: int = 0


class TensorTable(Mapping[str, Tensor]):
    """The tensors of one file by name, kept as columns until one is asked for: a run holds those of many adapters.

    Args:
        names: in file order, each once.
        dtypes: the dtype of each.
        shapes: the shape of each.
        file: as in :class:`Tensor`.
        start: where the data section starts, in bytes.
        begins: where the data of each starts, relative to that.
        ends: where it ends (exclusive).
    """

    def __init__(
        self,
        names: tuple[str, ...],
        dtypes: tuple[str, ...],
        shapes: tuple[tuple[int, ...], ...],
        file: str,
        start: int,
        begins: tuple[int, ...],
        ends: tuple[int, ...],
    ) -> None:
        self.names, self.dtypes, self.shapes = names, dtypes, shapes
        self._place = file, start, begins, ends

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        file, start, begins, ends = self._place
        offsets = map(start.__add__, begins)
        columns = zip(self.names, self.dtypes, self.shapes, repeat(file), offsets, map(sub, ends, begins), strict=False)
        # The constructor of a NamedTuple is Python code; this is what it does.
        return dict(zip(self.names, map(tuple.__new__, repeat(Tensor), columns), strict=False))

    @property
    def whole(self) -> Tensor:
        """All the data as one tensor of the first dtype, without a name; the tensors are not to be none."""
        file, start, begins, ends = self._place
        begin, end = min(begins), max(ends)
        return Tensor("", self.dtypes[0], (), file, start + begin, end - begin)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __reduce__(self) -> tuple[object, ...]:
        file, start, begins, ends = self._place
        return TensorTable, (self.names, self.dtypes, self.shapes, file, start, begins, ends)


FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
STORED_DTYPES = frozenset(
    {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3"}
    | {"F6_E3M2", "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
)
"""Every dtype that a safetensors file can hold."""
UNSCALED_DTYPES = frozenset(
    {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2", "I8", "U8"}
)
