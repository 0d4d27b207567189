"""AL001."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import CONFIG_FILE, Finding, Severity, raises, unknown
from adapterlint.model.adapter import Adapter
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, safetensors_bytes
from adapterlint.rules.files.foreign_format import cannot_find_config, recognise


class MissingConfig(Rule):
    """## What it does
    Looks for weights without an `adapter_config.json` beside them.

    ## Why is this bad?
    PEFT builds the layers from the config before it looks at the weights. Without it every release raises
    `ValueError: Can't find 'adapter_config.json' at ...`.

    ## Example
    A directory that holds `adapter_model.safetensors` alone.

    ## Fix
    None: rank, scale and target modules do not all follow from the tensors. Copy the config from the training run.

    ## References
    - peft#340, peft#420; measured on 0.4.0 to 0.21.2.
    """

    code = "AL001"
    name = "missing-config"
    needs = ("files",)
    severity = Severity.ERROR
    damage = "config"

    @staticmethod
    def valid() -> list[AnyExample]:
        nested = {"first/adapter_config.json": b"{}", "first/adapter_model.safetensors": safetensors_bytes({})}
        return [
            Example("config and weights", lora_config(), llama_tensors()),
            Example("a directory above adapters", files=nested),
            Example("another tool's adapter", files={"adapter.gguf": b"GGUF"}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("weights alone", tensors=llama_tensors()),
            Example("a config under another name", tensors=llama_tensors(), files={"adapter_config (1).json": b"{}"}),
            Example("weights under another name", tensors=llama_tensors(), weights="model.safetensors"),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if adapter.has_config or recognise(adapter) is not None:
            return
        hidden = next((problem for problem in adapter.weights_problems if problem.kind == "unlistable"), None)
        if hidden is not None:
            effects = (unknown(missing=("config", "weights")),)
            yield self.finding(hidden.message, subject.at_directory(), effects=effects, damage="files")
            return
        yield self.finding(
            _message(adapter), subject.at_directory(), effects=(raises("peft", cannot_find_config(adapter)),)
        )


def _message(adapter: Adapter) -> str:
    beside = adapter.weights_file or first_names(adapter.other_tensors) or first_names(adapter.files)
    message = f"there is no {CONFIG_FILE}" + (f" beside {beside}" if beside else "")
    for problem in adapter.weights_problems:
        if problem.kind == "broken-link" and problem.detail == CONFIG_FILE:
            return f"{message}: {problem.message}"
    similar = [name for name in adapter.files if name.lower().startswith("adapter_config") and name.endswith("json")]
    return f"{message}; is it {first_names(similar)}?" if similar else message
