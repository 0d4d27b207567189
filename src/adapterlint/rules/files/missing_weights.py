"""AL002."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE, Finding, Severity, raises
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config, safetensors_bytes
from adapterlint.rules.files.foreign_format import no_weights, recognise
from adapterlint.rules.files.misplaced_weights import misplaced


class MissingWeights(Rule):
    """## What it does
    Looks for an `adapter_config.json` without `adapter_model.safetensors` or `adapter_model.bin`. A directory that was
    only found below the given path gets a note: many repositories keep configs without weights on purpose.

    ## Why is this bad?
    PEFT then takes the path for a name on the Hub. An absolute path raises `HFValidationError: Repo id must be in the
    form ...`; a short relative one makes it go to the network.

    ## Example
    A directory that holds `adapter_config.json` alone, as a repository does whose `.gitignore` names the weights.

    ## Fix
    None: copy the weights from where they were trained.

    ## References
    - PEFT `utils/save_and_load.py`, `load_peft_weights`; LlamaFactory#2304; measured on 0.4.0 to 0.21.2.
    """

    code = "AL002"
    name = "missing-weights"
    needs = ("files",)
    severity = Severity.ERROR
    damage = "files"

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("config and weights", lora_config(), llama_tensors()),
            Example("weights under another name", lora_config(), llama_tensors(), weights="model.safetensors"),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        model = safetensors_bytes(llama_base().tensors)
        return [
            Example("config alone", lora_config()),
            Example("only a model beside it", lora_config(), files={"model.safetensors": model}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if not adapter.has_config or adapter.weights_file is not None:
            return
        if misplaced(adapter) or recognise(adapter) is not None:
            return
        message = f"there is neither {SAFETENSORS_FILE} nor {PICKLE_FILE} beside the config"
        for problem in adapter.weights_problems:
            if problem.kind == "broken-link" and problem.detail in (SAFETENSORS_FILE, PICKLE_FILE):
                message += f": {problem.message}"
        yield self.finding(
            message,
            subject.at_directory(),
            effects=(raises("peft", no_weights(adapter)),),
            ceiling=Severity.ERROR if adapter.explicit else Severity.NOTE,
        )
