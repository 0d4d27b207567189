"""AL501."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Location, Safety, raises, wrong
from adapterlint.model import peft
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.model.together import SavedSets, saved_sets
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_POOLER = {
    "base_model.model.bert.pooler.dense.weight": ("F32", (16, 16)),
    "base_model.model.bert.pooler.dense.bias": ("F32", (16,)),
}


class DifferingSavedModules(SetRule):
    """## What it does
    Compares the modules that the adapters of a set save whole (`modules_to_save`, and the heads that a task type
    implies), after leaving out names that match nothing in the base.

    ## Why is this bad?
    PEFT keeps one wrapper per saved module for all adapters, and gets the bookkeeping wrong when they differ: 0.6 to
    0.10 raise in `set_adapter` (0.6 already while loading, where the first adapter saves nothing), 0.11 to 0.14 answer
    with the wrong head for good, 0.15 to 0.17 until `set_adapter` is called again. Release 0.18 and later load and
    switch rightly, but merging (0.18 to 0.20), mixed batches, hotswap, deleting and weighted merges still go wrong.

    ## Example
    One adapter with `"modules_to_save": ["classifier"]`, one with `["pooler"]`, one with none.

    ## Fix
    Safe with `--base`: the `union` form. Every adapter declares the union of the modules by leaf names, and what an
    adapter lacks is copied from the base.

    ## References
    - PEFT 48e0c5de7 (0.15.0), 13fa0aea7 (0.18.0), 3af2ad701 (0.21.0); measured on 0.4.0 to 0.21.2.
    """

    code = "AL501"
    name = "differing-saved-modules"
    damage = "active"

    @staticmethod
    def valid() -> list[AnyExample]:
        same = Example("a", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        score = Example("b", bert_config(modules_to_save=["score", "classifier"]), {**bert_tensors(), **_CLASSIFIER})
        none = Example("c", bert_config(), bert_tensors())
        return [
            SetExample("equal after names that match nothing", {"a": same, "b": score}, bert_base()),
            SetExample("none saves anything", {"a": none, "b": none}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = Example("a", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        pooler = Example("b", bert_config(modules_to_save=["pooler"]), {**bert_tensors(), **_POOLER})
        none = Example("c", bert_config(), bert_tensors())
        return [
            SetExample("different modules", {"a": head, "b": pooler}, bert_base()),
            SetExample("one saves nothing", {"a": head, "b": none}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        if not subject.all_lora:
            return
        now = saved_sets(subject, heads_for_all=True)
        before = saved_sets(subject, heads_for_all=False)
        if len(set(now.saved)) == 1 and len(set(before.saved)) == 1:
            return
        listed = ", ".join(f"{member.adapter.name}: {_said(member)}" for member in subject.members)
        yield self.finding(
            f"the adapters of this set save different modules ({listed})",
            subject.members[0].at_field("modules_to_save", now.names[0]),
            related=tuple(_places(subject)),
            effects=(*_old_effects(subject, before), *_effects(subject, now)),
            fix=Fix("Give every adapter the union of the saved modules", Safety.SAFE, form="union"),
            adapters=subject.paths,
        )


def _said(member: Subject) -> str:
    """What a member saves, in the config's own words as far as they match anything."""
    names = [name for name in member.saved_names if any(peft.saves((name,), root) for root in member.saved_modules)]
    return " and ".join(names) or "none"


def _places(subject: SetSubject) -> Iterator[Location]:
    for member in subject.members[1:]:
        yield member.at_field("modules_to_save", member.adapter.name)


def _old_effects(subject: SetSubject, before: SavedSets) -> Iterator[Effect]:
    """PEFT up to 0.10, where only the first adapter gets the heads of its task class."""
    if before.first_overruled() or _undeclared_head(subject):
        yield wrong("peft<0.6", adapter=before.names[0])
    lacking = before.lacking()
    if lacking is None:
        return
    name, module = lacking
    if not before.listed[0] and before.union:
        text = "AttributeError: 'NoneType' object has no attribute 'update'"
        yield raises("peft>=0.6,<0.7", text, adapter=_first_saving(before))
    yield raises(
        "peft>=0.6,<0.11",
        f"ValueError: Adapter {name} not found in dict_keys({before.holders(module)})",
        stage="switch",
        adapter=name,
    )


def _undeclared_head(subject: SetSubject) -> bool:
    """Whether a later adapter stores the task head without declaring it: only the first one's is declared for it."""
    heads = peft.implied_heads(subject.members[0].adapter)
    return any(
        peft.saved_root(heads, key.module) and not peft.saved_root(member.adapter.names("modules_to_save"), key.module)
        for member in subject.members[1:]
        for key in member.adapter.saved.values()
    )


def _first_saving(sets: SavedSets) -> str:
    return next(name for name, saved in zip(sets.names, sets.saved, strict=True) if saved)


def _effects(subject: SetSubject, now: SavedSets) -> Iterator[Effect]:
    lacking = now.lacking()
    if lacking is not None:
        yield wrong("peft>=0.11,<0.15", stage="after_switch", adapter=lacking[0])
    if now.first_overruled():
        yield wrong("peft>=0.15,<0.18", adapter=now.names[0])
