"""What a rule is handed: an adapter or a set, its base, and what follows from both, worked out once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

from adapterlint.findings import CONFIG_FILE, Location, pointer_to
from adapterlint.model import peft
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.keys import Key
from adapterlint.model.keytable import KeyTable, ModuleTensors
from adapterlint.model.tensor import Tensor

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding


class Payload(Protocol):
    """Answers questions about tensor bytes; :mod:`adapterlint.assemble` fills it in, rules never open a file."""

    partial: bool
    """Whether something that was asked for was left unread, to stay quick."""

    def is_zero(self, tensor: Tensor) -> bool | None:
        """Whether every element is zero; None when it cannot be read."""

    def is_finite(self, tensor: Tensor) -> bool | None:
        """Whether no element is NaN or infinite; None when it cannot be read."""

    def surely_finite(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether one look at a whole file tells that none of its tensors holds NaN or infinity."""

    def equals_base(self, tensor: Tensor, other: Tensor) -> bool | None:
        """Whether an adapter tensor holds the bytes of a base tensor; None when either cannot be read."""

    def equal(self, tensor: Tensor, other: Tensor) -> bool | None:
        """Whether two tensors of this adapter hold the same bytes; None when either cannot be read."""

    def head(self, tensor: Tensor) -> bytes | None:
        """The first bytes of a tensor, 64 at most; None when they cannot be read."""

    def release(self) -> None:
        """Give back what was opened; it is opened again if another question needs it."""


class NoPayload:
    """Payload that is not to be read."""

    partial = False

    def is_zero(self, tensor: Tensor) -> bool | None:
        return None

    def is_finite(self, tensor: Tensor) -> bool | None:
        return None

    def surely_finite(self, tensors: Mapping[str, Tensor]) -> bool:
        return False

    def equals_base(self, tensor: Tensor, other: Tensor) -> bool | None:
        return None

    def equal(self, tensor: Tensor, other: Tensor) -> bool | None:
        return None

    def head(self, tensor: Tensor) -> bytes | None:
        return None

    def release(self) -> None:
        return


NO_PAYLOAD = NoPayload()


@dataclass(frozen=True, eq=False, repr=False)
class Subject:
    """One adapter, its base if known, and derived facts that several rules need.

    Attributes:
        adapter: the adapter.
        base: its base, or None when it was not given or found.
        payload: accessor of tensor bytes.
    """

    adapter: Adapter
    base: Base | None = None
    payload: Payload = NO_PAYLOAD

    # -- places ------------------------------------------------------------------------------------------------

    def at_directory(self) -> Location:
        """The adapter directory itself."""
        return Location(self.adapter.path)

    def at_file(self, file: str, label: str | None = None) -> Location:
        """A file in the adapter directory."""
        return Location(self.adapter.path, file, label=label)

    def at_config(self, pointer: str = "", label: str | None = None, on_key: bool = False) -> Location:
        """A value (or key) of adapter_config.json."""
        return Location(self.adapter.path, CONFIG_FILE, pointer=pointer, on_key=on_key, label=label)

    def at_field(self, name: str, label: str | None = None) -> Location:
        """A top-level config value; the whole document when the key is absent."""
        present = name in (self.adapter.config or {})
        return self.at_config(pointer_to(name) if present else "", label)

    def at_tensor(self, name: str, label: str | None = None) -> Location:
        """A tensor of the weights file."""
        return Location(self.adapter.path, self.adapter.weights_file or "", tensor=name, label=label)

    # -- derived facts -----------------------------------------------------------------------------------------

    @cached_property
    def selection(self) -> peft.Selection:
        """What target_modules selects, as PEFT matches since 0.6."""
        return peft.Selection(self.adapter, self.base)

    @cached_property
    def selected(self) -> tuple[str, ...]:
        """Base modules that get LoRA layers; empty without a base."""
        return peft.selected_modules(self.adapter, self.base) if self.base else ()

    @cached_property
    def saved_names(self) -> tuple[str, ...]:
        """Declared and implied ``modules_to_save``, and what ``ensure_weight_tying`` adds."""
        return (*peft.saved_names(self.adapter), *peft.tied_ends(self.adapter, self.base))

    @cached_property
    def declared_names(self) -> tuple[str, ...]:
        """The same without what the adapter's own task class implies: in a set the first adapter's class decides."""
        return (*self.adapter.names("modules_to_save"), *peft.tied_ends(self.adapter, self.base))

    @cached_property
    def saved_modules(self) -> tuple[str, ...]:
        """Outermost base modules that are saved whole; without a base, what the stored tensors show of them."""
        if self.base:
            return peft.saved_modules(self.saved_names, self.base)
        roots = (peft.saved_root(self.saved_names, key.module) for key in self.adapter.saved.values())
        return tuple(dict.fromkeys(root for root in roots if root))

    def parameters_of(self, root: str) -> tuple[str, ...]:
        """Parameters of a module that is saved whole, by full name, as far as they are known; none without a base.

        Of a head that the checkpoint lacks they are those that its class makes, unless the file shows another head.
        """
        if self.base is None:
            return ()
        made = self.base.made_for(root)
        if f"{root}.weight" in made and any(k.module.startswith(f"{root}.") for k in self.adapter.saved.values()):
            return ()  # a block of layers, of a class that is not known
        return made or tuple(self.base.under(root))

    @cached_property
    def in_base(self) -> Mapping[str, bool]:
        """For every module with LoRA tensors, whether the base has it; empty without a base.

        Stacked experts, which PEFT wraps twice and some releases of transformers make at loading, are left out (AL409).
        """
        if not self.base or self.adapter.get("layer_replication"):
            return {}  # replicated layers have numbers that the checkpoint lacks
        return _held_by(self.base, self.adapter.table)

    def made_by_five(self, module: str) -> bool:
        """Whether only transformers 5 makes such a module of this checkpoint: experts as one, or their router."""
        return self.base is not None and _made_by_five(self.base, module)

    def module_exists(self, module: str) -> bool | None:
        """Whether the base has a module; None without a base."""
        return None if self.base is None else module in self.base.modules

    @cached_property
    def covered(self) -> dict[str, ModuleTensors]:
        """Modules with LoRA tensors that are selected (and exist, where a base tells)."""
        return _covered(self.adapter.table, self.selection, self.base if self.in_base else None)

    @cached_property
    def layers(self) -> frozenset[str]:
        """Modules in which PEFT puts LoRA layers; without a base, those that it has tensors for.

        Adapters that are alike share one object, whose hash is worked out once.
        """
        return _distinct(tuple(self.selected if self.base is not None else self.covered))

    def equals_base(self, key: Key) -> bool | None:
        """Whether a stored tensor holds the base's own values of its parameter.

        None where the base is not known or has no such parameter, or where either cannot be read.
        """
        stored = self.base.parameters.get(key.full_name) if self.base else None
        return None if stored is None else self.payload.equals_base(self.adapter.tensors[key.name], stored)

    @cached_property
    def held(self) -> Holding | None:
        """The file against its method, for methods other than LoRA; None for LoRA and for what no table has."""
        if self.adapter.is_lora:
            return None
        from adapterlint.model import holding  # the tables of all other methods: 4 ms that LoRA does not need

        return holding.hold(self)

    @cached_property
    def undeclared(self) -> tuple[Key, ...]:
        """Full tensors that no saved module, bias mode or copy explains (by canonical name)."""
        return self.undeclared_but(self.saved_names)

    def undeclared_but(self, saved_names: Iterable[str]) -> tuple[Key, ...]:
        """Full tensors that no bias mode or copy explains, nor these names of saved modules."""
        found: list[Key] = []
        if not self.adapter.full_keys:
            return ()
        names = tuple(saved_names)
        biased = self.adapter.get("bias") in ("all", "lora_only")
        for key in self.adapter.full_keys:
            if key.infix or peft.saved_root(names, key.module or key.parameter) is not None:
                continue
            if biased and key.parameter == "bias":
                continue
            found.append(key)
        return tuple(found)


# Adapters that are alike share what these return, so that nothing of it may be changed.


@lru_cache(maxsize=64)
def _covered(table: KeyTable, selection: peft.Selection, base: Base | None) -> dict[str, ModuleTensors]:
    return {
        module: entry
        for module, entry in table.modules.items()
        if selection(module) and (base is None or module in base.modules)
    }


@lru_cache(maxsize=64)
def _held_by(base: Base, table: KeyTable) -> dict[str, bool]:
    known = base.modules
    held = {module: module in known for module in table.modules}
    if all(held.values()):
        return held
    return {
        module: there or module.removesuffix(".base_layer") in known  # stacked experts, wrapped twice
        for module, there in held.items()
        if there or not _made_by_five(base, module)
    }


@lru_cache(maxsize=64)
def _distinct(modules: tuple[str, ...]) -> frozenset[str]:
    return frozenset(modules)


def _made_by_five(base: Base, module: str) -> bool:
    known = base.modules
    if module.endswith((".experts", ".experts.base_layer")):
        return not known.get(module.removesuffix(".base_layer"))
    return module not in known and module.replace(".mlp.", ".block_sparse_moe.") in known


@dataclass(frozen=True, eq=False, repr=False)
class SetSubject:
    """Adapters that are loaded together on one base, in this order.

    Attributes:
        members: the adapters, in loading order; those whose directories have one name get longer ones (``1/a`` and
            ``2/a``), for no two adapters of a model have the same.
        base: their base, or None.
        explicit: the set was given, not discovered.
    """

    members: tuple[Subject, ...]
    base: Base | None = None
    explicit: bool = True

    def __post_init__(self) -> None:
        if len({member.adapter.name for member in self.members}) < len(self.members):
            object.__setattr__(self, "members", tuple(_told_apart(self.members)))

    @cached_property
    def all_lora(self) -> bool:
        """Whether plain LoRA semantics apply to every member."""
        return all(member.adapter.is_lora for member in self.members)

    @cached_property
    def stored_modules(self) -> tuple[str, ...]:
        """Modules of which any member stores full tensors: what is known of the base's modules without a base."""
        return tuple({key.module: True for member in self.members for key in member.adapter.saved.values()})

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The adapter directories, in loading order."""
        return tuple(member.adapter.path for member in self.members)


def _told_apart(members: Sequence[Subject]) -> Iterator[Subject]:
    """The members, their names unique: by as many of their last directories as it takes, without dots."""
    counts = Counter(member.adapter.name for member in members)
    taken: set[str] = {name for name, count in counts.items() if count == 1}
    for place, member in enumerate(members):
        adapter = member.adapter
        if counts[adapter.name] == 1:
            yield member
            continue
        parts = _parts(member)
        same = [_parts(other) for other in members if other.adapter.name == adapter.name]
        depth = next((n for n in range(2, len(parts)) if len({other[-n:] for other in same}) == len(same)), len(parts))
        name = "/".join(parts[-depth:]).replace(".", "_")
        name = name if name not in taken else f"{name}-{place + 1}"  # one directory, given twice
        taken.add(name)
        yield replace(member, adapter=replace(adapter, name=name))


def _parts(member: Subject) -> tuple[str, ...]:
    """The directories of an adapter's path."""
    return tuple(member.adapter.path.replace("\\", "/").strip("/").split("/"))


def first_names(names: Iterable[str], limit: int = 3) -> str:
    """The first names and how many more there are: ``a, b, c and 5 more``."""
    listed = list(names)
    shown = ", ".join(listed[:limit])
    more = len(listed) - limit
    return f"{shown} and {more} more" if more > 0 else shown


def is_pair(entry: ModuleTensors) -> bool:
    """Whether both halves of a LoRA pair are stored."""
    return entry.a is not None and entry.b is not None
