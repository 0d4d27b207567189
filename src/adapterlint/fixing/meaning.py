"""Whether two states of an adapter mean the same: what they add to every module of the base, compared in doubles.

The forms are not used here, nor the terms that they made: both states are read from their files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, NamedTuple

from adapterlint.fixing.forms.common import parameter, stored_at
from adapterlint.fixing.values import BLOCK, ROUNDING, Stored, read_rows
from adapterlint.model import peft
from adapterlint.model.keys import Kind
from adapterlint.model.subject import Subject
from adapterlint.model.together import is_base_bias

if TYPE_CHECKING:
    from adapterlint.fixing.values import Array

FACTOR = 4
"""How many roundings of the stored dtype a difference may amount to: one of A, one of B, twice."""

_DOUBLES = 1e-12
"""What the comparison itself may be off by, products of up to some thousand numbers."""


@dataclass(frozen=True, slots=True)
class Equality:
    """How far two states of an adapter are apart.

    Attributes:
        modules: how many modules were compared.
        error: the largest difference of a row of what is added to a module (its Euclidean norm), relative to the
            largest row of ``|scale| |B| |A|`` there (of ``|saved - base|``, for a saved module).
        module: where that is; None if nothing differs.
        tolerance: what it may be: four roundings of the dtype that the new tensors of that module have.
        complaints: modules where it is more, one sentence each.
    """

    modules: int
    error: float
    module: str | None
    tolerance: float
    complaints: tuple[str, ...] = ()


class _Product(NamedTuple):
    """``scale * b @ a``."""

    scale: float
    b: Stored
    a: Stored


class _Added(NamedTuple):
    """What an adapter adds to one parameter.

    Attributes:
        product: a LoRA pair, for a weight.
        bias: of B, with its scale.
        saved: the whole parameter, and the base's.
    """

    product: _Product | None = None
    bias: tuple[float, Stored] | None = None
    saved: tuple[Stored, Stored] | None = None

    @property
    def dtypes(self) -> Iterator[str]:
        """Of the adapter's own tensors."""
        if self.product is not None:
            yield self.product.a.dtype
            yield self.product.b.dtype
        if self.bias is not None:
            yield self.bias[1].dtype
        if self.saved is not None:
            yield self.saved[0].dtype


def compare(old: Subject, new: Subject) -> Equality:
    """Compares two states of one adapter, module by module.

    Args:
        old: as it was, names as they are stored.
        new: as it is to be.

    Raises:
        ValueError: a state has no usable scale.
        OSError: a file cannot be read, as does EOFError.
    """
    before, after = _additions(old), _additions(new)
    worst, where, allowed = 0.0, None, _DOUBLES
    complaints = []
    names = list(dict.fromkeys((*before, *after)))
    for name in names:
        one, two = before.get(name, _Added()), after.get(name, _Added())
        tolerance = FACTOR * max((ROUNDING.get(dtype, 0.0) for dtype in two.dtypes), default=0.0) + _DOUBLES
        error = _difference(one, two)
        if error > tolerance:
            complaints.append(
                f"{name} would change by {error:.1e} of its largest row, and rounding explains {tolerance:.1e}"
            )
        if error > worst:
            worst, where, allowed = error, name, tolerance
        elif where is None:
            allowed = max(allowed, tolerance)
    return Equality(len({name.rpartition(".")[0] for name in names}), worst, where, allowed, tuple(complaints))


def _additions(subject: Subject) -> dict[str, _Added]:
    """What an adapter adds, by the base's parameter."""
    adapter, base = subject.adapter, subject.base

    def at(name: str) -> Stored:
        return stored_at(adapter.path, adapter.tensors[name])

    found: dict[str, _Added] = {}
    for module, entry in adapter.modules.items():
        if entry.a is None or entry.b is None:
            continue
        scale = peft.scale(adapter, module)
        found[f"{module}.weight"] = _Added(_Product(scale, at(entry.b.name), at(entry.a.name)))
        bias = entry.by_kind.get(Kind.LORA_BIAS)
        if bias is not None:
            found[f"{module}.bias"] = _Added(bias=(scale, at(bias.name)))
    trained = adapter.get("bias") in ("all", "lora_only")
    biases = {key.full_name: key for key in adapter.keys if trained and is_base_bias(key)}
    for name, key in {**adapter.saved, **biases}.items():
        other = parameter(base, name) if base else None
        if base is not None and other is not None:
            saved = at(key.name), stored_at(base.path, other)
            found[name] = found.get(name, _Added())._replace(saved=saved)
    return found


def _difference(old: _Added, new: _Added) -> float:
    """The largest difference of a row, relative to the largest that rounding can refer to."""
    import numpy as np

    both = [each for each in (old, new) if each != _Added()]
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite makes an infinite difference
        if all(each.product is not None and each.saved is None for each in both):
            found = _of_products(old.product, new.product)
        else:
            found = _of_rows(_Rows(old), _Rows(new))
    difference, size = found
    if difference == 0:
        return 0.0
    return difference / size if size and isfinite(difference) and isfinite(size) else inf


def _of_products(old: _Product | None, new: _Product | None) -> tuple[float, float]:
    """The largest row of the difference of two products, and of what rounding refers to, without multiplying them out.

    ``C E``, of all B side by side and all A below one another, has the row norms of ``C R^T``, if ``E^T = Q R``. Where
    both have the same A, the difference of the two B serves as C, so that equal products differ by nothing.
    """
    import numpy as np

    sides = [_Side(sign, pair) for sign, pair in ((-1.0, old), (1.0, new)) if pair is not None]
    alike = len(sides) == 2 and np.array_equal(sides[0].a, sides[1].a)
    below = sides[0].a if alike else np.concatenate([side.a for side in sides])
    if not np.isfinite(below).all():
        return inf, inf
    root = np.asarray(np.linalg.qr(below.T, mode="r")).T
    difference = size = 0.0
    count, step = sides[0].b.shape[0], max(1, BLOCK // max(1, len(below)))
    for start in range(0, count, step):
        blocks = [side.rows(np.arange(start, min(start + step, count))) for side in sides]
        beside = blocks[0] + blocks[1] if alike else np.concatenate(blocks, axis=1)
        difference = max(difference, _norm(beside @ root))
        for side, block in zip(sides, blocks, strict=True):
            size = max(size, _largest(np.einsum("ij,ij->i", np.abs(block) @ side.gram, np.abs(block))))
    return difference, float(np.sqrt(size))


class _Side:
    """One of two products: A in whole, without its rows of zeros, and B some rows at a time."""

    def __init__(self, sign: float, pair: _Product) -> None:
        import numpy as np

        a = read_rows(pair.a, np.arange(pair.a.shape[0]))
        a = a.reshape(len(a), -1)
        self._used = a.any(axis=1)
        self._factor = sign * pair.scale
        self.a = a[self._used]
        self.b = pair.b
        self.gram = np.abs(self.a) @ np.abs(self.a).T

    def rows(self, indices: Array) -> Array:
        """Rows of B with its scale, without what meets rows of zeros."""
        return read_rows(self.b, indices).reshape(len(indices), -1)[:, self._used] * self._factor


def _of_rows(old: _Rows, new: _Rows) -> tuple[float, float]:
    """The same, some rows at a time."""
    import numpy as np

    difference = size = 0.0
    shape = max(old.shape, new.shape)
    step = max(1, BLOCK // max(shape[1:] or (1,)))
    for start in range(0, shape[0] if shape else 0, step):
        indices = np.arange(start, min(start + step, shape[0]))
        (had, had_size), (has, has_size) = old.rows(indices, shape), new.rows(indices, shape)
        difference = max(difference, _norm(has - had))
        size = max(size, _norm(had_size), _norm(has_size))
    return difference, size


def _norm(rows: Array) -> float:
    """The largest norm of a row."""
    import numpy as np

    return _largest(np.linalg.norm(rows.reshape(len(rows), -1), axis=1))


def _largest(values: Array) -> float:
    import numpy as np

    found = float(np.abs(values).max(initial=0.0))
    return found if isfinite(found) else inf


class _Rows:
    """Rows of what an adapter adds to a parameter; A is read once."""

    def __init__(self, added: _Added) -> None:
        self._added = added
        self._a: Array | None = None
        if added.product is not None:
            import numpy as np

            a = read_rows(added.product.a, np.arange(added.product.a.shape[0]))
            self._a = a.reshape(len(a), -1)
        self.shape = self._shape()

    def _shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        added = self._added
        if added.product is not None and self._a is not None:
            return added.product.b.shape[0], self._a.shape[1]
        single = added.bias[1] if added.bias is not None else added.saved[0] if added.saved is not None else None
        return () if single is None else (single.shape[0], *_columns(single))

    def rows(self, indices: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """The rows with these indices, and what rounding refers to in each element."""
        import numpy as np

        added = self._added
        total = np.zeros((len(indices), *shape[1:]))
        size = total.copy()
        if added.product is not None and self._a is not None:
            b = read_rows(added.product.b, indices).reshape(len(indices), -1) * added.product.scale
            total += b @ self._a
            size += np.abs(b) @ np.abs(self._a)
        if added.bias is not None:
            bias = read_rows(added.bias[1], indices) * added.bias[0]
            total += bias
            size += np.abs(bias)
        if added.saved is not None:
            delta = read_rows(added.saved[0], indices) - read_rows(added.saved[1], indices)
            total += delta.reshape(total.shape)
            size += np.abs(delta.reshape(total.shape))
        return total, size


def _columns(tensor: Stored) -> tuple[int, ...]:
    from math import prod

    return (prod(tensor.shape[1:]),) if len(tensor.shape) > 1 else ()
