"""AL007."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE, ConvertWeights, Finding, Fix, Safety, Severity
from adapterlint.model.adapter import Adapter
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.tensor import STORED_DTYPES, Tensor
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.torchbytes import torch_bytes

if TYPE_CHECKING:
    from adapterlint.reading.problems import Problem

_UNMOVABLE = frozenset({"special-tensor", "big-endian", "deflated"})


class PickleWeights(Rule):
    """## What it does
    Notes that the weights are stored as `adapter_model.bin` only.

    ## Why is this bad?
    PEFT loads it, on every release. But the file is a pickle, which older versions of torch run as a program, and
    several consumers (OpenVINO, Ollama, Cloudflare, local paths of TGI) take safetensors only.

    ## Example
    `adapter_config.json` beside `adapter_model.bin`.

    ## Fix
    Move the tensors to `adapter_model.safetensors`, byte for byte. Nothing is unpickled: where each tensor's bytes lie
    follows from the description in the pickle. Being a note, it is made when asked for (`fix --select AL007`), or
    along with a fix that changes tensors.

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
            fix=_fix(adapter),
        )


def _fix(adapter: Adapter) -> Fix:
    reason = unmovable(adapter.weights_problems, adapter.tensors)
    if reason is not None:
        title = f"Load it where the file may be trusted and save it as {SAFETENSORS_FILE}, which cannot be done here"
        return Fix(f"{title}: {reason}", Safety.DISPLAY)
    lost = [problem.tensor or "" for problem in adapter.weights_problems if problem.kind == "non-tensor-entry"]
    title = f"Move the {len(adapter.tensors)} tensors to {SAFETENSORS_FILE}, without unpickling"
    if lost:
        title += f"; what is no tensor is dropped: {first_names(lost)}"
    return Fix(title, Safety.UNSAFE if lost else Safety.SAFE, (ConvertWeights((PICKLE_FILE,)),))


def unmovable(problems: Iterable[Problem], tensors: Mapping[str, Tensor]) -> str | None:
    """Why the tensors of a torch file cannot be moved as they are, as far as its description tells; else None."""
    reason = next((problem.message for problem in problems if problem.kind in _UNMOVABLE), None)
    if reason is not None:
        return reason
    odd = next((tensor for tensor in tensors.values() if tensor.dtype not in STORED_DTYPES), None)
    return f"safetensors has no dtype for {odd.name}, which is {odd.dtype}" if odd else None
