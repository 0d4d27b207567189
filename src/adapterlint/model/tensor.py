"""A stored tensor as its header describes it."""

from __future__ import annotations

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


FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
STORED_DTYPES = frozenset(
    {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3"}
    | {"F6_E3M2", "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
)
"""Every dtype that a safetensors file can hold."""
UNSCALED_DTYPES = frozenset(
    {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2", "I8", "U8"}
)
