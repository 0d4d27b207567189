"""AL521."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, Severity, raises
from adapterlint.model.keys import Kind
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, llama_base, llama_tensors, lora_config

_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj")


class AllLinearInSet(SetRule):
    """## What it does
    Looks for `"target_modules": "all-linear"` in an adapter that is loaded after another one.

    ## Why is this bad?
    PEFT 0.8 to 0.14 count the linear layers inside LoRA layers too, take their names (those of the earlier adapters)
    for targets, and raise.

    ## Example
    Two adapters with `"target_modules": "all-linear"`.

    ## Fix
    None for the set: list the modules in `target_modules` (`fix --target "peft<0.8"` does), or load this adapter first.

    ## References
    - PEFT `tuners/tuners_utils.py`, `_maybe_include_all_linear_layers`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL521"
    name = "all-linear-in-set"
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        plain, every = _members()
        return [SetExample("first", {"a": every, "b": plain}, llama_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain, every = _members()
        return [
            SetExample("second", {"b": plain, "a": every}, llama_base()),
            SetExample("both", {"a": every, "b": every}, llama_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        linear = False
        for member in subject.members:
            if linear and member.adapter.is_lora and _every(member):
                yield self.finding(
                    f"{member.adapter.name} has all-linear targets and is not the first: PEFT 0.8 to 0.14 take the "
                    "layers of earlier adapters for targets",
                    member.at_field("target_modules"),
                    effects=(
                        raises(
                            "peft>=0.8,<0.15",
                            "ValueError: Target module Identity() is not supported.",
                            adapter=member.adapter.name,
                        ),
                    ),
                    fix=Fix("List the modules in target_modules", Safety.DISPLAY),
                    adapters=subject.paths,
                )
                return
            linear = linear or any(key.kind is Kind.LORA_A for key in member.adapter.lora_keys)


def _every(member: Subject) -> bool:
    targets = member.adapter.get("target_modules")
    return isinstance(targets, str) and targets.lower() == "all-linear"


def _members() -> tuple[Example, Example]:
    plain = Example("b", lora_config(), llama_tensors())
    return plain, Example("a", lora_config(target_modules="all-linear"), llama_tensors(leaves=_LINEAR))
