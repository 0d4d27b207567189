"""AL509."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_SIGNATURE_CHANGED = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


class TaskClassReload(SetRule):
    """## What it does
    Looks at sets whose first adapter has a classification `task_type`: its PEFT class handles all that follow.

    ## Why is this bad?
    PEFT 0.13 raises at the second adapter, whatever it is. From 0.15 on the class expects its head in every adapter's
    file and raises for one without.

    ## Example
    A `SEQ_CLS` adapter first, then one without a task type and without a classifier.

    ## Fix
    None for 0.13: use another release. Otherwise the `union` form stores a head in every adapter.

    ## References
    - PEFT `peft_model.py`, `PeftModelForSequenceClassification.add_adapter`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL509"
    name = "task-class-reload"

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        return [SetExample("no task class", {"a": plain, "b": plain}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        typed = Example("a", bert_config(task_type="SEQ_CLS"), {**bert_tensors(), **_CLASSIFIER})
        plain = Example("b", bert_config(), bert_tensors())
        return [
            SetExample("two classifiers", {"a": typed, "b": typed}, bert_base()),
            SetExample("one without a head", {"a": typed, "b": plain}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        first, *later = subject.members
        task = first.adapter.get("task_type")
        if task not in _SIGNATURE_CHANGED or not later:
            return
        cls = peft.TASK_CLASSES[task]
        text = f"TypeError: {cls}.add_adapter() got an unexpected keyword argument 'low_cpu_mem_usage'"
        yield self.finding(
            f"the first adapter has task_type {task}: PEFT 0.13 cannot load a second adapter into {cls}",
            first.at_field("task_type"),
            effects=(raises("peft>=0.13,<0.14", text, adapter=later[0].adapter.name),),
            ceiling=Severity.WARNING,  # no file can help: pin another release
            adapters=subject.paths,
        )
        for member in later:
            yield from self._headless(subject, member)

    def _headless(self, subject: SetSubject, member: Subject) -> Iterator[Finding]:
        first = subject.members[0]
        heads = peft.implied_heads(first.adapter)
        if set(heads) <= set(peft.implied_heads(member.adapter)) or not member.adapter.is_lora:
            return  # the member's own rules (AL210, AL215) say it
        stored = [key for key in member.adapter.saved.values() if peft.saved_root(heads, key.module)]
        base = subject.base
        roots = peft.saved_modules(heads, base) if base else heads[:1]
        if stored or not roots or peft.saves(member.adapter.names("modules_to_save"), roots[0]):
            return
        effects: tuple[Effect, ...] = (
            raises("peft>=0.15", f"KeyError: '{PREFIX}{roots[0]}.weight'", adapter=member.adapter.name),
        )
        yield self.finding(
            f"{member.adapter.name} stores no {roots[0]}, which the task class of {first.adapter.name} "
            "makes PEFT look for",
            member.at_field("task_type"),
            related=(first.at_field("task_type", "decides the class"),),
            effects=effects,
            adapters=subject.paths,
        )
