"""AL411."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model import peft
from adapterlint.model.base import Base
from adapterlint.model.keys import PROMPT_TYPES, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    bert_base,
    bert_config,
    bert_tensors,
    llama_base,
    llama_tensors,
    lora_config,
    lora_pair,
)

_OPERATION = "merge"
# transformers' models that multiply what goes into the output head by d_model ** -0.5 if the embeddings are tied.
_SCALED_WHEN_TIED = frozenset({"t5", "mt5", "longt5", "switch_transformers", "udop", "pop2piano"})
_LOOKS_FIRST = frozenset({"LORA", "HIRA", "SHADOW", "ADALORA", "LN_TUNING"})
_OUTPUTS = ("lm_head", "embed_out")


class UnmergeableAdapter(Rule):
    """## What it does
    Looks for adapters that `merge_and_unload` cannot bring into this base, loaded alone or with others.

    ## Why is this bad?
    Where input embeddings and language-model head are one tensor, merging LoRA on one of them changes both. A bias of
    B (`lora_bias`) needs a bias in the base to go to. Prompt methods have no weights to merge.

    ## Example
    `"target_modules": ["q_proj", "embed_tokens"]` on a base with tied embeddings.

    ## Fix
    None in the files: untie the embeddings first (load with `tie_word_embeddings=False` and copy the weight), or do not
    merge.

    ## References
    - PEFT `tuners/lora/layer.py`, `merge`; `tuners/tuners_utils.py`, `_check_merge_allowed`; peft#2018.
    - Measured on 0.8.2 to 0.21.2.
    """

    code = "AL411"
    name = "unmergeable-adapter"
    needs = ("config", "header")
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        head = {**llama_tensors(), **lora_pair("lm_head", outputs=48)}
        targets = ["q_proj", "v_proj", "lm_head"]
        return [
            Example("attention only", lora_config(), llama_tensors(), llama_base(tied=True)),
            Example("a head that is not tied", lora_config(target_modules=targets), head, llama_base()),
            Example("biases", bert_config(lora_bias=True, lora_alpha=4), _biased(bert_tensors()), bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = {**llama_tensors(), **lora_pair("lm_head", outputs=48)}
        targets = ["q_proj", "v_proj", "lm_head"]
        biased = _biased(llama_tensors())
        return [
            Example("a tied head", lora_config(target_modules=targets), head, llama_base(tied=True)),
            Example("no bias in the base", lora_config(lora_bias=True), biased, llama_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter, base = subject.adapter, subject.base
        if adapter.peft_type in PROMPT_TYPES:
            model = base.architecture if base else "the model"
            text = f"AttributeError: '{model}' object has no attribute 'merge_and_unload'"
            yield self._found(subject, "peft_type", f"{adapter.peft_type} cannot be merged", _raises(text))
        if base is None:
            return
        yield from self._scaled_output(subject, base)
        if not adapter.is_lora:
            yield from self._containers(subject, base)
            return
        ends = [module for module in _ends(base) if module not in subject.saved_modules]
        tied = [module for module in ends if module in subject.covered] if len(ends) > 1 else []
        if tied:
            message = f"merging LoRA on {first_names(tied)} changes input embeddings and output head, which are tied"
            yield self._found(subject, "target_modules", message, (wrong(operation=_OPERATION),))
        yield from self._biases(subject, base)

    def _scaled_output(self, subject: Subject, base: Base) -> Iterator[Finding]:
        """Merging unties the embeddings, notes it in the config, and T5 then leaves out a factor."""
        heads = [module for module in subject.saved_modules if module in peft.vocabulary_heads(base)]
        if heads and base.tied and base.model_type in _SCALED_WHEN_TIED:
            message = f"merging {first_names(heads)} unties the embeddings, and {base.model_type} scales only tied ones"
            yield self._found(subject, "modules_to_save", message, (wrong("peft>=0.19", operation=_OPERATION),))

    def _containers(self, subject: Subject, base: Base) -> Iterator[Finding]:
        """Only LoRA looks whether a saved module has a weight before it takes it over."""
        adapter = subject.adapter
        if adapter.peft_type in PROMPT_TYPES or adapter.peft_type in _LOOKS_FIRST:
            return
        held = [module for module in subject.saved_modules if base.kind(module) == "container"]
        if held:
            text = f"AttributeError: '{class_of(base, held[0])}' object has no attribute 'weight'"
            message = f"{adapter.peft_type} adapters cannot be merged where they save {held[0]}, which has no weight"
            yield self._found(subject, "modules_to_save", message, _raises(text))

    def _biases(self, subject: Subject, base: Base) -> Iterator[Finding]:
        if subject.adapter.get("lora_bias") is not True:
            return
        stored = [module for module, entry in subject.covered.items() if Kind.LORA_BIAS in entry.by_kind]
        lacking = [module for module in stored if "bias" not in base.modules.get(module, {})]
        old = "AttributeError: 'NoneType' object has no attribute 'data'"
        text = "RuntimeError: Impossible to merge LoRA with `lora_bias=True` because the base layer has no bias."
        if lacking:
            message = f"{first_names(lacking)} has no bias to merge the bias of B into"
            effects = (*_raises(old, "peft>=0.14,<0.18"), *_raises(text, "peft>=0.18"))
            yield self._found(subject, "lora_bias", message, effects)
        elif any(_scale(subject, module) != 1 for module in stored):
            effects = (wrong("peft>=0.14,<0.16", operation=_OPERATION),)
            yield self._found(subject, "lora_bias", "PEFT up to 0.15 merges the bias of B without its scale", effects)

    def _found(self, subject: Subject, field: str, message: str, effects: tuple[Effect, ...]) -> Finding:
        return self.finding(message, subject.at_field(field), effects=effects)


def _raises(text: str, targets: str = "peft") -> tuple[Effect, ...]:
    return (raises(targets, text, operation=_OPERATION),)


def _scale(subject: Subject, module: str) -> float | None:
    try:
        return peft.scale(subject.adapter, module)
    except (ValueError, OverflowError):
        return None


def class_of(base: Base, module: str) -> str:
    """Class name of a module of the base, as transformers would call it."""
    stem = re.split("For|LMHead|Model$", base.architecture)[0]
    leaf = module.rpartition(".")[2]
    return stem + ("Layer" if leaf.isdigit() else "MLP" if leaf == "mlp" else leaf.capitalize())


def _biased(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The same tensors, and a bias for every B."""
    pairs = tensors.items()
    more = {name.replace("B.weight", "B.bias"): (dtype, shape[:1]) for name, (dtype, shape) in pairs if "_B." in name}
    return {**tensors, **more}


def _ends(base: Base) -> list[str]:
    """Input embedding and output head, where they are one tensor."""
    outputs = [module for module in base.modules if module in _OUTPUTS]
    return [base.embedding, *outputs] if base.tied and base.embedding and outputs else []
