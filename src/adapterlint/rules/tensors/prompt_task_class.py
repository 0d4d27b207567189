"""AL222."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises
from adapterlint.model import peft
from adapterlint.model.keys import PROMPT_TYPES
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example


class PromptTaskClass(Rule):
    """## What it does
    Looks for prompts (prompt tuning, prefix tuning, P-tuning) of classification and question answering.

    ## Why is this bad?
    The classes of these tasks hand a new argument to a method of PEFT 0.13 that they had not given it yet: loading
    raises in that release. Other methods meet the same error only with a second adapter (AL509).

    ## Example
    `{"peft_type": "PROMPT_TUNING", "task_type": "SEQ_CLS", "num_virtual_tokens": 8}` for a target of PEFT 0.13.

    ## Fix
    None in the files: use another release.

    ## References
    - PEFT 0.13 `peft_model.py`, `PeftModelForSequenceClassification.add_adapter`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL222"
    name = "prompt-task-class"
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("generation", {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4}),
            Example("another method", {"peft_type": "IA3", "task_type": "SEQ_CLS", "target_modules": ["key"]}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [Example("classes", {"peft_type": "PROMPT_TUNING", "task_type": "SEQ_CLS", "num_virtual_tokens": 4})]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if adapter.peft_type not in PROMPT_TYPES or not peft.implied_heads(adapter):
            return
        name = peft.model_class(adapter)
        text = f"TypeError: {name}.add_adapter() got an unexpected keyword argument 'low_cpu_mem_usage'"
        yield self.finding(
            f"PEFT 0.13 cannot load a prompt for task_type {adapter.get('task_type')}",
            subject.at_field("task_type"),
            effects=(raises("peft>=0.13,<0.14", text),),
        )
