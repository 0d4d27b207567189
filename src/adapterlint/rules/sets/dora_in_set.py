"""AL522."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises
from adapterlint.model.subject import SetSubject
from adapterlint.model.together import has_dora
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, llama_base, llama_tensors, lora_config

_VECTOR = "lora_magnitude_vector"


class DoraInSet(SetRule):
    """## What it does
    Looks for two DoRA adapters that change the same module.

    ## Why is this bad?
    PEFT 0.9 to 0.11 makes a new table of magnitude vectors for every DoRA adapter, and the earlier one's vector is
    gone: its first forward pass raises.

    ## Example
    Two adapters with `"use_dora": true` on `q_proj`.

    ## Fix
    None in the files: use PEFT 0.12 or newer.

    ## References
    - PEFT 0.9 to 0.11, `tuners/lora/layer.py`, `dora_init`; measured on 0.10.0 to 0.12.0.
    """

    code = "AL522"
    name = "dora-in-set"
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        query, value = _member("q_proj"), _member("v_proj")
        plain = Example("c", lora_config(), llama_tensors())
        return [
            SetExample("apart", {"a": query, "b": value}, llama_base()),
            SetExample("one", {"a": query, "c": plain}, llama_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [SetExample("the same module", {"a": _member("q_proj"), "b": _member("q_proj")}, llama_base())]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        members = [member for member in subject.members if member.adapter.is_lora and has_dora(member)]
        for number, member in enumerate(members):
            own = member.layers
            later = next((other for other in members[number + 1 :] if own & other.layers), None)
            if later is None:
                continue
            name = member.adapter.name
            yield self.finding(
                f"{name} and {later.adapter.name} are DoRA adapters of the same modules, such as "
                + min(own & later.layers),
                member.at_field("use_dora"),
                related=(later.at_field("use_dora", later.adapter.name),),
                effects=(
                    raises(
                        "peft>=0.9,<0.12",
                        f"AttributeError: 'ParameterDict' object has no attribute '{name}'",
                        stage="after_load",
                        adapter=name,
                    ),
                ),
                adapters=subject.paths,
            )
            return


def _member(leaf: str) -> Example:
    tensors = dict(llama_tensors(leaves=(leaf,)))
    for name in list(tensors):
        if name.endswith("lora_A.weight"):
            tensors[name.replace("lora_A.weight", _VECTOR)] = ("F32", (16,))
    return Example(leaf, lora_config(use_dora=True, target_modules=[leaf]), tensors)
