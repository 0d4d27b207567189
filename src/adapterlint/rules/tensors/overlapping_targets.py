"""AL216."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, raises
from adapterlint.model import peft
from adapterlint.model.subject import Subject
from adapterlint.model.wrapping import inside_saved
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, bert_base, bert_config, bert_tensors
from adapterlint.rules.tensors.uncovered_tensor import derive_targets, list_targets


class OverlappingTargets(Rule):
    """## What it does
    Looks for LoRA targets inside a module that `modules_to_save` covers.

    ## Why is this bad?
    PEFT 0.6 to 0.13 wraps the container first and then fails on its part. Before and after, the part is left out of
    LoRA, which is right. The same module in both lists is right everywhere.

    ## Example
    `"target_modules": ["dense"]` with `"modules_to_save": ["pooler"]` on Bert, whose pooler holds a `dense`.

    ## Fix
    Safe: `target_modules` lists the modules that have LoRA tensors, when no trained one is inside a saved module.

    ## References
    - Measured on 0.4.0 to 0.21.2.
    """

    code = "AL216"
    name = "overlapping-targets"
    needs = ("config", "header", "base")

    @staticmethod
    def valid() -> list[AnyExample]:
        pooler = _pooler()
        same = bert_config(modules_to_save=["pooler.dense"], target_modules=["query", "value", "pooler.dense"])
        return [
            Example("apart", bert_config(modules_to_save=["pooler"]), {**bert_tensors(), **pooler}, bert_base()),
            Example("the same module", same, {**bert_tensors(), **pooler}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        config = bert_config(modules_to_save=["pooler"], target_modules=["query", "value", "dense"])
        return [Example("inside", config, {**bert_tensors(), **_pooler()}, bert_base())]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        if base is None or not subject.adapter.is_lora:
            return
        for root in subject.saved_modules:
            inside = inside_saved(subject, root)
            if inside:
                part = inside[0][len(root) + 1 :].split(".")[0]
                deep = next((module for module in inside if "." in module[len(root) + 1 :]), None)
                key = f"KeyError: 'base_model.model.{deep}.base_layer.weight'"
                yield self.finding(
                    f"target_modules selects {inside[0]}, which lies inside {root} of modules_to_save",
                    subject.at_field("target_modules"),
                    related=(subject.at_field("modules_to_save", "covers the container"),),
                    effects=(
                        raises(
                            "peft>=0.6,<0.14",
                            f"AttributeError: ModulesToSaveWrapper has no attribute `{part}`",
                            scope="alone",  # in a set: AL520
                        ),
                        *((raises("peft>=0.15,<0.16", key, scope="alone"),) if deep else ()),
                    ),
                    fix=_trained_only(subject),
                )


def _trained_only(subject: Subject) -> Fix | None:
    """The modules with LoRA tensors and no others; a selected module without any is left as the base has it."""
    if any(peft.saved_root(subject.saved_names, module) is not None for module in subject.adapter.modules):
        return None
    names = derive_targets(subject)
    return list_targets(subject, names) if names else None


def _pooler() -> dict[str, tuple[str, tuple[int, ...]]]:
    stem = "base_model.model.bert.pooler.dense"
    return {f"{stem}.weight": ("F32", (16, 16)), f"{stem}.bias": ("F32", (16,))}
