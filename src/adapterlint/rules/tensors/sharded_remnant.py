"""AL209."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import Effect, Finding, Severity, raises
from adapterlint.model import peft
from adapterlint.model.keys import PAIR_KINDS, Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.tensors.rank_mismatch import is_read, size_mismatch

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding, Slot


class ShardedRemnant(Rule):
    """## What it does
    Looks for tensors with a dimension of size zero, and for LoRA matrices that are flat vectors: what one rank of
    DeepSpeed ZeRO-3 or FSDP holds, saved without gathering the parameters first.

    ## Why is this bad?
    The values are not in the file, and every PEFT release raises a size mismatch.

    ## Example
    `lora_A.weight` of shape `[0]`.

    ## Fix
    None: save again with the parameters gathered (`stage3_gather_16bit_weights_on_model_save`, or
    `accelerator.get_state_dict(model)`).

    ## References
    - peft#460, peft#1443, accelerate#4206; measured on 0.4.0 to 0.21.2.
    """

    code = "AL209"
    name = "sharded-remnant"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        dora = {"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector": ("F32", (16,))}
        return [Example("DoRA vectors are flat", lora_config(use_dora=True), {**llama_tensors(), **dora})]

    @staticmethod
    def invalid() -> list[AnyExample]:
        stem = "base_model.model.model.layers.0.self_attn.q_proj"
        return [
            Example("size zero", lora_config(), {**llama_tensors(), f"{stem}.lora_A.weight": ("F32", (0,))}),
            Example("flat", lora_config(), {**llama_tensors(), f"{stem}.lora_B.weight": ("F32", (64,))}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if all(0 not in shape and len(shape) > 1 for shape in adapter.shapes):
            return
        empty = [key for key in adapter.keys if 0 in adapter.shape(key)]
        flat = [key for key in adapter.lora_keys if key.kind in PAIR_KINDS and len(adapter.shape(key)) < 2]
        flat = [key for key in flat if key not in empty]
        for keys, what in ((empty, "have a dimension of size zero"), (flat, "are LoRA matrices stored flat")):
            if keys:
                yield self.finding(
                    f"{len(keys)} tensors {what}, as ZeRO-3 or FSDP leave them when saved without gathering: "
                    + first_names(key.name for key in keys),
                    subject.at_tensor(keys[0].name),
                    effects=tuple(_effects(subject, keys)),
                )


def _effects(subject: Subject, keys: list[Key]) -> Iterator[Effect]:
    held = subject.held
    if held is not None:
        for key in keys:
            if key.name in held.exact:
                yield slot_mismatch(subject, held, held.slots[key.name], key)
                return
    for key in keys:
        if not key.has_canonical_prefix or (key.kind in PAIR_KINDS and not is_read(key)):
            continue
        if key.kind in PAIR_KINDS and key.module in subject.covered:
            yield size_mismatch(subject, key)
            return
        if key.kind is Kind.FULL and key.infix is None:
            yield raises("peft", full_mismatch(subject, key))
            return
    if held is None and not subject.adapter.is_lora and any(key.kind is Kind.METHOD for key in keys):
        yield raises("peft", "RuntimeError: Error(s) in loading state_dict")


def slot_mismatch(subject: Subject, held: Holding, slot: Slot, key: Key) -> Effect:
    """The exception of a method's tensor whose shape is not the one that PEFT made room for."""
    shape = subject.adapter.shape(key)
    if held.method.prompt:
        return raises(held.targets, peft.size_mismatch("Embedding", "weight", shape))
    stem = slot.name.removesuffix(slot.part) if slot.module else ""
    first, dot, rest = slot.part.partition(".") if slot.module else (slot.part, "", "")
    name = f"{stem}{first}.default{dot}{rest}"
    return raises(held.targets, peft.size_mismatch(peft.model_class(subject.adapter), name, shape))


def full_mismatch(subject: Subject, key: Key) -> str:
    """The text PEFT raises for a full tensor of another shape than the base's."""
    root = peft.saved_root(subject.saved_names, key.module)
    name = key.canonical
    if root is not None:
        inner = key.full_name[len(root) + 1 :]
        name = f"base_model.model.{root}.modules_to_save.default.{inner}"
    return peft.size_mismatch(peft.model_class(subject.adapter), name, subject.adapter.shape(key))
