"""AL009."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE, Finding, Fix, Safety, Severity
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.files.empty_adapter import nothing_loaded
from adapterlint.rules.torchbytes import torch_bytes


class NestedStateDict(Rule):
    """## What it does
    Looks for an `adapter_model.bin` whose tensors are not at the top level but in a dictionary under a key, such as
    `state_dict` or `model`.

    ## Why is this bad?
    To PEFT the file holds one unexpected entry, which it drops. Nothing is loaded, and the base answers alone.

    ## Example
    `{"state_dict": {"base_model.model....lora_A.weight": ...}}`

    ## Fix
    Load the file with torch, take the inner dictionary, and save it as safetensors.

    ## References
    - Measured on 0.4.0 to 0.21.2.
    """

    code = "AL009"
    name = "nested-state-dict"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("flat", lora_config(), files={PICKLE_FILE: torch_bytes(llama_tensors())})]

    @staticmethod
    def invalid() -> list[AnyExample]:
        nested = torch_bytes(llama_tensors(), under="state_dict")
        return [Example("under state_dict", lora_config(), files={PICKLE_FILE: nested})]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if adapter.tensors or not adapter.nested:
            return
        key = adapter.nested_under
        yield self.finding(
            f"all {len(adapter.nested)} tensors are in a dictionary under the key {key!r}, where PEFT does not look",
            subject.at_file(PICKLE_FILE),
            effects=nothing_loaded(adapter),
            fix=Fix(f"Save the dictionary under {key!r} as {SAFETENSORS_FILE}", Safety.DISPLAY),
        )
