"""AL514."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, inert, raises
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.uncovered_tensor import matches_nothing

_TAIL = "not found in the base model. Please check the target modules and try again."


class UnmatchedTargets(SetRule):
    """## What it does
    Looks, in a set, for adapters whose `target_modules` select nothing.

    ## Why is this bad?
    Alone such an adapter raises. Loaded after another one, PEFT 0.14 to 0.20 does not notice: it counts the first
    adapter's modules too, and the later one answers as the base does.

    ## Example
    `"target_modules": []` in the second adapter.

    ## Fix
    None of its own: AL205 rebuilds the list from the stored tensors (safe).

    ## References
    - PEFT `tuners/tuners_utils.py`, `inject_adapter`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL514"
    name = "unmatched-targets"
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", lora_config(), llama_tensors())
        inner = Example("c", lora_config(target_modules=r".*\.[qv]_proj"), llama_tensors())
        return [
            SetExample("both match", {"a": plain, "b": plain}, llama_base()),
            SetExample("an expression", {"a": plain, "c": inner}, llama_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", lora_config(), llama_tensors())
        empty = Example("b", lora_config(target_modules=[]), llama_tensors())
        rooted = Example("c", lora_config(target_modules=r"model\.layers\.\d+\.self_attn\.[qv]_proj"), llama_tensors())
        return [
            SetExample("the second matches nothing", {"a": plain, "b": empty}, llama_base()),
            SetExample("the second's expression begins at the model's root", {"a": plain, "c": rooted}, llama_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        for number, member in enumerate(subject.members):
            adapter = member.adapter
            if number and _rooted(member):
                yield self.finding(
                    f"target_modules of {adapter.name} begin at the model's root, where PEFT 0.6 has its own prefix in "
                    "a second adapter",
                    member.at_field("target_modules"),
                    effects=(raises("peft>=0.6,<0.7", f"ValueError: {peft.not_found(adapter.get('target_modules'))}"),),
                    severity=Severity.NOTE,
                    adapters=subject.paths,
                )
            if not adapter.is_lora or not adapter.readable or not adapter.modules or not matches_nothing(member):
                continue
            text = f"ValueError: Target modules {_TAIL}"
            window = "peft>=0.14,<0.21"
            yield self.finding(
                f"target_modules of {adapter.name} select no module",
                member.at_field("target_modules"),
                effects=(
                    inert(window, stage="after_switch", adapter=adapter.name) if number else raises(window, text),
                ),
                adapters=subject.paths,
            )


def _rooted(member: Subject) -> bool:
    """Whether a regular expression matches modules, but none with PEFT's prefix."""
    if not member.adapter.is_lora or not isinstance(member.adapter.get("target_modules"), str):
        return False
    modules = member.layers
    return member.selection.known and bool(modules) and not any(member.selection(PREFIX + m) for m in modules)
