"""AL221."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, unknown
from adapterlint.model import schema
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.noncanonical_prefix import VERA, vera_tensors


class UntoldMethod(Rule):
    """## What it does
    Says where config, tensor names and shapes do not tell what PEFT will make of an adapter: methods that depend on
    the base's values or hold models of their own (`ADAMSS`, `SHADOW`, `XLORA`, `ADAPTION_PROMPT`), and layers, such as
    convolutions, whose tensors a method lays out in ways that are not in the tables.

    ## Why is this bad?
    It may load, or not: the verdict is unknown.

    ## Example
    `{"peft_type": "XLORA"}`

    ## Fix
    None: `adapterlint verify` loads it with the PEFT that is installed.

    ## References
    - PEFT `tuners/adamss`, `tuners/shadow`, `tuners/xlora`, `tuners/adaption_prompt`.
    """

    code = "AL221"
    name = "untold-method"
    needs = ("config", "header")
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("LoRA", lora_config(), llama_tensors(), llama_base()),
            Example("in the table", VERA, vera_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        stem = "base_model.model.down_blocks.0.resnets.0.conv1"
        conv = {f"{stem}.hada_w1_a": ("F32", (4, 8)), f"{stem}.hada_t1": ("F32", (4, 4, 3, 3))}
        loha = {"peft_type": "LOHA", "r": 4, "target_modules": ["conv1"]}
        router = {"base_model.internal_xlora_classifier.layers.0.weight": ("F32", (4, 16))}
        return [
            Example("X-LoRA", {"peft_type": "XLORA"}, router),
            Example("a convolution", loha, conv),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if adapter.is_lora or schema.config_type(adapter.peft_type) is None or not adapter.tensors:
            return
        held = subject.held
        if held is None:
            yield self.finding(
                f"what PEFT looks for in the file of a {adapter.peft_type} adapter cannot be told from config and base",
                subject.at_field("peft_type"),
                effects=(unknown(),),
            )
        elif held.untold:
            yield self.finding(
                f"what {adapter.peft_type} looks for cannot be told for {first_names(dict.fromkeys(held.untold))}",
                subject.at_field("target_modules"),
                effects=(unknown(held.targets),),
            )
