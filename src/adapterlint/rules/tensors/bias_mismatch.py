"""AL213."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import (
    Finding,
    Fix,
    RemoveConfig,
    RenameTensor,
    Safety,
    SetConfig,
    Severity,
    unknown,
    wrong,
)
from adapterlint.model.keys import PREFIX, Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    bert_base,
    bert_config,
    bert_tensors,
    llama_tensors,
    lora_config,
)
from adapterlint.rules.tensors.rank_mismatch import size_mismatch

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding


class BiasMismatch(Rule):
    """## What it does
    Compares `lora_bias` and `bias` with the bias tensors in the file.

    ## Why is this bad?
    `lora_B.bias` without `lora_bias` is dropped. The trained bias of a targeted module is read as
    `<module>.base_layer.bias` since 0.7 and as `<module>.bias` before; under the other name it is dropped, silently.
    PEFT 0.7.1 to 0.20 did not store the biases of `bias="lora_only"` at all.

    ## Example
    `"bias": "all"` and `…query.bias` for a module that has LoRA tensors.

    ## Fix
    Safe: `lora_bias` is set; `….bias` is renamed to `….base_layer.bias`. Unsafe: a `lora_bias` of which no tensor is
    stored is removed, which loads the same weights; if biases were trained, they are lost, and so are those that `bias`
    announces and the file does not hold: none brings them back.

    ## References
    - PEFT `utils/save_and_load.py`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL213"
    name = "bias-mismatch"
    needs = ("config", "header")

    @staticmethod
    def valid() -> list[AnyExample]:
        other = {"base_model.model.bert.encoder.layer.0.output.LayerNorm.bias": ("F32", (16,))}
        return [
            Example("no biases", bert_config(), bert_tensors(), bert_base()),
            Example("lora_bias", lora_config(lora_bias=True), {**llama_tensors(), **_lora_bias()}),
            Example("a text for true", lora_config(lora_bias="false"), {**llama_tensors(), **_lora_bias()}),
            Example("bias of a module without LoRA", bert_config(bias="all"), {**bert_tensors(), **other}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        value = "base_model.model.bert.encoder.layer.0.attention.self.value"
        return [
            Example("lora_bias was lost", lora_config(), {**llama_tensors(), **_lora_bias()}),
            Example("lora_bias without biases", lora_config(lora_bias=True), llama_tensors()),
            Example("the old name", bert_config(bias="all"), {**bert_tensors(), f"{value}.bias": ("F32", (16,))}),
            Example("biases were not stored", bert_config(bias="lora_only"), bert_tensors(), bert_base()),
            Example("nor by another method", bert_config(peft_type="HRA", bias="hra_only"), _hra(), bert_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if subject.held is not None:
            yield from self._method_bias(subject, subject.held)
        if not subject.adapter.is_lora:
            return
        yield from self._lora_bias(subject)
        yield from self._base_bias(subject)

    def _lora_bias(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        biases = adapter.of_kind(Kind.LORA_BIAS)
        flag = bool(adapter.get("lora_bias"))  # PEFT takes any text for true (AL106)
        if biases and not flag:
            yield self.finding(
                f"{len(biases)} lora_B.bias tensors are stored but lora_bias is not set, so PEFT drops them",
                subject.at_field("lora_bias"),
                related=(subject.at_tensor(biases[0].name, "stored"),),
                effects=(wrong(),),
                fix=Fix("Set lora_bias to true (PEFT 0.14 or newer)", Safety.SAFE, (SetConfig("/lora_bias", True),)),
            )
        odd = [key for key in biases if flag and key.name == key.canonical and _odd_length(subject, key)]
        if odd:
            yield self.finding(
                f"{len(odd)} lora_B.bias tensors are not as long as their lora_B has rows: "
                + first_names(key.name for key in odd),
                subject.at_tensor(odd[0].name),
                effects=(size_mismatch(subject, odd[0], "peft>=0.14"),),
            )
        covered = subject.covered.items() if flag else ()
        bare = [module for module, entry in covered if entry.b and Kind.LORA_BIAS not in entry.by_kind]
        if bare and (biases or not subject.adapter.get("modules_to_save")):
            yield self.finding(
                f"lora_bias is set but {len(bare)} modules have no lora_B.bias: {first_names(bare)}",
                subject.at_field("lora_bias"),
                effects=(wrong(),) if biases else (unknown("peft>=0.14", missing=("weights",)),),
                fix=None if biases else Fix("Remove lora_bias", Safety.UNSAFE, (RemoveConfig("/lora_bias"),)),
            )

    def _method_bias(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """What biases were trained to, when the config says they were and the file has none of them."""
        mode, base = held.options("bias"), subject.base
        if mode in (None, "none") or base is None or subject.adapter.peft_type == "ADALORA":
            return
        modules = [layer.module for layer in held.options.layers]
        biased = [module for module in modules if "bias" in base.modules.get(module, {})]
        stored = [key for key in subject.adapter.of_kind(Kind.BASE_LAYER) if key.parameter == "bias"]
        if biased and not stored:
            yield self.finding(
                f"bias is {mode!r} but no trained bias is stored; PEFT before 0.20 lost them when saving",
                subject.at_field("bias"),
                effects=(unknown(missing=("weights",)),),
            )

    def _base_bias(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        mode = adapter.get("bias")
        targeted = {*subject.covered, *subject.selected}
        old = [k for k in adapter.full_keys if k.module in targeted and k.infix is None]
        old, new = (
            [k for k in keys if k.parameter == "bias" and subject.equals_base(k) is not True]
            for keys in (old, adapter.of_kind(Kind.BASE_LAYER))
        )
        if old:
            renames = tuple(RenameTensor(key.name, f"{PREFIX}{key.module}.base_layer.bias") for key in old)
            yield self.finding(
                f"{len(old)} biases of targeted modules stand under the name that PEFT read up to 0.6: "
                + first_names(key.name for key in old),
                subject.at_tensor(old[0].name),
                effects=(wrong("peft>=0.7"),),
                fix=Fix(f"Rename {len(old)} tensors to ….base_layer.bias (PEFT 0.7 or newer)", Safety.SAFE, renames),
            )
        if new:
            yield self.finding(
                f"{len(new)} biases of targeted modules stand under base_layer, which PEFT reads since 0.7: "
                + first_names(key.name for key in new),
                subject.at_tensor(new[0].name),
                effects=(wrong("peft<0.7"),),
                severity=Severity.NOTE,
            )
        if mode == "lora_only" and not old and not new and _base_has_biases(subject):
            yield self.finding(
                "bias is 'lora_only' but no trained bias is stored; PEFT 0.7.1 to 0.20 lost them when saving",
                subject.at_field("bias"),
                effects=(),
            )


def _odd_length(subject: Subject, key: Key) -> bool:
    entry = subject.covered.get(key.module)
    return (
        entry is not None and entry.b is not None and subject.adapter.shape(key) != subject.adapter.shape(entry.b)[:1]
    )


def _base_has_biases(subject: Subject) -> bool:
    return subject.base is not None and any("bias" in subject.base.modules.get(m, {}) for m in subject.covered)


def _lora_bias() -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name.replace(".weight", ".bias"): ("F32", (16,)) for name in llama_tensors() if "lora_B" in name}


def _hra() -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name.replace("lora_A.weight", "hra_u"): ("F32", (16, 4)) for name in bert_tensors() if "lora_A" in name}
