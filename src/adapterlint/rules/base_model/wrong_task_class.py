"""AL407."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, SetConfig, raises
from adapterlint.model.subject import Subject
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
)

_NOT_GENERATING = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
)


class WrongTaskClass(Rule):
    """## What it does
    Compares a generating `task_type` (`CAUSAL_LM`, `SEQ_2_SEQ_LM`) with the base's architecture.

    ## Why is this bad?
    From 0.15 on, under the transformers releases of that time, PEFT asks the base for `prepare_inputs_for_generation`
    and raises when it has none.

    ## Example
    `"task_type": "CAUSAL_LM"` on `BertForSequenceClassification`.

    ## Fix
    Unsafe: set `task_type` to null.

    ## References
    - PEFT `peft_model.py`, `PeftModelForCausalLM`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL407"
    name = "wrong-task-class"
    needs = ("config", "header", "base")

    @staticmethod
    def valid() -> list[AnyExample]:
        feature = bert_config(task_type="FEATURE_EXTRACTION")
        return [
            Example("generates", lora_config(), llama_tensors(), llama_base()),
            Example("feature extraction", feature, bert_tensors(), bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [Example("classifier", bert_config(task_type="CAUSAL_LM"), bert_tensors(), bert_base())]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base, task = subject.base, subject.adapter.get("task_type")
        if base is None or task not in ("CAUSAL_LM", "SEQ_2_SEQ_LM") or not base.architecture.endswith(_NOT_GENERATING):
            return
        text = f"AttributeError: '{base.architecture}' object has no attribute 'prepare_inputs_for_generation'"
        yield self.finding(
            f"task_type {task} needs a model that generates; the base is {base.architecture}",
            subject.at_field("task_type"),
            effects=(raises("peft>=0.15", text),),
            fix=Fix("Set task_type to null", Safety.UNSAFE, (SetConfig("/task_type", None),)),
        )
