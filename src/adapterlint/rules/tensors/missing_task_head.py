"""AL215."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, SetConfig, Severity, raises, unknown
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX
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

_UNTYPED = (SetConfig("/task_type", None),)


class MissingTaskHead(Rule):
    """## What it does
    Looks for classification adapters (`SEQ_CLS`, `TOKEN_CLS`, `QUESTION_ANS`) that store no head.

    ## Why is this bad?
    PEFT adds `classifier` and `score` (or `qa_outputs`) to `modules_to_save` for these task types. From 0.15 on it
    then raises a KeyError; before, the head is whatever the base has: random, for a base that was not fine-tuned. A
    base that has no such head loses nothing: without a base it is unknown, unless other tensors speak of the head.

    ## Example
    `"task_type": "SEQ_CLS"` and no tensor of a classifier.

    ## Fix
    Unsafe: `task_type` is set to null, so that PEFT looks for no head and the base's own answers. That is right if the
    head was never trained; a trained one is lost, and no file brings it back.

    ## References
    - PEFT `peft_model.py`, `PeftModelForSequenceClassification`; peft#577, peft#876; measured on 0.4.0 to 0.21.2.
    """

    code = "AL215"
    name = "missing-task-head"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        head = {
            "base_model.model.classifier.weight": ("F32", (3, 16)),
            "base_model.model.classifier.bias": ("F32", (3,)),
        }
        return [
            Example("stored", bert_config(task_type="SEQ_CLS"), {**bert_tensors(), **head}),
            Example("another head, without a base", bert_config(task_type="SEQ_CLS"), _other()),
            Example("a base without a head", lora_config(task_type="TOKEN_CLS"), llama_tensors(), llama_base()),
            Example("no task", bert_config(), bert_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("nothing stored", bert_config(task_type="SEQ_CLS"), bert_tensors(), bert_base()),
            Example("without a base", bert_config(task_type="TOKEN_CLS"), bert_tensors()),
            Example("another module's classifier", bert_config(task_type="SEQ_CLS"), _other(), bert_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        heads = peft.implied_heads(adapter)
        roots = _missing_roots(subject, heads)
        if not roots:
            return
        certain = subject.base is not None or peft.speaks_of(heads, adapter)
        late = raises("peft>=0.15", f"KeyError: '{PREFIX}{roots[0]}.weight'", scope="alone")  # in a set: AL509
        yield self.finding(
            f"task_type {adapter.get('task_type')} makes PEFT look for a saved {roots[0]}, and none is stored",
            subject.at_field("task_type"),
            effects=(
                unknown("peft<0.15", missing=("weights",)),
                late if certain else unknown("peft>=0.15", missing=("base",), scope="alone"),
            ),
            fix=Fix("Set task_type to null, right if the head was not trained", Safety.UNSAFE, _UNTYPED),
        )


def _missing_roots(subject: Subject, heads: tuple[str, ...]) -> list[str]:
    """Heads that PEFT looks for and of which nothing is stored; with a base: those that it has."""
    adapter = subject.adapter
    if subject.base is not None:
        roots = [module for module in subject.saved_modules if peft.saves(heads, module)]
        return [root for root in roots if not any(_inside(key.module, root) for key in adapter.saved.values())]
    if not heads or any(peft.saved_root(heads, key.module) for key in adapter.saved.values()):
        return []
    if adapter.names("modules_to_save") and adapter.saved:
        return []  # another declared head is stored
    return [heads[0]]


def _inside(module: str, root: str) -> bool:
    return module == root or module.startswith(root + ".")


def _other() -> dict[str, tuple[str, tuple[int, ...]]]:
    return {**bert_tensors(), "base_model.model.decode_head.classifier.weight": ("F32", (3, 16))}
