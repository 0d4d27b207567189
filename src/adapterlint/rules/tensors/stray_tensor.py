"""AL204."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import Effect, Finding, Outcome, wrong
from adapterlint.model.keys import PAIR_KINDS, Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, renamed
from adapterlint.rules.tensors.noncanonical_prefix import VERA, vera_tensors

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding

# Names of other formats, which AL013 (foreign-format) explains.
_FOREIGN = ("lora_down", "lora_up", "lora_a", "lora_b", "alpha", "lora_unet", "lora_te")

# LoRA variants with tensors of their own, whose names are not modelled.
_MORE_TENSORS = ("kasa_config", "velora_config", "monteclora_config")


class StrayTensor(Rule):
    """## What it does
    Looks for tensors that the declared method does not have: `ia3_l` in a LoRA adapter, `lora_A` without `.weight`,
    grouped experts as NeMo writes them.

    ## Why is this bad?
    PEFT drops what it does not know and never says so. What was trained there is lost.

    ## Example
    `base_model.model.model.layers.0.mlp.experts.lora_gate_and_up_A` in an adapter of type `LORA`.

    ## Fix
    None: the file does not say what the tensor should be. Check `peft_type`, or convert with the tool that wrote it.

    ## References
    - NVIDIA-NeMo/Automodel#1814. Unexpected keys dropped: measured on 0.4.0 to 0.21.2.
    """

    code = "AL204"
    name = "stray-tensor"
    needs = ("config", "header")

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("LoRA", lora_config(), llama_tensors()),
            Example("AdaLoRA has no .weight", lora_config(peft_type="ADALORA"), _bare()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        other = {"base_model.model.model.layers.0.self_attn.q_proj.ia3_l": ("F32", (16, 1))}
        return [
            Example("a tensor of IA3", lora_config(), {**llama_tensors(), **other}),
            Example("LoRA without .weight", lora_config(), _bare()),
            Example("another method with .weight", VERA, renamed(vera_tensors(), lambda name: name + ".weight")),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if subject.held is not None:
            yield from self._of_method(subject, subject.held)
            return
        if not adapter.is_lora:
            return
        stray = [key for key in adapter.unusual if _is_stray(key)]
        if not stray or any(adapter.get(field) for field in _MORE_TENSORS):
            return
        rest = [key for key in adapter.lora_keys if key not in stray]
        yield self.finding(
            f"{len(stray)} tensors belong to no parameter of a {adapter.peft_type} adapter and are dropped: "
            + first_names(key.name for key in stray),
            subject.at_tensor(stray[0].name),
            effects=(Effect(Outcome.WRONG, "peft", stage="after_load", inert=not rest),),
            related=(subject.at_field("peft_type", "the declared method"),),
        )

    def _of_method(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """What another method would read beside a complete adapter was never a part of it."""
        if not held.stray:
            return
        modules = {key.module for key in held.stray}
        lost = any(slot.module in modules or not slot.module for slot in held.missing())
        absent = [key for key in held.stray if key.module and subject.module_exists(key.module) is False]
        inert = not held.finds_something and held.method.idle(held.options)
        where = f"modules that {subject.base.path} does not have" if absent and subject.base else "no parameter"
        yield self.finding(
            f"{len(held.stray)} tensors belong to {where} of a {subject.adapter.peft_type} adapter and are dropped: "
            + first_names(key.name for key in absent or held.stray),
            subject.at_tensor((absent or held.stray)[0].name),
            effects=(wrong(inert=inert),) if lost or absent or _own(held) else (),
            related=(subject.at_field("peft_type", "the declared method"),),
        )


def _own(held: Holding) -> bool:
    """Whether a stray tensor is one of the method itself, of which it has more than the config accounts for."""
    return any(key.kind is Kind.SHARED for key in held.stray)


def _is_stray(key: Key) -> bool:
    if key.kind in (Kind.METHOD, Kind.SHARED):
        return bool(key.module) and not any(key.suffix.startswith(word) for word in _FOREIGN)
    return key.kind in PAIR_KINDS and key.adapter is None and key.suffix != key.canonical_suffix


def _bare() -> dict[str, tuple[str, tuple[int, ...]]]:
    return renamed(llama_tensors(), lambda name: name.removesuffix(".weight"))
