"""AL005."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE, Finding, Fix, RenameFile, Safety, Severity, raises
from adapterlint.model.adapter import Adapter
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, safetensors_bytes

if TYPE_CHECKING:
    from adapterlint.reading.problems import Problem

UNSAFE_KINDS = frozenset(
    {"unsafe-global", "bad-persistent-id", "unsupported-opcode", "storage-too-large", "not-followed"}
)
"""What a loader refuses because it could do harm, or that could not be followed: AL008."""
_ELSEWHERE = UNSAFE_KINDS | {"lfs-pointer", "unlistable"}


class UnreadableWeights(Rule):
    """## What it does
    Checks that the library that PEFT loads the weights with accepts the file: header, dtypes, shapes, offsets and
    length of a safetensors file, archive and pickle of a `.bin`. It also names files that are something else: a web
    page, a torch file under the name of a safetensors file, the other way round.

    ## Why is this bad?
    Every release raises, and the text rarely tells the cause: an interrupted download, a web page and a misnamed
    torch file are all `header too large` or `incomplete metadata`.

    ## Example
    An `adapter_model.safetensors` that ends 40 bytes before its last tensor does.

    ## Fix
    Rename the file where it is sound in the other format. What is cut or damaged must be copied again.

    ## References
    - safetensors 0.8.0 (`safe_open`) and torch 2.13 (`torch.load` with `weights_only`), which were asked about each
      kind of damage; peft#1599, alpaca-lora#588.
    """

    code = "AL005"
    name = "unreadable-weights"
    needs = ("files",)
    severity = Severity.ERROR
    damage = "files"

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("sound", lora_config(), llama_tensors()),
            Example("an empty tensor", lora_config(), {**llama_tensors(), "scale": ("F32", (0, 4))}),
            Example("no tensors", lora_config(), {}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        whole = safetensors_bytes(llama_tensors())
        header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}'
        return [
            Example("empty file", lora_config(), files={SAFETENSORS_FILE: b""}),
            Example("truncated", lora_config(), files={SAFETENSORS_FILE: whole[:-40]}),
            Example("trailing bytes", lora_config(), files={SAFETENSORS_FILE: whole + b"\0"}),
            Example("web page", lora_config(), files={SAFETENSORS_FILE: b"<!DOCTYPE html><html>not found</html>"}),
            Example("safetensors named .bin", lora_config(), files={PICKLE_FILE: whole}),
            Example(
                "shape and range differ",
                lora_config(),
                files={SAFETENSORS_FILE: len(header).to_bytes(8, "little") + header + bytes(4)},
            ),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        file = adapter.weights_file
        problem = next((each for each in adapter.weights_problems if each.fatal and each.kind not in _ELSEWHERE), None)
        if problem is None or file is None:
            return
        place = subject.at_tensor(problem.tensor) if problem.tensor else subject.at_file(file)
        yield self.finding(
            f"{file} cannot be loaded: {problem.message}",
            place,
            effects=(raises("peft", load_error(file, problem)),),
            fix=_fix(adapter, file),
        )


def load_error(file: str, problem: Problem) -> str:
    """What the library raises on a weights file with this problem, exception type first."""
    said = problem.detail or ""
    if file == PICKLE_FILE:
        return said or "UnpicklingError: Weights only load failed."
    if problem.kind == "lfs-pointer":
        said = "Error while deserializing header: header too large"
    if problem.kind == "unreadable":
        return f"{'FileNotFoundError' if said.startswith('No such file') else 'OSError'}: {said}"
    return f"SafetensorError: {said}"


def _fix(adapter: Adapter, file: str) -> Fix | None:
    other = PICKLE_FILE if file == SAFETENSORS_FILE else SAFETENSORS_FILE
    if file in adapter.other_tensors and other not in adapter.files:
        links = {problem.detail for problem in adapter.weights_problems if problem.kind == "broken-link"}
        if other in links:
            return Fix(f"Put {file} in the place of the broken link {other}", Safety.DISPLAY)
        return Fix(f"Rename {file} to {other}, which it is", Safety.SAFE, (RenameFile(file, other),))
    if other in adapter.other_tensors:
        return Fix(f"Remove {file}: PEFT then reads {other}, which is sound", Safety.DISPLAY)
    return None
