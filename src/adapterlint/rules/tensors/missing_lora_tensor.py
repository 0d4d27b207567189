"""AL206."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from adapterlint.findings import Effect, Finding, Fix, Outcome, Safety, Severity, unknown, wrong
from adapterlint.model import peft
from adapterlint.model.keytable import KeyTable
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.noncanonical_prefix import VERA, vera_tensors

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class MissingLoraTensor(Rule):
    """## What it does
    Looks for modules that `target_modules` selects, whose siblings in other layers have LoRA tensors and which have
    none.

    ## Why is this bad?
    PEFT leaves the layer at its start value, where it does nothing: part of what was trained is gone, silently up to
    0.13 and with a warning about missing keys since.

    ## Example
    Tensors for layers 0 and 2 of a three-layer model whose config selects all of them.

    ## Fix
    None: the tensors are lost, and zeros in their place would only hide that. If the layer was left out on purpose, say
    so with `layers_to_transform`.

    ## References
    - Measured on 0.4.0 to 0.21.2. A target whose leaf has no tensors anywhere is harmless and not reported.
    """

    code = "AL206"
    name = "missing-lora-tensor"
    needs = ("config", "header")
    severity = Severity.NOTE
    damage = "tensors"

    @staticmethod
    def valid() -> list[AnyExample]:
        wide = lora_config(target_modules=["q_proj", "v_proj", "o_proj", "c_attn"])
        return [
            Example("complete", lora_config(), llama_tensors(), llama_base()),
            Example("a target without tensors anywhere", wide, llama_tensors(), llama_base()),
            Example("layers chosen", lora_config(layers_to_transform=[1]), _layers(1), llama_base()),
            Example(
                "regular expression",
                lora_config(target_modules=r".*\.1\..*\.(q_proj|v_proj)"),
                _layers(1),
                llama_base(),
            ),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("a layer of the base is missing", lora_config(), llama_tensors(layers=2), llama_base(layers=3)),
            Example("a gap", lora_config(), _layers(0, 1, 3)),
            Example("another method", VERA, vera_tensors(), llama_base(layers=3)),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if subject.held is not None:
            yield from self._of_method(subject, subject.held)
        if not adapter.is_lora or not adapter.modules or not subject.selection.known:
            return
        if subject.base is not None:
            missing = _absent_in_base(subject)
            effects: tuple[Effect, ...] = (Effect(Outcome.WRONG, "peft", stage="after_load"),)
        else:
            missing, effects = _gaps(subject), ()
        if missing:
            yield self.finding(
                f"{len(missing)} selected modules have no LoRA tensors although their siblings have: "
                + first_names(missing),
                subject.at_field("target_modules"),
                effects=effects,
                fix=Fix("Export the adapter again, or choose the layers with layers_to_transform", Safety.DISPLAY),
            )

    def _of_method(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """A layer without tensors does nothing in most methods; in the others it answers at random."""
        stray = {key.module for key in held.stray}
        bare = [module for module in held.bare() if module not in stray]
        stored = {held.slots[name].module for name in held.spelt}
        known = {pattern(module) for module in stored if module}
        if not known:
            return
        lost = [module for module in bare if pattern(module) in known and "#" in pattern(module)]
        fresh = [module for module in bare if module not in lost]
        for modules, what, effect in (
            (lost, "although their siblings have", wrong()),
            (fresh, f"and {subject.adapter.peft_type} starts from random values there", _random(held)),
        ):
            if effect is None:
                continue
            if modules:
                yield self.finding(
                    f"{len(modules)} selected modules have no {subject.adapter.peft_type} tensors {what}: "
                    + first_names(modules),
                    subject.at_field("target_modules"),
                    effects=(effect,),
                    fix=Fix("Export the adapter again, or name only the modules that were trained", Safety.DISPLAY),
                )


def _random(held: Holding) -> Effect | None:
    """What a layer without tensors does to the adapter; None: nothing.

    Random projections that are not stored come out otherwise when an added target is larger than the others.
    """
    from adapterlint.model.methods import most  # loaded already where there is a holding

    if not held.method.idle(held.options):
        return wrong()
    if held.options("save_projection") is not False:
        return None
    spelt = {held.slots[name].module for name in held.spelt}
    own = [layer for layer in held.options.layers if layer.module in spelt]
    for side in held.method.grown:
        if most(*(getattr(layer, side) for layer in own)) != most(*(getattr(x, side) for x in held.options.layers)):
            return unknown()
    return None


def pattern(module: str) -> str:
    """A module path with every number replaced, so that siblings in other layers are equal."""
    return _NUMBER.sub("#", module)


def _absent_in_base(subject: Subject) -> list[str]:
    series = {pattern(module) for module in subject.adapter.modules}
    return [
        module
        for module in subject.selected
        if module not in subject.adapter.modules and pattern(module) in series and "#" in pattern(module)
    ]


def _gaps(subject: Subject) -> list[str]:
    """Without a base: layer numbers between the first and the last that every target leaves out."""
    return [module for module in _skipped(subject.adapter.table) if subject.selection(module)]


@lru_cache(maxsize=64)
def _skipped(table: KeyTable) -> tuple[str, ...]:
    """The modules that would fill the gaps between layer numbers of modules that differ in those alone."""
    layers: dict[str, set[int]] = {}
    for module in table.modules:
        index = peft.layer_index(module)
        if index is not None:
            layers.setdefault(pattern(module), set()).add(index)
    everywhere = set().union(*layers.values())
    return tuple(
        series.replace("#", str(index))
        for series, present in layers.items()
        if series.count("#") == 1
        for index in range(min(present), max(present))
        if index not in everywhere
    )


def _layers(*numbers: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = {}
    for number in numbers:
        for name, entry in llama_tensors(layers=1).items():
            found[name.replace(".0.", f".{number}.")] = entry
    return found
