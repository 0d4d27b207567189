"""What computed tensors hold: the terms of ``terms``, evaluated some rows at a time, in double precision.

An operation is a pair of functions: the shape of its result, and the rows of it with given indices along the first
dimension. Most work on those rows alone, so that the memory taken does not grow with the tensor; those that need all
of their operand say so. numpy and ml_dtypes are imported when the first row is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from adapterlint.findings import Term
from adapterlint.reading.safetensors import DTYPE_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

BLOCK = 1 << 20
"""Elements that are worked out at once, in whole rows."""

_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip
_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
ROUNDING = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}
"""Largest relative error when a number becomes one of a dtype, if that does not make it too small or too large.

Those of the mantissas: half a unit in the last place. A computed tensor has one of these dtypes.
"""


class TermError(ValueError):
    """A term that has no value: an unknown operation or tensor, shapes that do not go together."""


class Stored(NamedTuple):
    """A tensor in a file: ``offset`` is absolute, in bytes; -1 if its bytes do not lie there in one run."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


class Values:
    """Values of terms.

    Args:
        adapter: tensors of the adapter's file by name.
        base: tensors of the base by name in its checkpoint.

    All methods raise TermError if a term has no value, OSError or EOFError if a file cannot be read.
    """

    def __init__(self, adapter: Mapping[str, Stored], base: Mapping[str, Stored]) -> None:
        self._tensors: dict[str, Mapping[str, Stored]] = {"stored": adapter, "base": base}
        self._factors: dict[Term, tuple[Array, Array]] = {}
        self._read: dict[Term, Array] = {}

    def shape(self, term: Term) -> tuple[int, ...]:
        """Dimensions of a term; checks it as far as shapes go."""
        return _operation(term).shape(self, *term.arguments)

    def rows(self, term: Term, indices: Array) -> Array:
        """The elements with these indices of the first dimension; of a tensor without dimensions, its one."""
        return _operation(term).rows(self, indices, *term.arguments)

    def whole(self, term: Term) -> Array:
        """All elements, as doubles."""
        import numpy as np

        shape = self.shape(term)
        return self.rows(term, np.arange(shape[0] if shape else 1)).reshape(shape)

    def kept(self, term: Term) -> Array:
        """All elements; those of the last term are kept."""
        if term not in self._read:
            self._read = {term: self.whole(term)}
        return self._read[term]

    def blocks(self, term: Term) -> Iterator[Array]:
        """All elements in some rows at a time."""
        import numpy as np

        shape = self.shape(term)
        if 0 in shape:
            return
        count, step = (shape[0] if shape else 1), max(1, BLOCK // self._width(term))
        for start in range(0, count, step):
            yield self.rows(term, np.arange(start, min(start + step, count)))

    def _width(self, term: Term) -> int:
        """Elements of the longest row that has to be worked out for a row of a term."""
        own = prod(self.shape(term)[1:])
        if term.operation in _WHOLE:
            return max(1, own)
        parts = (item for item in term.arguments if isinstance(item, Term) and item.operation != "identity")
        return max(1, own, *(self._width(item) for item in parts))

    def encoded(self, term: Term, dtype: str) -> Iterator[bytes]:
        """The bytes of a tensor, rounded to its dtype, in blocks."""
        import numpy as np

        wanted = number_type(dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # the proof finds what became infinite
            for block in self.blocks(term):
                yield block.astype(wanted).tobytes()

    def find(self, where: str, name: str) -> Stored:
        """A stored tensor, by name."""
        found = self._tensors[where].get(name)
        if found is None:
            raise TermError(f"there is no tensor {name!r} in {'the base' if where == 'base' else 'the file'}")
        if found.offset < 0:
            raise TermError(f"the bytes of tensor {name!r} do not lie in {found.file} as they are")
        return found

    def factors(self, term: Term) -> tuple[Array, Array]:
        """U S and V of a matrix's singular value decomposition; the last one is kept."""
        if term not in self._factors:
            import numpy as np

            left, values, right = np.linalg.svd(self.whole(term), full_matrices=False)
            self._factors = {term: (left * values, right)}
        return self._factors[term]


def number_type(dtype: str) -> Any:
    """The numpy type of a safetensors dtype. Raises TermError for those that numpy has none for."""
    import numpy as np

    if dtype in _NUMPY:
        return np.dtype(_NUMPY[dtype])
    if dtype in _ML_DTYPES:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))
    raise TermError(f"tensors of dtype {dtype} cannot be computed with")


def read_rows(tensor: Stored, indices: Array) -> Array:
    """Rows of a stored tensor as doubles; neighbours are read together."""
    import numpy as np

    kind = number_type(tensor.dtype)
    width = prod(tensor.shape[1:])
    size = width * DTYPE_BITS[tensor.dtype] // 8
    found = np.empty((len(indices), width))
    breaks = [0, *(np.flatnonzero(np.diff(indices) != 1) + 1).tolist(), len(indices)]
    with open(tensor.file, "rb") as file:
        for start, stop in pairwise(breaks):
            if start == stop:
                continue
            file.seek(tensor.offset + int(indices[start]) * size)
            data = file.read((stop - start) * size)
            if len(data) < (stop - start) * size:
                raise EOFError(f"{tensor.file} ends before its tensors do")
            found[start:stop] = np.frombuffer(data, dtype=kind).reshape(stop - start, width)
    return found.reshape(len(indices), *tensor.shape[1:])


# -- operations --------------------------------------------------------------------------------------------------


class _Operation(NamedTuple):
    shape: Callable[..., tuple[int, ...]]
    rows: Callable[..., Any]


def _operation(term: Term) -> _Operation:
    found = _OPERATIONS.get(term.operation)
    if found is None:
        raise TermError(f"there is no operation {term.operation!r}")
    return found


def _tensor(where: str) -> _Operation:
    return _Operation(
        lambda values, name: tuple(values.find(where, name).shape),
        lambda values, indices, name: read_rows(values.find(where, name), indices),
    )


def _zero_rows(_: Values, indices: Array, shape: tuple[int, ...]) -> Array:
    import numpy as np

    return np.zeros((len(indices), *shape[1:]))


def _identity_rows(_: Values, indices: Array, size: int) -> Array:
    import numpy as np

    found = np.zeros((len(indices), size))
    found[np.arange(len(indices)), indices] = 1
    return found


def _difference_shape(values: Values, term: Term, other: Term) -> tuple[int, ...]:
    one, two = values.shape(term), values.shape(other)
    if one != two:
        raise TermError(f"a tensor of shape {list(two)} cannot be taken from one of shape {list(one)}")
    return one


def _difference_rows(values: Values, indices: Array, term: Term, other: Term) -> Array:
    return values.rows(term, indices) - values.rows(other, indices)


def _padded_shape(values: Values, term: Term, shape: tuple[int, ...]) -> tuple[int, ...]:
    old = values.shape(term)
    if len(old) != len(shape) or any(new < now for new, now in zip(shape, old, strict=True)):
        raise TermError(f"a tensor of shape {list(old)} cannot be padded to {list(shape)}")
    return shape


def _padded_rows(values: Values, indices: Array, term: Term, shape: tuple[int, ...]) -> Array:
    import numpy as np

    old = values.shape(term)
    found = np.zeros((len(indices), *shape[1:]))
    inside = np.flatnonzero(indices < old[0])
    place = (inside, *(slice(size) for size in old[1:]))
    found[place] = values.rows(term, indices[inside])
    return found


def _part_shape(values: Values, term: Term, axis: int, start: int, stop: int) -> tuple[int, ...]:
    shape = values.shape(term)
    if axis not in (0, 1) or axis >= len(shape) or not 0 <= start <= stop <= shape[axis]:
        raise TermError(f"a tensor of shape {list(shape)} has no part {start}:{stop} in dimension {axis}")
    return (*shape[:axis], stop - start, *shape[axis + 1 :])


def _part_rows(values: Values, indices: Array, term: Term, axis: int, start: int, stop: int) -> Array:
    return values.rows(term, indices + start) if axis == 0 else values.rows(term, indices)[:, start:stop]


def _selected_shape(values: Values, term: Term, axis: int, wanted: tuple[int, ...]) -> tuple[int, ...]:
    shape = values.shape(term)
    if axis not in (0, 1) or axis >= len(shape) or not all(0 <= index < shape[axis] for index in wanted):
        raise TermError(f"a tensor of shape {list(shape)} does not have all of these indices in dimension {axis}")
    return (*shape[:axis], len(wanted), *shape[axis + 1 :])


def _selected_rows(values: Values, indices: Array, term: Term, axis: int, wanted: tuple[int, ...]) -> Array:
    import numpy as np

    chosen = np.array(wanted, dtype=np.int64)
    if axis == 1 and term.operation == "identity":  # whose rows may be long
        return (indices[:, None] == chosen).astype(np.float64)
    return values.rows(term, chosen[indices]) if axis == 0 else values.rows(term, indices)[:, chosen]


def _joined_shape(values: Values, axis: int, *terms: Term) -> tuple[int, ...]:
    shapes = [values.shape(term) for term in terms]
    first = shapes[0] if shapes else ()
    rest = {(len(shape), *shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if axis not in (0, 1) or axis >= len(first) or len(rest) > 1:
        raise TermError(f"tensors of shapes {[list(shape) for shape in shapes]} cannot be joined along {axis}")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _joined_rows(values: Values, indices: Array, axis: int, *terms: Term) -> Array:
    import numpy as np

    if axis == 1:
        return np.concatenate([values.rows(term, indices) for term in terms], axis=1)
    found = np.empty((len(indices), *values.shape(terms[0])[1:]))
    start = 0
    for term in terms:
        stop = start + values.shape(term)[0]
        inside = np.flatnonzero((indices >= start) & (indices < stop))
        if len(inside):
            found[inside] = values.rows(term, indices[inside] - start)
        start = stop
    return found


def _matrix(values: Values, term: Term) -> tuple[int, int]:
    shape = values.shape(term)
    if len(shape) != 2:
        raise TermError(f"a tensor of shape {list(shape)} is no matrix")
    return shape[0], shape[1]


def _left_shape(values: Values, term: Term, rank: int) -> tuple[int, ...]:
    return _matrix(values, term)[0], _rank(values, term, rank)


def _right_shape(values: Values, term: Term, rank: int) -> tuple[int, ...]:
    return _rank(values, term, rank), _matrix(values, term)[1]


def _rank(values: Values, term: Term, rank: int) -> int:
    if not 0 <= rank <= min(_matrix(values, term)):
        raise TermError(f"a matrix of shape {list(_matrix(values, term))} has no {rank} singular values")
    return rank


_WHOLE = frozenset({"transposed", "left", "right"})
"""Operations that take their operand whole."""

_OPERATIONS = {
    "stored": _tensor("stored"),
    "base": _tensor("base"),
    "zeros": _Operation(lambda values, shape: shape, _zero_rows),
    "identity": _Operation(lambda values, size: (size, size), _identity_rows),
    "scaled": _Operation(
        lambda values, term, factor: values.shape(term),
        lambda values, indices, term, factor: values.rows(term, indices) * factor,
    ),
    "difference": _Operation(_difference_shape, _difference_rows),
    "padded": _Operation(_padded_shape, _padded_rows),
    "part": _Operation(_part_shape, _part_rows),
    "selected": _Operation(_selected_shape, _selected_rows),
    "joined": _Operation(_joined_shape, _joined_rows),
    "transposed": _Operation(
        lambda values, term: _matrix(values, term)[::-1],
        lambda values, indices, term: values.kept(term).T[indices],
    ),
    "left": _Operation(_left_shape, lambda values, indices, term, rank: values.factors(term)[0][indices, :rank]),
    "right": _Operation(_right_shape, lambda values, indices, term, rank: values.factors(term)[1][:rank][indices]),
}
