"""AL202."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import DropTensor, Effect, Finding, Fix, Outcome, Safety, Severity, raises
from adapterlint.model.keys import PAIR_KINDS, Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, renamed
from adapterlint.rules.tensors.noncanonical_prefix import VERA, rename_fix, vera_tensors

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding


class AdapterNameInKey(Rule):
    """## What it does
    Looks for LoRA tensor names that still hold the adapter's name: `lora_A.default.weight`.

    ## Why is this bad?
    PEFT puts the name in at load. Where it is there already, releases up to 0.20 look for
    `lora_A.default.default.weight`, find nothing and answer with the base model. Release 0.21 accepts such a file only
    when it is loaded under the very name that stands in the keys.

    ## Example
    `base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight`, as `model.state_dict()` has it.

    ## Fix
    Safe: the name is taken out. Leftovers of another adapter (`lora_Abar.weight`) are dropped with `--unsafe-fixes`.

    ## References
    - PEFT `utils/save_and_load.py`, `set_peft_model_state_dict`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL202"
    name = "adapter-name-in-key"
    needs = ("config", "header")

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("canonical", lora_config(), llama_tensors())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        named = renamed(llama_tensors(), lambda name: name.replace(".weight", ".default.weight"))
        residue = {"base_model.model.model.layers.0.self_attn.q_proj.lora_Abar.weight": ("F32", (4, 16))}
        vera = renamed(vera_tensors(), lambda name: name + ".default")
        return [
            Example("the name of from_pretrained", lora_config(), named),
            Example("another method", VERA, vera),
            Example("leftover of another adapter", lora_config(), {**llama_tensors(), **residue}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if subject.held is not None:
            yield from self._of_method(subject, subject.held)
        if not adapter.is_lora:
            return
        named = [key for key in adapter.unusual if key.kind in PAIR_KINDS and key.adapter is not None]
        twins = [key for key in named if key.canonical in adapter.tensors]
        if len(named) > len(twins):
            own = [key for key in named if key not in twins]
            names = sorted({str(key.adapter) for key in own})
            yield self.finding(
                f"adapter name {', '.join(map(repr, names))} in {len(own)} tensor names: "
                + first_names(key.name for key in own),
                subject.at_tensor(own[0].name),
                effects=named_effects(subject, own, all_of_it=len(own) == len(adapter.lora_keys)),
                fix=rename_fix(subject, own, "names without it") if len(names) == 1 else _choose(names),
            )
        residue = twins + list(adapter.of_kind(Kind.RESIDUE))
        if residue:
            yield self.finding(
                f"{len(residue)} tensors are leftovers of another adapter and never read: "
                + first_names(key.name for key in residue),
                subject.at_tensor(residue[0].name),
                effects=(),
                severity=Severity.WARNING,
                fix=Fix("Drop the leftovers", Safety.UNSAFE, tuple(DropTensor(key.name) for key in residue)),
            )

    def _of_method(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        if not held.named:
            return
        names = sorted({str(key.adapter) for key in held.named})
        lost = held.lost(held.named)
        everything = not held.finds_something and held.method.idle(held.options)
        effects = list(named_effects(subject, held.named, all_of_it=everything)) if lost else []
        exception = held.lacks(held.exact)
        if exception is not None and held.lacks([key.canonical for key in held.named]) is None:
            effects += [
                raises(effect.targets, exception, scope=effect.scope)
                for effect in named_effects(subject, held.named, all_of_it=False)
            ]
        yield self.finding(
            f"adapter name {', '.join(map(repr, names))} in {len(held.named)} tensor names: "
            + first_names(key.name for key in held.named),
            subject.at_tensor(held.named[0].name),
            effects=tuple(effects),
            fix=rename_fix(subject, held.named, "names without it") if len(names) == 1 else _choose(names),
        )


def _choose(names: list[str]) -> Fix:
    return Fix(f"Split the file: it holds the adapters {', '.join(names)}", Safety.DISPLAY)


def named_effects(subject: Subject, keys: list[Key], all_of_it: bool) -> tuple[Effect, ...]:
    """Effects of adapter names inside keys: unread before 0.21, since then read under that very name only."""
    effects = [Effect(Outcome.WRONG, "peft<0.21", stage="after_load", inert=all_of_it)]
    names = {key.adapter for key in keys}
    if names != {"default"}:
        effects.append(Effect(Outcome.WRONG, "peft>=0.21", stage="after_load", inert=all_of_it, scope="alone"))
    if names != {subject.adapter.name}:
        effects.append(Effect(Outcome.WRONG, "peft>=0.21", stage="after_load", inert=all_of_it, scope="set"))
    return tuple(effects)
