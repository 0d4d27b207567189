"""Computed tensors as data: terms over stored tensors. Their values are worked out in ``values``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adapterlint.findings import Term


def stored(name: str) -> Term:
    """A tensor of the adapter's file."""
    return Term("stored", (name,))


def in_base(name: str) -> Term:
    """A tensor of the base's checkpoint."""
    return Term("base", (name,))


def zeros(shape: tuple[int, ...]) -> Term:
    """Zeros."""
    return Term("zeros", (tuple(shape),))


def identity(size: int) -> Term:
    """The identity matrix."""
    return Term("identity", (size,))


def scaled(term: Term, factor: float) -> Term:
    """Every element multiplied by a number."""
    return term if factor == 1 else Term("scaled", (term, factor))


def difference(term: Term, other: Term) -> Term:
    """One tensor less another of the same shape."""
    return Term("difference", (term, other))


def padded(term: Term, shape: tuple[int, ...]) -> Term:
    """The tensor with zeros behind it, in every dimension that ``shape`` makes longer."""
    return Term("padded", (term, tuple(shape)))


def part(term: Term, axis: int, start: int, stop: int) -> Term:
    """The elements from ``start`` up to ``stop`` of the first or second dimension."""
    return Term("part", (term, axis, start, stop))


def selected(term: Term, axis: int, indices: tuple[int, ...]) -> Term:
    """The elements with these indices of the first or second dimension, in their order."""
    return Term("selected", (term, axis, tuple(indices)))


def joined(axis: int, *terms: Term) -> Term:
    """Tensors one behind the other along the first or second dimension."""
    return Term("joined", (axis, *terms))


def transposed(term: Term) -> Term:
    """A matrix turned; it is read whole."""
    return Term("transposed", (term,))


def left_factor(term: Term, rank: int) -> Term:
    """Of the singular value decomposition U S V of a matrix: the first columns of U S; the matrix is read whole."""
    return Term("left", (term, rank))


def right_factor(term: Term, rank: int) -> Term:
    """Of the singular value decomposition U S V of a matrix: the first rows of V; the matrix is read whole."""
    return Term("right", (term, rank))


def renamed(term: Term, replacement: Callable[[str], Term]) -> Term:
    """The term with every stored tensor of the adapter replaced: by one of another name, or by what makes it."""
    if term.operation == "stored":
        return replacement(term.arguments[0])
    arguments = (renamed(item, replacement) if isinstance(item, Term) else item for item in term.arguments)
    return Term(term.operation, tuple(arguments))


def stored_names(term: Term) -> Iterator[str]:
    """The tensors of the adapter's file that a term is made of."""
    if term.operation == "stored":
        yield term.arguments[0]
    for item in term.arguments:
        if isinstance(item, Term):
            yield from stored_names(item)
