"""AL007."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE, Finding, Fix, Safety, Severity
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.torchbytes import torch_bytes


class PickleWeights(Rule):
    """## What it does
    Notes that the weights are stored as `adapter_model.bin` only.

    ## Why is this bad?
    PEFT loads it, on every release. But the file is a pickle, which older versions of torch run as a program, and
    several consumers (OpenVINO, Ollama, Cloudflare, local paths of TGI) take safetensors only.

    ## Example
    `adapter_config.json` beside `adapter_model.bin`.

    ## Fix
    Load the adapter where the file may be trusted and save it again: PEFT writes safetensors since 0.7.

    ## References
    - peft#546; measured on 0.4.0 to 0.21.2, also with parameters, integers and the format before zip.
    """

    code = "AL007"
    name = "pickle-weights"
    needs = ("files",)
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("safetensors", lora_config(), llama_tensors()),
            Example("unreadable, which another rule tells", lora_config(), files={PICKLE_FILE: b"not a pickle"}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [Example(".bin", lora_config(), files={PICKLE_FILE: torch_bytes(llama_tensors())})]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if not adapter.is_pickle or not adapter.tensors or any(problem.fatal for problem in adapter.weights_problems):
            return
        yield self.finding(
            f"the weights are stored as a pickle ({PICKLE_FILE}): PEFT loads it, but not every consumer does",
            subject.at_file(PICKLE_FILE),
            fix=Fix(f"Save the {len(adapter.tensors)} tensors again as {SAFETENSORS_FILE}", Safety.DISPLAY),
        )
