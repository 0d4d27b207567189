"""AL520."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import SetSubject
from adapterlint.model.together import saved_sets
from adapterlint.model.wrapping import Contested, contested
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    SetExample,
    bert_base,
    bert_config,
    bert_tensors,
    lora_pair,
)

_DENSE = "base_model.model.bert.pooler.dense"
_POOLER = {f"{_DENSE}.weight": ("F32", (16, 16)), f"{_DENSE}.bias": ("F32", (16,))}


class ContestedModule(SetRule):
    """## What it does
    Looks, in a set, for a module that one adapter saves whole and another changes by LoRA.

    ## Why is this bad?
    PEFT cannot put LoRA on the wrapper of a saved module, nor wrap a LoRA layer: loading the second of the two raises.
    Where the saved module is a block of layers, LoRA goes into its copies, and the second adapter's tensors are lost.

    ## Example
    One adapter with `"modules_to_save": ["lm_head"]`, another with `lm_head` among its `target_modules`.

    ## Fix
    None that keeps both on one model: train them alike, or load them apart.

    ## References
    - PEFT `tuners/lora/model.py`, `utils/other.py`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL520"
    name = "contested-module"
    severity = Severity.ERROR
    drops = True

    @staticmethod
    def valid() -> list[AnyExample]:
        saving, changing = _members()
        return [
            SetExample("both save it", {"a": saving, "b": saving}, bert_base()),
            SetExample("both change it", {"a": changing, "b": changing}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        saving, changing = _members()
        block = saving._replace(config=bert_config(modules_to_save=["pooler"]))
        return [
            SetExample("saved first", {"a": saving, "b": changing}, bert_base()),
            SetExample("changed first", {"b": changing, "a": saving}, bert_base()),
            SetExample("a block saved first", {"a": block, "b": changing}, bert_base()),
            SetExample("a block saved second", {"b": changing, "a": block}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        if not subject.all_lora:
            return
        found = list(contested(subject))
        early = [item for item in contested(subject, legacy=True) if item.outcome == "wrapper"]
        if not found and not early:
            return
        item = (found or early)[0]
        both = f"{item.later.adapter.name} " + ("" if item.outcome.startswith("own") else "and an earlier adapter ")
        yield self.finding(
            f"{both}contest {item.module}: {item.root} is saved whole, and LoRA is to change it as well",
            item.later.at_field("modules_to_save" if item.outcome in ("layer", "block") else "target_modules"),
            effects=(
                *_early(early),
                *(effect for item in _each(found) for effect in (*_effects(item), *_saving(subject, item))),
            ),
            severity=Severity.ERROR if found else Severity.NOTE,
            adapters=subject.paths,
        )


def _each(found: list[Contested]) -> list[Contested]:
    """The first of each kind; of LoRA that is lost, only what the file has tensors for."""
    kinds: dict[str, Contested] = {}
    for item in found:
        if item.outcome != "copies" or item.module in item.later.adapter.modules:
            kinds.setdefault(item.outcome, item)
    return list(kinds.values())


def _early(found: list[Contested]) -> Iterator[Effect]:
    for item in found[:1]:
        yield raises("peft<0.6", _refused(item), adapter=item.later.adapter.name)


def _effects(item: Contested) -> Iterator[Effect]:
    name = item.later.adapter.name
    if item.outcome == "wrapper":
        yield raises("peft>=0.6", _refused(item), adapter=name)
    elif item.outcome == "copies":
        yield wrong("peft>=0.6", stage="after_switch", adapter=name)
    elif item.outcome == "own":
        part = item.module[len(item.root) + 1 :].split(".")[0]
        yield raises("peft>=0.6,<0.14", f"AttributeError: ModulesToSaveWrapper has no attribute `{part}`", adapter=name)
    elif item.outcome == "own-copies":
        yield wrong("peft>=0.6,<0.15", stage="after_switch", adapter=name)
    elif item.outcome == "layer":
        text = "TypeError: modules_to_save cannot be applied to modules of type <class 'peft.tuners.lora.layer.Linear'>"
        yield raises("peft>=0.13", text, adapter=name)
    else:
        yield raises("peft>=0.15", f"KeyError: '{PREFIX}{item.module}.base_layer.weight'", adapter=name)


def _saving(subject: SetSubject, item: Contested) -> Iterator[Effect]:
    """Since 0.20 what LoRA put into another adapter's copy is taken for a part of it, and not found in the file."""
    if item.outcome != "copies":
        return
    names = zip(subject.members, saved_sets(subject, heads_for_all=True).saved, strict=True)
    owner = next(member.adapter.name for member, saved in names if item.root in saved)
    part = item.module[len(item.root) + 1 :]
    if not item.later.selection(f"{item.root}.modules_to_save.{owner}.{part}"):
        yield wrong("peft>=0.6", operation="save", adapter=item.later.adapter.name)
        return
    text = f"KeyError: 'modules_to_save.{owner}.{part}.lora_A.{item.later.adapter.name}.weight'"
    yield raises("peft>=0.20", text, operation="save", adapter=owner)


def _refused(item: Contested) -> str:
    return f"ValueError: Target module ModulesToSaveWrapper is not supported: {item.module}"


def _members() -> tuple[Example, Example]:
    saving = Example("a", bert_config(modules_to_save=["pooler.dense"]), {**bert_tensors(), **_POOLER})
    config = bert_config(target_modules=["query", "value", "pooler.dense"])
    return saving, Example("b", config, {**bert_tensors(), **lora_pair("bert.pooler.dense")})
