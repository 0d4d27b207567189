"""AL008."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import (
    PICKLE_FILE,
    SAFETENSORS_FILE,
    ConvertWeights,
    Effect,
    Finding,
    Fix,
    Safety,
    Severity,
    raises,
    unknown,
)
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.files.unreadable_weights import UNSAFE_KINDS, load_error
from adapterlint.rules.torchbytes import torch_bytes

if TYPE_CHECKING:
    from adapterlint.reading.problems import Problem

_SUSPICIOUS = frozenset({"deflated", "memo-bomb"})
_WHY_NOT_FOLLOWED = frozenset({"duplicate-member", "too-large", "too-many-opcodes", "unknown-codec"})


class UnsafePickle(Rule):
    """## What it does
    Follows the pickle in `adapter_model.bin`, without unpickling it, and reports what loading with `weights_only`
    refuses: any class or function outside the list of torch, references to anything but storages, storages that claim
    more bytes than there are. Compressed members and huge memo slots, which exhaust the memory of other readers, are
    warnings. A file that is too large to be followed is reported as unknown.

    ## Why is this bad?
    An unpickler that is not restricted runs whatever the file asks for. PEFT asks for `weights_only` since 0.13, and
    torch does it by default since 2.6: both raise `UnpicklingError: Weights only load failed`. Older ones execute it.

    ## Example
    A training script that saves its `argparse.Namespace` beside the tensors.

    ## Fix
    Where only objects beside the tensors are refused, and the tensors themselves are described in full without them,
    move the tensors to `adapter_model.safetensors` and drop the objects. Nothing is unpickled or run. Else there is
    none here: where the file may be trusted, load it once without `weights_only` and save the tensors as safetensors.

    ## References
    - torch 2.13 `_weights_only_unpickler.py`; measured with torch 2.13 under PEFT 0.4.0 to 0.21.2.
    """

    code = "AL008"
    name = "unsafe-pickle"
    needs = ("files",)
    severity = Severity.ERROR
    damage = "files"

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("tensors", lora_config(), files={PICKLE_FILE: torch_bytes(llama_tensors())}),
            Example("no pickle", lora_config(), llama_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        arguments = torch_bytes(llama_tensors(), extra_class="argparse.Namespace")
        program = torch_bytes(llama_tensors(), extra_class="posix.system")
        return [
            Example("arguments of a script", lora_config(), files={PICKLE_FILE: arguments}),
            Example("a function of the system", lora_config(), files={PICKLE_FILE: program}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if not adapter.is_pickle:
            return
        for problem in adapter.weights_problems:
            if problem.fatal and problem.kind in UNSAFE_KINDS:
                yield self._refused(subject, problem)
            elif not problem.fatal and problem.kind in _SUSPICIOUS:
                yield self.finding(problem.message, subject.at_file(PICKLE_FILE), severity=Severity.WARNING)

    def _refused(self, subject: Subject, problem: Problem) -> Finding:
        message, effect = f"{PICKLE_FILE} cannot be loaded: {problem.message}", _effect(problem)
        if problem.kind == "not-followed":
            reasons = [each.message for each in subject.adapter.weights_problems if each.kind in _WHY_NOT_FOLLOWED]
            message = "; ".join([problem.message, *reasons])
        elif problem.kind == "unsafe-global":
            message += "; torch before 2.6 would run it under PEFT before 0.13"
        return self.finding(
            message,
            subject.at_file(PICKLE_FILE),
            effects=(effect,),
            fix=_fix(problem),
        )


def _fix(problem: Problem) -> Fix:
    if problem.kind != "unsafe-global":
        return Fix(f"Where the file may be trusted, save its tensors as {SAFETENSORS_FILE}", Safety.DISPLAY)
    title = f"Move the tensors to {SAFETENSORS_FILE} and drop the objects beside them, without running anything"
    return Fix(title, Safety.UNSAFE, (ConvertWeights((PICKLE_FILE,), salvage=True),))


def _effect(problem: Problem) -> Effect:
    if problem.kind == "not-followed":
        return unknown(missing=("weights",))
    return raises("peft", load_error(PICKLE_FILE, problem))
