"""AL303."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import DropTensor, Finding, Fix, Safety, Severity
from adapterlint.model.keys import Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config

_ALL = ("q_proj", "k_proj", "v_proj", "o_proj")
_HEAD = {"base_model.model.lm_head.weight": ("F32", (48, 16))}
_LAYER = {"base_model.model.lm_head.base_layer.weight": ("F32", (48, 16))}


class RedundantFullTensor(Rule):
    """## What it does
    Looks for whole parameters whose bytes are the base's.

    ## Why is this bad?
    They change nothing, make the file large, and keep serving engines from loading it. PEFT itself stores the base's
    weight beside LoRA on an embedding. In a set, a copy may be needed: the `union` form adds them on purpose.

    ## Example
    `"modules_to_save": ["lm_head"]`, and an `lm_head.weight` that was frozen.

    ## Fix
    Safe for `base_layer.weight`, which PEFT does not need. A saved module is for you to judge: keep it where the
    adapter is loaded beside others that save it, as after the `union` form; else take it out of `modules_to_save`, too.

    ## References
    - Measured on 0.4.0 to 0.21.2: right with and without; vllm#32599.
    """

    code = "AL303"
    name = "redundant-full-tensor"
    needs = ("config", "header", "base", "payload")
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        config = lora_config(modules_to_save=["lm_head"])
        return [Example("trained", config, {**llama_tensors(), **_HEAD}, llama_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        # The examples' numbers repeat every 29 tensors, so that tensor 16 here equals the base's tensor 1002.
        tensors = llama_tensors(leaves=_ALL)
        config = lora_config(target_modules=list(_ALL), modules_to_save=["lm_head"])
        layer = lora_config(target_modules=[*_ALL, "lm_head"])
        return [
            Example("a saved module", config, {**tensors, **_HEAD}, llama_base()),
            Example("a layer's own weight", layer, {**tensors, **_LAYER}, llama_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if not subject.adapter.is_lora:
            return
        layers = [key for key in subject.adapter.keys if key.kind is Kind.BASE_LAYER and _copied(subject, key)]
        if layers:
            edits = tuple(DropTensor(key.name) for key in layers)
            yield self._copies(subject, layers, Fix(f"Drop {len(layers)} copies of the base", Safety.SAFE, edits))
        whole = [key for key in subject.adapter.full_keys if not key.infix and _copied(subject, key)]
        modules = list(dict.fromkeys(key.module for key in whole))
        if whole:
            names = first_names(modules)
            text = (
                f"Keep them if other adapters of a set save {names}; else drop them, and {names} from modules_to_save"
            )
            yield self._copies(subject, whole, Fix(text, Safety.DISPLAY))

    def _copies(self, subject: Subject, keys: list[Key], fix: Fix) -> Finding:
        return self.finding(
            f"{len(keys)} stored parameters are the base's own: {first_names(key.full_name for key in keys)}",
            subject.at_tensor(keys[0].name),
            fix=fix,
        )


def _copied(subject: Subject, key: Key) -> bool:
    assert subject.base is not None
    stored = subject.base.under(key.module).get(f"{key.module}.{key.parameter}")
    return stored is not None and subject.payload.equals_base(subject.adapter.tensors[key.name], stored) is True
