"""AL502."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, unknown, wrong
from adapterlint.model import peft
from adapterlint.model.keys import Key, Kind
from adapterlint.model.subject import SetSubject, Subject, first_names
from adapterlint.model.together import saved_sets, successor_of
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors
from adapterlint.rules.tensors.undeclared_full_tensor import altering_keys

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}


_OWN_KINDS = frozenset({Kind.FULL, Kind.BASE_LAYER})
"""Tensors that may land in parameters of the base."""


class SharedBaseOverwrite(SetRule):
    """## What it does
    Looks, in a set, for members with whole parameters that `modules_to_save` does not declare, and for
    `base_layer.weight` tensors that differ from the base. A task type implies its head for the whole set, but only if
    the first adapter has it.

    ## Why is this bad?
    PEFT writes them into the base that all adapters share: every other adapter changes. If another adapter declared
    the module first, they are dropped instead.

    ## Example
    One adapter with an undeclared `classifier.weight`, loaded beside another.

    ## Fix
    None of its own: AL211 declares the module (safe), and AL501 then gives the set its union (safe with `--base`).

    ## References
    - Measured on 0.4.0 to 0.21.2.
    """

    code = "AL502"
    name = "shared-base-overwrite"
    damage = "base"
    spares = ("delete",)

    @staticmethod
    def valid() -> list[AnyExample]:
        head = Example("a", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        typed = Example("c", bert_config(task_type="SEQ_CLS"), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("declared", {"a": head, "b": head}, bert_base()),
            SetExample("implied by the task class of the first", {"c": typed, "a": head}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = Example("a", bert_config(), {**bert_tensors(), **_CLASSIFIER})
        none = Example("b", bert_config(), bert_tensors())
        typed = Example("c", bert_config(task_type="SEQ_CLS"), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("undeclared", {"a": head, "b": none}, bert_base()),
            SetExample(
                "implied by its own task class, but the first adapter has none", {"b": none, "c": typed}, bert_base()
            ),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        for member in subject.members:
            table = member.adapter.table
            if not member.adapter.is_lora or _OWN_KINDS.isdisjoint(table.by_kind):
                continue
            altering = altering_keys(member, _undeclared(subject, member))
            keys = [*(key for key in altering if _disturbs(subject, member, key)), *_altered_layers(member)]
            if keys:
                sure = member.base is not None
                yield self.finding(
                    f"{member.adapter.name} overwrites {len(keys)} parameters of the base that all adapters of the set "
                    f"share: {first_names(key.full_name for key in keys)}",
                    member.at_tensor(keys[0].name),
                    effects=_effects(subject, member, keys) if sure else (unknown(missing=("base",)),),
                    adapters=subject.paths,
                )


def _effects(subject: SetSubject, member: Subject, keys: list[Key]) -> tuple[Effect, ...]:
    """Once the first adapter is deleted the base is right for the one that wrote it, unless a copy is used there."""
    left = successor_of(subject)
    saved = saved_sets(subject, heads_for_all=True).union
    if left is None or (left is member and all(peft.saved_root(saved, key.module) is None for key in keys)):
        return (wrong(adapter=member.adapter.name),)
    return wrong(adapter=member.adapter.name), wrong(operation="delete", adapter=left.adapter.name)


def _undeclared(subject: SetSubject, member: Subject) -> tuple[Key, ...]:
    """Full tensors that nothing declares: heads are implied for all members by the first one's task class alone."""
    heads = peft.implied_heads(subject.members[0].adapter)
    return member.undeclared_but((*member.declared_names, *heads))


def _disturbs(subject: SetSubject, member: Subject, key: Key) -> bool:
    """Whether it matters to the set: not if this one comes first and every other has a copy of its own."""
    number = subject.members.index(member)
    for index, saved in enumerate(saved_sets(subject, heads_for_all=True).saved):
        copied = any(key.module == root or key.module.startswith(root + ".") for root in saved)
        if index != number and (index < number or not copied):
            return True
    return False


def _altered_layers(member: Subject) -> Iterator[Key]:
    for key in member.adapter.of_kind(Kind.BASE_LAYER):
        if key.parameter == "weight" and member.equals_base(key) is False:
            yield key
