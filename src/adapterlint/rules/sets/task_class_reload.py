"""AL509."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises, unknown, wrong
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX, PROMPT_TYPES
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.rules.base import SetRule
from adapterlint.rules.base_model.unsuited_transformers import missing_method
from adapterlint.rules.base_model.wrong_task_class import mismatch, task_effects
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    SetExample,
    bert_base,
    bert_config,
    bert_tensors,
    llama_tensors,
    lora_config,
)

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
    file and raises for one without; without a base, and if no tensor speaks of a head, that is unknown. A class for
    another kind of model raises when the model is run (AL407).

    ## Example
    A `SEQ_CLS` adapter first, then one without a task type and without a classifier.

    ## Fix
    None in the files for 0.13: use another release. Otherwise the `union` form stores a head in every adapter (AL501).

    ## References
    - PEFT `peft_model.py`, `PeftModelForSequenceClassification.add_adapter`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL509"
    name = "task-class-reload"
    damage = "peft_model"
    of_first = True

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        return [SetExample("no task class", {"a": plain, "b": plain}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        typed = Example("a", bert_config(task_type="SEQ_CLS"), {**bert_tensors(), **_CLASSIFIER})
        plain = Example("b", bert_config(), bert_tensors())
        generating = Example("c", bert_config(task_type="CAUSAL_LM"), bert_tensors())
        return [
            SetExample("two classifiers", {"a": typed, "b": typed}, bert_base()),
            SetExample("a task of other models", {"c": generating, "b": plain}, bert_base()),
            SetExample("one without a head", {"a": typed, "b": plain}, bert_base()),
            SetExample("only the base tells of a head", {"d": _tagger(), "e": _tagger()}),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        first, *later = subject.members
        task = first.adapter.get("task_type")
        yield from self._unsuited(subject)
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
        for member in subject.members:
            yield from self._headless(subject, member)

    def _unsuited(self, subject: SetSubject) -> Iterator[Finding]:
        """The first one's class calls the model in a way that it does not take (AL407), or cannot be made (AL412)."""
        first = subject.members[0]
        task, place = first.adapter.get("task_type"), first.at_field("task_type")
        late = tuple(missing_method(first))
        if late:
            text = "first adapter: a SEQ_2_SEQ_LM adapter does not load beside transformers 5.18 or newer"
            yield self.finding(text, place, effects=late, adapters=subject.paths, severity=Severity.NOTE)
        if subject.base is None or first.adapter.peft_type in PROMPT_TYPES:
            return
        effects = tuple(task_effects(subject.base, task))
        if effects:
            message, ceiling = mismatch(subject.base, str(task), effects)
            yield self.finding(
                f"first adapter: {message}", place, effects=effects, adapters=subject.paths, ceiling=ceiling
            )

    def _headless(self, subject: SetSubject, member: Subject) -> Iterator[Finding]:
        """A head that the first one's class looks for in a file that lacks it, or a part of it."""
        first = subject.members[0]
        if not member.adapter.is_lora:
            return
        missing, stored = _missing(subject, member, peft.implied_heads(first.adapter))
        if not missing:
            return
        name, heads = member.adapter.name, peft.implied_heads(first.adapter)
        certain = subject.base is not None or any(peft.speaks_of(heads, each.adapter) for each in subject.members)
        effects = [
            raises("peft>=0.15", f"KeyError: '{PREFIX}{missing[0]}'", adapter=name)
            if certain
            else unknown("peft>=0.15", missing=("base",), adapter=name)
        ]
        if stored:
            effects.append(wrong("peft<0.15", adapter=name))
        elif any(peft.saved_root(heads, module) for module in member.adapter.modules):
            effects.append(wrong("peft>=0.11,<0.15", adapter=name))  # the head is saved whole, so its LoRA is dropped
        yield self.finding(
            f"{name} stores no {missing[0]}, which the task class of {first.adapter.name} makes PEFT look for",
            member.at_field("task_type"),
            related=(first.at_field("task_type", "decides the class"),),
            effects=tuple(effects),
            adapters=subject.paths,
        )


def _tagger() -> Example:
    return Example("d", lora_config(task_type="TOKEN_CLS"), llama_tensors())


def _missing(subject: SetSubject, member: Subject, heads: tuple[str, ...]) -> tuple[list[str], bool]:
    """Parameters of the heads that the file lacks, and whether it has others of the same head.

    Heads that the member names in modules_to_save are left to AL210.
    """
    declared, saved = member.adapter.names("modules_to_save"), member.adapter.saved
    base = subject.base
    if base is None:
        stored = any(peft.saved_root(heads, key.module) for key in saved.values())
        return ([] if stored or set(heads) & set(declared) else [f"{heads[0]}.weight"]), False
    for root in peft.saved_modules(heads, base):
        expected = member.parameters_of(root)
        missing = [name for name in expected if name not in saved]
        if missing and (
            not peft.saves(declared, root) or (set(heads) <= set(declared) and len(missing) == len(expected))
        ):
            return missing, len(missing) < len(expected)
    return [], False
