"""AL009."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE, ConvertWeights, Finding, Fix, Safety, Severity
from adapterlint.model.adapter import Adapter
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.files.empty_adapter import nothing_loaded
from adapterlint.rules.files.pickle_weights import unmovable
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
    Move the tensors of the inner dictionary to `adapter_model.safetensors`, byte for byte and without unpickling. The
    rest of the file is dropped, so it is unsafe if there is any.

    ## References
    - Measured on 0.4.0 to 0.21.2.
    """

    code = "AL009"
    name = "nested-state-dict"
    needs = ("config", "header")
    severity = Severity.ERROR
    damage = "files"

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
            fix=_fix(adapter),
        )


def _fix(adapter: Adapter) -> Fix:
    key = adapter.nested_under
    reason = unmovable(adapter.weights_problems, adapter.nested)
    if reason is not None:
        title = f"Save the dictionary under {key!r} as {SAFETENSORS_FILE}, which cannot be done here: {reason}"
        return Fix(title, Safety.DISPLAY)
    others = [problem.tensor for problem in adapter.weights_problems if problem.kind == "non-tensor-entry"]
    lost = [name for name in others if name and name != key]
    title = f"Move the {len(adapter.nested)} tensors under {key!r} to {SAFETENSORS_FILE}, without unpickling"
    if lost:
        title += f"; the rest is dropped: {first_names(lost)}"
    return Fix(title, Safety.UNSAFE if lost else Safety.SAFE, (ConvertWeights((PICKLE_FILE,), under=key),))
