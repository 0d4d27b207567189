"""How to say what a PEFT method other than LoRA keeps in its file: names and shapes, by module and shared.

The methods themselves stand in :mod:`adapterlint.model.methodtable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from adapterlint.model import peft, schema
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.tensor import FLOAT_DTYPES

Size: TypeAlias = int | None
Shape: TypeAlias = tuple[Size, ...]
"""A shape; None stands for a size that config and base do not tell."""

Parts: TypeAlias = dict[str, Shape]


class RefusedLayerError(Exception):
    """PEFT refuses to make the layer, with this exception text; raised by the tables, caught by their user."""


class UntoldLayerError(Exception):
    """What PEFT makes of this layer is not in the tables; raised by the tables, caught by their user."""


LARGEST = 1 << 20
"""No layer has more features than this: larger numbers are not factorised, or counted up to."""

_NOTHING: Mapping[str, tuple[int, ...]] = MappingProxyType({})


class Layer(NamedTuple):
    """A layer of the base, as far as its header tells.

    Attributes:
        module: module path.
        kind: ``linear``, ``embedding``, ``conv`` or ``norm``; empty when it is not known.
        inputs: input features (rows of an embedding); None when not known.
        outputs: output features (columns of an embedding).
        own: its parameters' shapes by name.
        conv1d: a GPT-2 style linear, whose weight is stored (inputs, outputs).
        stored: shapes of the parts that the file has for it, by name.
    """

    module: str
    kind: str = ""
    inputs: Size = None
    outputs: Size = None
    own: Mapping[str, tuple[int, ...]] = _NOTHING
    conv1d: bool = False
    stored: Mapping[str, tuple[int, ...]] = _NOTHING


class Options:
    """The config of an adapter with PEFT's defaults filled in, its base, and the layers that it selects."""

    def __init__(self, adapter: Adapter, base: Base | None = None) -> None:
        self.adapter = adapter
        self.base = base
        self.layers: Sequence[Layer] = ()
        self._type = schema.config_type(adapter.peft_type)

    def __call__(self, name: str) -> Any:
        """The value of an option; the newest release's default when the file leaves it out."""
        if name in (self.adapter.config or {}):
            return self.adapter.get(name)
        stretches = self._type.fields.get(name) if self._type else None
        return schema.default_in(stretches, None) if stretches else None

    def size(self, name: str) -> Size:
        """An option that is a number of something; None when it is no positive integer."""
        value = self(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def number(self, name: str) -> float | None:
        """An option that is a finite number; None when it is none."""
        value = self(name)
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
        return float(value) if good else None

    def sized(self, field: str, name: str, module: str) -> Size:
        """The same, with a pattern field that may give a module another value."""
        value = peft.by_pattern(self.adapter, field, module, self(name))
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


PartsOf: TypeAlias = Callable[[Options, Layer], Parts]
SharedOf: TypeAlias = Callable[[Options, Sequence[Layer]], Parts]


@dataclass(frozen=True)
class Method:
    """One PEFT method.

    Attributes:
        parts: the tensors that it makes for a layer, by name.
        shared: the tensors that it makes once for the whole model, by name as stored.
        kinds: kinds of layers that it takes; PEFT raises on others.
        derived: how the names of tensors begin that PEFT works out again when the file lacks them.
        idle: whether a layer that got no tensors does nothing.
        needed: how the names of shared tensors begin of which one must be in the file, and the exception without.
        prompt: it changes no layer and learns a prompt.
        pooled: how the names of parts begin that several modules share, so that one copy may do for all.
        grown: which size of the largest target its random projections depend on: ``inputs``, ``outputs``.
    """

    parts: PartsOf
    shared: SharedOf = lambda options, layers: {}
    kinds: frozenset[str] = frozenset({"linear", "conv1d"})
    derived: tuple[str, ...] = ()
    idle: Callable[[Options], bool] = lambda options: True
    needed: Callable[[Options], tuple[str, str] | None] = lambda options: None
    prompt: bool = False
    pooled: tuple[str, ...] = ()
    grown: tuple[str, ...] = ()


def layer_of(base: Base | None, module: str, stored: Mapping[str, tuple[int, ...]] = _NOTHING) -> Layer:
    """What the base's headers say of a module; sizes are unknown without a base, and for packed weights."""
    if base is None:
        return Layer(module, stored=stored)
    kind = base.kind(module)
    own = {name: tensor.shape for name, tensor in base.modules.get(module, {}).items()}
    weight = base.modules.get(module, {}).get("weight")
    if weight is None and module in base.tied_heads:
        weight = next(iter(base.under(module).values()), None)
    if weight is None or weight.dtype not in FLOAT_DTYPES or len(weight.shape) < 2:
        return Layer(module, kind, None, None, own, stored=stored)
    rows, columns = weight.shape[:2]
    if kind == "embedding":
        return Layer(module, kind, rows, columns, own, stored=stored)
    conv1d = base.is_conv1d(module)
    return Layer(module, kind, *((rows, columns) if conv1d else (columns, rows)), own, conv1d, stored)


# -- arithmetic with unknown sizes ---------------------------------------------------------------------------------


def times(*sizes: Size) -> Size:
    """The product, or None when a factor is unknown."""
    product = 1
    for size in sizes:
        if size is None:
            return None
        product *= size
    return product


def over(size: Size, divisor: Size, refusal: str | None = None) -> Size:
    """The whole quotient, or None when either is unknown.

    Raises:
        RefusedLayerError: the division leaves a rest and PEFT refuses that.
    """
    if size is None or divisor is None:
        return None
    if refusal is not None and size % divisor:
        raise RefusedLayerError(refusal.format(size, divisor))
    return size // divisor


def ceil_over(size: Size, divisor: Size) -> Size:
    """The quotient rounded up, or None when either is unknown."""
    return None if size is None or divisor is None else -(-size // divisor)


def plus(*sizes: Size) -> Size:
    """The sum, or None when a term is unknown."""
    return None if None in sizes else sum(size for size in sizes if size is not None)


def least(*sizes: Size) -> Size:
    """The smallest, or None when one is unknown."""
    return None if None in sizes else min(size for size in sizes if size is not None)


def most(*sizes: Size) -> Size:
    """The largest, or None when one is unknown."""
    return None if None in sizes or not sizes else max(size for size in sizes if size is not None)


def fits(stored: tuple[int, ...], expected: Shape) -> bool:
    """Whether a stored shape can be the expected one."""
    return len(stored) == len(expected) and all(b is None or a == b for a, b in zip(stored, expected, strict=True))
