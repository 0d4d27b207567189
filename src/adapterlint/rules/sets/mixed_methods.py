"""AL512."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises
from adapterlint.model.subject import SetSubject
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, llama_base, llama_tensors, lora_config

_IA3 = {"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": [], "task_type": "CAUSAL_LM"}


class MixedMethods(SetRule):
    """## What it does
    Looks for sets whose adapters have different `peft_type`.

    ## Why is this bad?
    A `PeftModel` holds adapters of one method: the second load raises on every release.

    ## Example
    A LoRA adapter and an IA3 adapter.

    ## Fix
    None in the files. `PeftMixedModel` can combine some methods, for inference only.

    ## References
    - PEFT `peft_model.py`, `add_adapter`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL512"
    name = "mixed-methods"
    severity = Severity.ERROR
    damage = "peft_model"

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", lora_config(), llama_tensors())
        return [SetExample("one method", {"a": plain, "b": plain}, llama_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", lora_config(), llama_tensors())
        ia3 = Example("b", _IA3, {"base_model.model.model.layers.0.self_attn.k_proj.ia3_l": ("F32", (16, 1))})
        return [SetExample("LoRA and IA3", {"a": plain, "b": ia3}, llama_base())]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        first = subject.members[0]
        for member in subject.members[1:]:
            one, other = first.adapter.peft_type, member.adapter.peft_type
            if one and other and one != other:
                yield self.finding(
                    f"{member.adapter.name} is {other}, {first.adapter.name} is {one}: "
                    "one model holds adapters of one method",
                    member.at_field("peft_type"),
                    related=(first.at_field("peft_type", first.adapter.name),),
                    effects=tuple(_effects(one, other, member.adapter.name)),
                    adapters=subject.paths,
                )
                return


def _effects(one: str, other: str, name: str) -> Iterator[Effect]:
    text = "ValueError: Cannot combine adapters with different peft types. Found"
    yield raises("peft<0.6", f"{text} {one} and {other}.", adapter=name)
    yield raises("peft>=0.6", f"{text} PeftType.{one} and PeftType.{other}.", adapter=name)
