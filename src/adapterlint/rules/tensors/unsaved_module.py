"""AL210."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import CopyTensor, Effect, Finding, Fix, Safety, Severity, raises, unknown, wrong
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX, Key
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    bert_base,
    bert_config,
    bert_tensors,
    llama_tensors,
    lora_config,
)

_ALWAYS_THERE = ("lm_head", "embed_tokens")


class UnsavedModule(Rule):
    """## What it does
    Looks for modules that `modules_to_save` declares and whose tensors are not, or not all, in the file.

    ## Why is this bad?
    From 0.15 on PEFT looks every one of them up by name and raises a KeyError. Before, the module keeps the base's
    values without a word.

    ## Example
    `"modules_to_save": ["lm_head"]` and no `lm_head.weight`; or `classifier.weight` without `classifier.bias`.

    ## Fix
    Unsafe: the missing parameters are copied from the base, which is right when they were never trained.

    ## References
    - PEFT `utils/save_and_load.py`, 0.15.0 and later; measured on 0.4.0 to 0.21.2; peft#310.
    """

    code = "AL210"
    name = "unsaved-module"
    needs = ("config", "header")
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        head = {
            "base_model.model.classifier.weight": ("F32", (3, 16)),
            "base_model.model.classifier.bias": ("F32", (3,)),
        }
        typed = bert_config(task_type="SEQ_CLS", modules_to_save=["classifier", "score"])
        nothing = bert_config(modules_to_save=["no_such_module"])
        return [
            Example("stored", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **head}, bert_base()),
            Example("score is not in the base", typed, {**bert_tensors(), **head}, bert_base()),
            Example("a name that matches nothing", nothing, bert_tensors(), bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        weight = {"base_model.model.classifier.weight": ("F32", (3, 16))}
        config = bert_config(modules_to_save=["classifier"])
        return [
            Example("no tensor at all", config, bert_tensors(), bert_base()),
            Example("the bias is missing", config, {**bert_tensors(), **weight}, bert_base()),
            Example("a head that every language model has", lora_config(modules_to_save=["lm_head"]), llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if subject.base is not None:
            yield from self._against_base(subject)
            return
        for number, name in enumerate(subject.adapter.names("modules_to_save")):
            if not any(peft.saved_root((name,), key.module) for key in subject.adapter.saved.values()):
                yield from self._without_base(subject, number, name)

    def _against_base(self, subject: Subject) -> Iterator[Finding]:
        assert subject.base is not None
        declared = subject.adapter.names("modules_to_save")
        heads = peft.implied_heads(subject.adapter)
        for root in subject.saved_modules:
            expected = list(subject.base.under(root))
            missing = [name for name in expected if not _stored(subject, name)]
            if not missing or (
                len(missing) == len(expected) and peft.saves(heads, root) and not _names_only(declared, root)
            ):
                continue  # nothing missing, or a whole implied head: AL215
            yield self.finding(
                f"modules_to_save covers {root} but {'none' if len(missing) == len(expected) else 'not all'} of its "
                f"tensors are stored; missing: {first_names(missing)}",
                subject.at_field("modules_to_save"),
                effects=_effects(missing, nothing=len(missing) == len(expected)),
                related=tuple(subject.at_tensor(key.name, "stored") for key in _siblings(subject, root)[:1]),
                fix=_fill(subject, missing),
                severity=Severity.ERROR,
            )

    def _without_base(self, subject: Subject, number: int, name: str) -> Iterator[Finding]:
        heads = peft.implied_heads(subject.adapter)
        if name in heads and any(peft.saved_root(heads, key.module) for key in subject.adapter.saved.values()):
            return
        sure = name.rpartition(".")[2] in _ALWAYS_THERE
        effects = _effects([f"{name}.weight"], nothing=True) if sure else ()
        yield self.finding(
            f"modules_to_save declares {name!r} but no stored tensor belongs to it"
            + ("" if sure else "; harmless only if the base has no such module"),
            subject.at_config(f"/modules_to_save/{number}"),
            effects=effects,
        )


def _stored(subject: Subject, parameter: str) -> bool:
    """Whether a parameter is in the file under any spelling: other rules report the spelling."""
    return parameter in subject.adapter.saved


def _names_only(declared: tuple[str, ...], root: str) -> bool:
    """Whether the config names the module itself, not only through PEFT's pair of head names."""
    return peft.saves(declared, root) and not {"classifier", "score"} <= set(declared)


def _siblings(subject: Subject, root: str) -> list[Key]:
    return [key for name, key in subject.adapter.saved.items() if name.startswith(root + ".")]


def _effects(missing: list[str], nothing: bool) -> tuple[Effect, ...]:
    """A module without any tensor may never have been trained; one with some was, and the rest is lost."""
    old = unknown("peft<0.15", missing=("weights",)) if nothing else wrong("peft<0.15")
    return old, raises("peft>=0.15", f"KeyError: '{PREFIX}{missing[0]}'")


def _fill(subject: Subject, missing: list[str]) -> Fix:
    base = subject.base
    assert base is not None
    edits = []
    for name in missing:
        tensor = base.parameters.get(name) or base.under(name.rpartition(".")[0]).get(name)
        if tensor is None:
            return Fix("Save the module, or take it out of modules_to_save", Safety.DISPLAY)
        edits.append(CopyTensor(PREFIX + name, tensor.name))
    return Fix(f"Copy {len(edits)} tensors from the base", Safety.UNSAFE, tuple(edits))
