"""AL010."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE, Finding, Fix, RemoveFile, Safety, Severity
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.tensor import Tensor
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.torchbytes import torch_bytes


class TwoWeightFiles(Rule):
    """## What it does
    Looks for `adapter_model.safetensors` and `adapter_model.bin` in one directory, and compares them. Equal tensors
    are a note, different ones a warning.

    ## Why is this bad?
    PEFT reads the safetensors file and never mentions the other. Other consumers (exllamav2) read the `.bin`: the
    same directory is then two adapters.

    ## Example
    A directory saved with PEFT 0.6, trained on and saved again with PEFT 0.14.

    ## Fix
    Where both hold the same tensors, byte for byte, remove the `.bin` (a note: made when asked for by `fix --select
    AL010`). Else remove the file that is not meant: which one, only you can tell.

    ## References
    - PEFT `utils/save_and_load.py`, `load_peft_weights`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL010"
    name = "two-weight-files"
    needs = ("files",)
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("one file", lora_config(), llama_tensors()),
            Example("training arguments beside", lora_config(), llama_tensors(), files={"training_args.bin": b"PK"}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        same, other = torch_bytes(llama_tensors()), torch_bytes(llama_tensors(8))
        return [
            Example("the same tensors", lora_config(), llama_tensors(), files={PICKLE_FILE: same}),
            Example("another rank", lora_config(), llama_tensors(), files={PICKLE_FILE: other}),
            Example("a broken file beside", lora_config(), llama_tensors(), files={PICKLE_FILE: b"lost"}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if len(adapter.candidates) < 2 or any(problem.fatal for problem in adapter.weights_problems):
            return
        rival = adapter.other_tensors.get(PICKLE_FILE)
        difference = "it cannot be read" if rival is None else _difference(adapter.tensors, rival)
        same: bool | None = False
        if not difference and rival is not None:
            same, difference = _same_bytes(subject, rival)
        message = f"{PICKLE_FILE} lies beside {SAFETENSORS_FILE}, and PEFT reads only the latter"
        yield self.finding(
            f"{message}; {difference}" if difference else f"{message}; no difference between them was found",
            subject.at_file(PICKLE_FILE),
            related=(subject.at_file(SAFETENSORS_FILE, "what PEFT reads"),),
            severity=Severity.WARNING if difference else Severity.NOTE,
            fix=_REMOVE if same else Fix(f"Remove {PICKLE_FILE} if {SAFETENSORS_FILE} is meant", Safety.DISPLAY),
        )


_REMOVE = Fix(
    f"Remove {PICKLE_FILE}: {SAFETENSORS_FILE} holds the same tensors, byte for byte",
    Safety.SAFE,
    (RemoveFile(PICKLE_FILE, SAFETENSORS_FILE),),
)


def _difference(tensors: Mapping[str, Tensor], rival: Mapping[str, Tensor]) -> str | None:
    """How the headers of the two files differ, in words; None if they do not."""
    names = sorted(tensors.keys() ^ rival.keys())
    if names:
        return f"{len(names)} tensors are in one of them only: {first_names(names)}"
    shapes = [name for name, tensor in tensors.items() if tensor.shape != rival[name].shape]
    if shapes:
        return f"{len(shapes)} tensors have other shapes there: {first_names(shapes)}"
    dtypes = [name for name, tensor in tensors.items() if tensor.dtype != rival[name].dtype]
    if dtypes:
        return f"{len(dtypes)} tensors have other dtypes there: {first_names(dtypes)}"
    return None


def _same_bytes(subject: Subject, rival: Mapping[str, Tensor]) -> tuple[bool | None, str | None]:
    """Whether all tensors have the same bytes, None if that cannot be told of all; and the difference in words."""
    known = True
    for name, tensor in subject.adapter.tensors.items():
        same = subject.payload.equal(tensor, rival[name])
        if same is False:
            return False, f"they hold other numbers, first in {name}"
        known = known and same is True
    return (True if known else None), None
