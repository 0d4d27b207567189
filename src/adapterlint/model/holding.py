"""What a file holds of a PEFT method, against what PEFT will look for when it loads it.

For LoRA the rules reason about pairs by themselves; this is for every other method in
:mod:`adapterlint.model.methodtable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from adapterlint.model.keys import LORA_KINDS, PREFIX, Key, Kind
from adapterlint.model.methodparts import oft_generation
from adapterlint.model.methods import (
    Layer,
    Method,
    Options,
    RefusedLayerError,
    Shape,
    UntoldLayerError,
    fits,
    layer_of,
)
from adapterlint.model.methodtable import METHODS

if TYPE_CHECKING:
    from adapterlint.model.subject import Subject

_HEADS = ("lm_head", "embed_out")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_OFT_RANGES = {1: "peft<0.14", 2: "peft>=0.14,<0.16", 3: "peft>=0.16"}


class Slot(NamedTuple):
    """A tensor that PEFT looks for.

    Attributes:
        name: the name under which it does.
        module: its module; empty for a tensor of the whole model.
        part: which of the module's tensors.
        shape: the shape it must have.
        derived: PEFT works it out again when the file lacks it.
    """

    name: str
    module: str
    part: str
    shape: Shape
    derived: bool


@dataclass
class Holding:
    """A file against its method.

    Attributes:
        method: what the method looks for.
        options: the config with its defaults.
        targets: the releases that the table is about.
        slots: what PEFT looks for, by name.
        exact: stored keys that it finds, by the slot's name.
        prefixed: keys of slots behind another prefix, or with a wrapper inside.
        named: keys of slots that hold an adapter's name.
        uncovered: keys of modules that the targets leave out.
        stray: keys that no module of the method has a slot for.
        spare: keys that PEFT does not read and works out by itself.
        refused: layers that PEFT refuses to make, with the exception.
        untold: layers of which the table says nothing.
    """

    method: Method
    options: Options
    targets: str
    slots: dict[str, Slot] = field(default_factory=dict)
    exact: dict[str, Key] = field(default_factory=dict)
    prefixed: list[Key] = field(default_factory=list)
    named: list[Key] = field(default_factory=list)
    uncovered: list[Key] = field(default_factory=list)
    stray: list[Key] = field(default_factory=list)
    spare: list[Key] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    untold: list[str] = field(default_factory=list)

    @property
    def spelt(self) -> dict[str, Key]:
        """Stored keys of slots, however spelt, by the slot's name."""
        other = {key.canonical: key for key in (*self.prefixed, *self.named)}
        return {**other, **self.exact}

    def trained(self) -> Iterator[Slot]:
        """The slots whose tensors only the file can give."""
        return (slot for slot in self.slots.values() if not slot.derived)

    def missing(self) -> list[Slot]:
        """Trained slots that the file has under no spelling."""
        spelt = self.spelt
        return [slot for slot in self.trained() if slot.name not in spelt]

    def bare(self) -> list[str]:
        """Modules of which the file has nothing at all."""
        spelt = {self.slots[name].module for name in self.spelt}
        return list(dict.fromkeys(s.module for s in self.trained() if s.module and s.module not in spelt))

    def misshapen(self, shape_of: dict[str, tuple[int, ...]]) -> list[tuple[Slot, Key]]:
        """Slots whose tensor has another shape, given the stored shapes by name."""
        return [
            (self.slots[name], key)
            for name, key in self.spelt.items()
            if not fits(shape_of[key.name], self.slots[name].shape)
        ]

    @property
    def finds_something(self) -> bool:
        """Whether a trained tensor stands under the very name that PEFT looks for."""
        return any(not self.slots[name].derived for name in self.exact)

    def lost(self, keys: list[Key]) -> list[Key]:
        """Those of misspelt keys whose tensors PEFT cannot work out again."""
        return [key for key in keys if not self.slots[key.canonical].derived]

    def lacks(self, names: Iterable[str]) -> str | None:
        """The exception when PEFT finds tensors under these names only, and insists on a shared one."""
        needed = self.method.needed(self.options)
        if needed is None or any(name.startswith(needed[0]) for name in names):
            return None
        return needed[1]


def series(module: str) -> str:
    """A module path with every number replaced, so that siblings in other layers are equal."""
    return _NUMBER.sub("#", module)


def hold(subject: Subject) -> Holding | None:
    """The file of an adapter against its method; None for LoRA, and for what is not in the table."""
    adapter = subject.adapter
    method = METHODS.get(adapter.peft_type or "")
    if method is None or not adapter.readable:
        return None
    options = Options(adapter, subject.base)
    targets = _OFT_RANGES[oft_generation(adapter)] if adapter.peft_type == "OFT" else "peft"
    held = Holding(method, options, targets)
    keys = [_respelt(key, adapter.peft_type) for key in adapter.keys]
    _fill(held, subject, keys)
    modules = {slot.module for slot in held.slots.values()}
    for key in keys:
        _place(held, subject, key, modules)
    return held


def _respelt(key: Key, peft_type: str | None) -> Key:
    """AdaLoRA's tensors have LoRA's names, but no ``.weight``; prompts stand alone."""
    if peft_type == "ADALORA" and key.kind in (Kind.LORA_A, Kind.LORA_B):
        ending = ".weight" if key.suffix.endswith(".weight") else ""
        return key._replace(kind=Kind.METHOD, parameter=key.kind.value + ending)
    if peft_type == "ADALORA" and key.kind is Kind.METHOD and key.suffix.startswith("lora_E"):
        return key._replace(parameter="lora_E")
    return key


def _fill(held: Holding, subject: Subject, keys: list[Key]) -> None:
    """Work out the slots."""
    stored: dict[str, dict[str, tuple[int, ...]]] = {}
    for key in keys:
        if key.kind is Kind.METHOD:
            stored.setdefault(key.module, {})[key.parameter] = subject.adapter.shape(key)
    if held.method.prompt:
        modules: list[str] = []
    elif subject.base is not None:
        modules = list(subject.selected)
    else:
        modules = [module for module in stored if subject.selection(module)]
    layers = [layer_of(subject.base, module, stored.get(module, {})) for module in modules]
    held.options.layers = layers = [layer for layer in layers if layer.kind != "container" or layer.stored]
    for layer in layers:
        if layer.kind and _kind(layer) not in held.method.kinds:
            held.refused[layer.module] = "is not supported"
            continue
        _fill_layer(held, layer)
    if layers or held.method.prompt or subject.base is None:
        _fill_shared(held, layers)


def _kind(layer: Layer) -> str:
    return "conv1d" if layer.conv1d else layer.kind


def _fill_layer(held: Holding, layer: Layer) -> None:
    try:
        parts = held.method.parts(held.options, layer)
    except RefusedLayerError as refused:
        held.refused[layer.module] = str(refused)
        return
    except (UntoldLayerError, re.error):
        held.untold.append(layer.module)
        return
    for part, shape in parts.items():
        name = f"{PREFIX}{layer.module}.{part}"
        held.slots[name] = Slot(name, layer.module, part, shape, part.startswith(held.method.derived))


def _fill_shared(held: Holding, layers: list[Layer]) -> None:
    try:
        shared = held.method.shared(held.options, layers)
    except UntoldLayerError:
        held.untold.append("")
        return
    for name, shape in shared.items():
        held.slots[name] = Slot(name, "", name, shape, name.startswith(held.method.derived))


def _place(held: Holding, subject: Subject, key: Key, modules: set[str]) -> None:
    """Say of one stored key whether PEFT finds it, and why not; ``modules`` are those that have slots."""
    if key.name in held.slots:
        held.exact[key.name] = key
        return
    own = key.kind in (Kind.METHOD, Kind.SHARED) or key.kind in LORA_KINDS
    if held.method.prompt:
        own = own or any(key.name.endswith(name) for name in held.slots)
    if key.canonical in held.slots and key.canonical not in subject.adapter.tensors:
        (held.prefixed if not key.has_canonical_prefix else held.named).append(key)
    elif not own or key.module in held.untold or key.module in held.refused:
        return
    elif _is_tied(subject, key):
        shape = next((slot.shape for slot in held.slots.values()), (None, None))
        held.slots[key.canonical] = Slot(key.canonical, key.module, key.parameter, shape, derived=True)
        held.exact[key.canonical] = key
    elif _is_projection(key):
        held.spare.append(key)
    elif key.module and _is_part(held, key) and subject.module_exists(key.module) is not False:
        if not subject.selection(key.module):
            held.uncovered.append(key)
        elif key.parameter.startswith(held.method.derived):
            held.spare.append(key)
        elif key.module not in modules:
            held.untold.append(key.module)
        else:
            held.stray.append(key)
    else:
        (held.spare if key.parameter.startswith(held.method.derived) else held.stray).append(key)


def _is_projection(key: Key) -> bool:
    """Whether this is a random projection, which PEFT makes anew from a seed unless the config has it stored."""
    return key.kind is Kind.SHARED and key.parameter.startswith(("vera_", "pvera_", "randlora_", "frod_"))


def _is_tied(subject: Subject, key: Key) -> bool:
    """Whether these are token rows of what is tied to the embedding, a head or T5's stacks: PEFT stores them, too."""
    ends = ("lm_head", "embed_out", "embed_tokens") if subject.base and subject.base.embedding == "shared" else _HEADS
    tied = (subject.base is None or subject.base.tied) and key.name == key.canonical
    return tied and key.parameter == "trainable_tokens_delta" and key.module.rpartition(".")[2] in ends


def _is_part(held: Holding, key: Key) -> bool:
    """Whether the method has such tensors, by the first component of the name."""
    try:
        parts = held.method.parts(held.options, layer_of(None, key.module, {key.parameter: ()}))
    except (RefusedLayerError, UntoldLayerError, re.error):
        return True
    if key.parameter.startswith(held.method.derived):
        return True
    first = key.parameter.split(".")[0]
    return any(part.split(".")[0] == first for part in parts)
