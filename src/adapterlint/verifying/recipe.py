"""What an adapter means, as plain data: which tensor changes which part of the base, and how.

A recipe is made by the caller from its own reading of the adapter. Paths of modules and parameters are those of the
base model, without any of PEFT's prefixes; tensors are named as they are stored in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

DeltaKind: TypeAlias = Literal["linear", "embedding", "conv"]


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """A low-rank change of one module.

    Attributes:
        module: path of the module in the base model.
        kind: ``linear`` (also transformers' Conv1D), ``embedding`` or ``conv`` (one to three dimensions).
        a: tensor with A: (r, in), for an embedding (r, rows), for a convolution (r, in / groups, kernel...).
        b: tensor with B: (out, r), for an embedding (columns, r), for a convolution (out, r, 1...).
        scale: factor of B @ A.
        magnitude: tensor with the DoRA vector; None without DoRA.
        bias: tensor with the bias of B (``lora_B.bias``), (out,).
        fan_in_fan_out: what the configuration says. The orientation comes from the class of the base module instead,
            because PEFT corrects a wrong flag.
    """

    module: str
    kind: DeltaKind
    a: str
    b: str
    scale: float
    magnitude: str | None = None
    bias: str | None = None
    fan_in_fan_out: bool = False


@dataclass(frozen=True, slots=True)
class SavedParameter:
    """A parameter (or buffer) that the file holds in full.

    Only this path changes: a parameter that is tied to it keeps the base's values unless it is listed too.
    """

    parameter: str
    tensor: str


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of an embedding (or of a head tied to it) that the file replaces: ``tensor`` is (len(indices), columns)."""

    parameter: str
    tensor: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One adapter.

    Attributes:
        name: adapter name in a set.
        path: the adapter directory.
        weights_file: name of the weights file in it.
        deltas: low-rank changes.
        saved: parameters stored in full.
        tokens: replaced rows.
        mergeable: whether the three lists say all that the adapter does. If not, the reference is the adapter loaded
            alone by PEFT, which cannot show that PEFT itself misreads it.
        reason: why it is not mergeable.
    """

    name: str
    path: str
    weights_file: str
    deltas: tuple[LoraDelta, ...] = ()
    saved: tuple[SavedParameter, ...] = ()
    tokens: tuple[TokenRows, ...] = ()
    mergeable: bool = True
    reason: str | None = None

    @property
    def tensors(self) -> frozenset[str]:
        """Names of the stored tensors that the recipe uses."""
        names = {name for delta in self.deltas for name in (delta.a, delta.b, delta.magnitude, delta.bias) if name}
        names |= {saved.tensor for saved in self.saved} | {rows.tensor for rows in self.tokens}
        return frozenset(names)
