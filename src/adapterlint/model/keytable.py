"""The tensor names of one file, taken apart and indexed.

Adapters of one base have the same names, so that a run over many of them shares a few tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from adapterlint.model import keys
from adapterlint.model.keys import LORA_KINDS, PAIR_KINDS, Key, Kind


@dataclass(frozen=True, eq=False, repr=False)
class ModuleTensors:
    """The LoRA tensors stored for one module: kind -> key, and the keys that repeat a kind."""

    module: str
    by_kind: dict[Kind, Key] = field(default_factory=dict)
    extra: list[Key] = field(default_factory=list)

    @property
    def a(self) -> Key | None:
        """The down projection: a linear's ``lora_A`` or an embedding's ``lora_embedding_A``."""
        return self.by_kind.get(Kind.LORA_A) or self.by_kind.get(Kind.EMBEDDING_A)

    @property
    def b(self) -> Key | None:
        """The up projection: ``lora_B`` or ``lora_embedding_B``."""
        return self.by_kind.get(Kind.LORA_B) or self.by_kind.get(Kind.EMBEDDING_B)


@dataclass(frozen=True, eq=False, repr=False)
class KeyTable:
    """What the names alone tell; several adapters share one, so that nothing of it may be changed.

    Attributes:
        names: every name, in file order.
        keys: the names, taken apart.
    """

    names: tuple[str, ...]
    keys: tuple[Key, ...]

    @cached_property
    def masks(self) -> dict[Kind, tuple[bool, ...]]:
        """For each kind of LoRA matrix that occurs, whether a tensor is of it, in file order."""
        return {kind: tuple(key.kind is kind for key in self.keys) for kind in PAIR_KINDS & self.by_kind.keys()}

    @cached_property
    def by_kind(self) -> dict[Kind, tuple[Key, ...]]:
        """The keys of each kind that occurs, in file order."""
        found: dict[Kind, list[Key]] = {}
        for key in self.keys:
            found.setdefault(key.kind, []).append(key)
        return {kind: tuple(of_kind) for kind, of_kind in found.items()}

    @cached_property
    def lora_keys(self) -> tuple[Key, ...]:
        """The keys that hold LoRA tensors."""
        return tuple(key for key in self.keys if key.kind in LORA_KINDS)

    @cached_property
    def unusual(self) -> tuple[Key, ...]:
        """The keys other than LoRA matrices under the very names that PEFT gives them."""
        return tuple(key for key in self.keys if not _is_usual(key))

    @cached_property
    def modules(self) -> dict[str, ModuleTensors]:
        """LoRA tensors by module path, however their names are spelt."""
        found: dict[str, ModuleTensors] = {}
        for key in self.lora_keys:
            entry = found.setdefault(key.module, ModuleTensors(key.module))
            if key.kind in entry.by_kind:
                entry.extra.append(key)
            else:
                entry.by_kind[key.kind] = key
        return found

    @cached_property
    def lone(self) -> tuple[ModuleTensors, ...]:
        """The modules that have one half of a LoRA pair."""
        return tuple(entry for entry in self.modules.values() if (entry.a is None) != (entry.b is None))

    @cached_property
    def saved(self) -> dict[str, Key]:
        """Full tensors by parameter name in the base; copies under ``original_module`` are left out."""
        return {key.full_name: key for key in self.by_kind.get(Kind.FULL, ()) if key.infix != "original_module"}


def _is_usual(key: Key) -> bool:
    return (
        key.kind in PAIR_KINDS
        and key.adapter is None
        and key.has_canonical_prefix
        and key.suffix == key.canonical_suffix
    )


@lru_cache(maxsize=64)
def key_table(names: tuple[str, ...], keep: frozenset[str] = frozenset()) -> KeyTable:
    """The table of a file's tensor names; ``keep`` as for :func:`adapterlint.model.keys.parse`."""
    return KeyTable(names, tuple(keys.parse(name, keep) for name in names))
