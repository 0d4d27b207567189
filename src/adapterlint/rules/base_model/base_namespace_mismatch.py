"""AL401."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Outcome, RenameTensor, Safety, Severity
from adapterlint.model.keys import Key
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config, renamed
from adapterlint.rules.tensors.uncovered_tensor import matches_nothing, nothing_matches


class BaseNamespaceMismatch(Rule):
    """## What it does
    Compares the modules that have LoRA tensors with the modules of the base, and reports when not one of them exists.

    ## Why is this bad?
    PEFT drops every tensor and the base answers alone; where the targets match nothing either, it raises.

    ## Example
    Keys of a text model (`model.layers…`) on a multimodal wrapper (`language_model.model.layers…`), or of the headless
    model (`layers…`) on the one with a head (`model.layers…`).

    ## Fix
    Unsafe: the tensors are renamed, where the base has exactly one series of modules with the same last name, the same
    layer numbers and the same dimensions for each of the adapter's. That this is the base on which it was trained, no
    file proves. None where a module has no such counterpart, or several.

    ## References
    - vllm#34186, sglang#25913; measured on 0.4.0 to 0.21.2.
    """

    code = "AL401"
    name = "base-namespace-mismatch"
    needs = ("config", "header", "base")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("the right base", lora_config(), llama_tensors(), llama_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        wrong_level = renamed(llama_tensors(), lambda name: name.replace("model.model.model.", "model.model."))
        other = renamed(llama_tensors(), lambda name: name.replace("self_attn", "attn"))
        strange = renamed(llama_tensors(), lambda name: name.replace("q_proj", "to_q").replace("v_proj", "to_v"))
        return [
            Example("one level too high", lora_config(), wrong_level, llama_base()),
            Example("another name in between", lora_config(), other, llama_base()),
            Example("nothing alike", lora_config(target_modules=["to_q", "to_v"]), strange, llama_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if subject.base is None or not subject.in_base or any(subject.in_base.values()):
            return
        modules = list(subject.in_base)
        if matches_nothing(subject):
            effects = tuple(nothing_matches(subject))
        else:
            effects = (Effect(Outcome.WRONG, "peft", stage="after_load", inert=not subject.adapter.saved),)
        yield self.finding(
            f"applies to 0 of {len(modules)} modules of {subject.base.path}: it has no {first_names(modules)}",
            subject.at_tensor(first_key(subject, modules[0]).name),
            effects=effects,
            fix=_move(subject),
        )


def _move(subject: Subject) -> Fix | None:
    from adapterlint.model.namespace import counterparts  # needed for a broken adapter only

    found = counterparts(subject)
    if found is None:
        return None
    renames = tuple(RenameTensor(old, new) for old, new in found.items() if old != new)
    return Fix(f"Rename {len(renames)} tensors to the modules that the base has", Safety.UNSAFE, renames)


def first_key(subject: Subject, module: str) -> Key:
    """A stored LoRA key of a module."""
    return next(iter(subject.adapter.modules[module].by_kind.values()))
