"""AL412."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises
from adapterlint.model import layouts
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.base_model.expert_layout import single_experts
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config

DROPPED = "_prepare_encoder_decoder_kwargs_for_generation"
"""A method that transformers had up to 5.17."""
_CONVERTER = "TypeError: WeightConverter.__init__() got an unexpected keyword argument 'distributed_operation'"


class UnsuitedTransformers(Rule):
    """## What it does
    Looks for adapters that a release of PEFT cannot load beside the release of transformers that the target names,
    because one calls what the other no longer has.

    ## Why is this bad?
    transformers 5.18 has no `_prepare_encoder_decoder_kwargs_for_generation` any more, which PEFT before 0.21 asks the
    base for if `task_type` is `SEQ_2_SEQ_LM`. transformers 5.16 changed what PEFT 0.19 makes to carry adapters over to
    stacked experts: no adapter loads there on a checkpoint with single experts. Releases that cannot be imported
    together are no targets.

    ## Example
    `peft==0.20.0,transformers==5.23` and `"task_type": "SEQ_2_SEQ_LM"`.

    ## Fix
    None in the files: take another release of either. `task_type` null loads a `SEQ_2_SEQ_LM` adapter for inference.

    ## References
    - PEFT `peft_model.py` (`PeftModelForSeq2SeqLM`), `utils/transformers_weight_conversion.py`.
    - Measured for twelve models on 0.14.0 to 0.21.2 with transformers 4.48.3, 4.57.1 and 5.23.0; where the change came,
      by the sources of transformers 5.15 to 5.18.
    """

    code = "AL412"
    name = "unsuited-transformers"
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("a causal model without experts", lora_config(), llama_tensors(), llama_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        generating = lora_config(task_type="SEQ_2_SEQ_LM")
        return [
            Example("a task of sequences to sequences", generating, llama_tensors(), llama_base()),
            Example("attention beside single experts", lora_config(), llama_tensors(), single_experts()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base, place = subject.base, subject.at_field("task_type")
        effects = tuple(effect._replace(scope="alone") for effect in missing_method(subject))  # in a set: AL509
        if effects:
            text = "PEFT before 0.21 cannot load a SEQ_2_SEQ_LM adapter beside transformers 5.18 or newer"
            yield self.finding(text, place, effects=effects)
        if base is not None and any(layouts.expert_leaf(module) for module in base.modules):
            text = f"PEFT 0.19 cannot load adapters for {base.model_type} beside transformers 5.16 or newer"
            effects = (raises("peft>=0.19,<0.20,transformers>=5.16", _CONVERTER),)
            yield self.finding(text, subject.at_directory(), effects=effects)


def missing_method(subject: Subject) -> Iterator[Effect]:
    """What becomes of an adapter whose task's class asks the base for a method that transformers has dropped."""
    if subject.adapter.get("task_type") == "SEQ_2_SEQ_LM":
        owner = subject.base.architecture if subject.base else "..."
        text = f"AttributeError: {owner!r} object has no attribute '{DROPPED}'"
        yield raises("peft<0.21,transformers>=5.18", text)
