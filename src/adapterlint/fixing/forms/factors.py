"""The difference of a matrix to the base's as the product of two smaller ones, as small as it can be exactly."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

from adapterlint.findings import Term
from adapterlint.fixing import terms
from adapterlint.fixing.values import ROUNDING, Values

if TYPE_CHECKING:
    from adapterlint.fixing.values import Array

LARGEST = 1 << 24
"""Elements of the largest matrix that is decomposed (half a minute, 0.4 GB)."""


class Product(NamedTuple):
    """A matrix as ``b @ a``, through ``rank`` dimensions."""

    b: Term
    a: Term
    rank: int


def product(delta: Term, values: Values, dtype: str, enough: int) -> Product:
    """Two factors of a matrix.

    The rows that are not zero, and a matrix that puts them in their places, or the same with columns: whichever are
    fewer. That rounds nothing but the difference itself. Where this takes more dimensions than ``enough``, the
    singular values are looked at, and those beneath the rounding of the dtype left out.

    Args:
        delta: the matrix, (out, in).
        values: its values.
        dtype: the dtype that the factors will have.
        enough: a rank that costs nothing.
    """
    rows, columns, largest = _in_use(delta, values)
    if len(rows) <= len(columns):
        found = _by_rows(delta, values.shape(delta)[0], rows)
    else:
        found = _by_columns(delta, values.shape(delta)[1], columns)
    size = values.shape(delta)[0] * values.shape(delta)[1]
    if found.rank <= enough or size > LARGEST:
        return found
    rank = _numerical_rank(values.factors(delta)[0], largest * ROUNDING[dtype] / 2)
    if rank < found.rank:
        return Product(terms.left_factor(delta, rank), terms.right_factor(delta, rank), rank)
    return found


def _in_use(delta: Term, values: Values) -> tuple[list[int], list[int], float]:
    """Rows and columns that are not all zero, and the largest element."""
    import numpy as np

    shape = values.shape(delta)
    rows: list[int] = []
    columns: Array = np.zeros(shape[1], dtype=bool)
    start, largest = 0, 0.0
    for block in values.blocks(delta):
        used = block != 0
        rows += (np.flatnonzero(used.any(axis=1)) + start).tolist()
        columns |= used.any(axis=0)
        start += len(block)
        largest = max(largest, float(np.abs(block).max()))
    return rows, np.flatnonzero(columns).tolist(), largest


def _by_rows(delta: Term, count: int, rows: list[int]) -> Product:
    if len(rows) == count:
        return Product(terms.identity(count), delta, count)
    chosen = tuple(rows)
    return Product(terms.selected(terms.identity(count), 1, chosen), terms.selected(delta, 0, chosen), len(rows))


def _by_columns(delta: Term, count: int, columns: list[int]) -> Product:
    if len(columns) == count:
        return Product(delta, terms.identity(count), count)
    chosen = tuple(columns)
    return Product(terms.selected(delta, 1, chosen), terms.selected(terms.identity(count), 0, chosen), len(columns))


def _numerical_rank(left: Array, negligible: float) -> int:
    """How many singular values it takes for the rest to be negligible, all together."""
    rank, rest = int(left.shape[1]), 0.0
    while rank:
        rest += float((left[:, rank - 1] ** 2).sum())
        if sqrt(rest) > negligible:
            break
        rank -= 1
    return rank
