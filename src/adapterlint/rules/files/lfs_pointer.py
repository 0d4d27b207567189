"""AL004."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import CONFIG_FILE, SAFETENSORS_FILE, Finding, Fix, Location, Safety, Severity, raises
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.files.unreadable_weights import load_error

if TYPE_CHECKING:
    from adapterlint.reading.problems import Problem

_SIZE = re.compile(r"\b(\d+) bytes\)")
_SMALLEST_ADAPTER = 1024
_ON_CONFIG = "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"


class LfsPointer(Rule):
    """## What it does
    Recognises Git LFS pointers in place of the config or the weights: small text files that a clone without
    `git lfs pull` leaves behind. Where the `.gitattributes` of the checkout say that the file is kept in Git LFS, and
    the directory was only found below the given path, it is a note: the header was not checked.

    ## Why is this bad?
    No loader recognises them. Weights raise `header too large` or `Weights only load failed`, a config raises a
    `JSONDecodeError`, on every release.

    ## Example
    An `adapter_model.safetensors` of 133 bytes that starts with `version https://git-lfs.github.com/spec/v1`.

    ## Fix
    None: the file holds a reference, not the data. Run `git lfs pull`.

    ## References
    - transformers#27923, vllm#1382; measured on 0.4.0 to 0.21.2.
    """

    code = "AL004"
    name = "lfs-pointer"
    needs = ("files",)
    severity = Severity.ERROR
    damage = "files"

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("downloaded", lora_config(), llama_tensors()),
            Example(
                "another file is a pointer", lora_config(), llama_tensors(), files={"model.safetensors": _pointer(9)}
            ),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("weights", lora_config(), files={SAFETENSORS_FILE: _pointer(3_163_320)}),
            Example("a pointer to an empty adapter", lora_config(), files={SAFETENSORS_FILE: _pointer(48)}),
            Example(".bin", lora_config(), files={"adapter_model.bin": _pointer(3_163_320)}),
            Example("config", _pointer(640), llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        weights = adapter.weights_file or SAFETENSORS_FILE
        for problem in adapter.config_problems:
            if problem.kind == "lfs-pointer":
                text = problem.detail or _ON_CONFIG
                yield self._report(subject, Location(adapter.path, CONFIG_FILE, offset=0), problem, text)
        for problem in adapter.weights_problems:
            if problem.kind == "lfs-pointer":
                yield self._report(subject, subject.at_file(weights), problem, load_error(weights, problem))

    def _report(self, subject: Subject, place: Location, problem: Problem, exception: str) -> Finding:
        adapter = subject.adapter
        problems = adapter.config_problems if place.file == CONFIG_FILE else adapter.weights_problems
        tracked = next((each.message for each in problems if each.kind == "lfs-tracked"), None)
        size = _SIZE.search(problem.message)
        message = f"{place.file} was not checked: {problem.message}"
        if size and place.file != CONFIG_FILE and int(size[1]) < _SMALLEST_ADAPTER:
            message += f"; an adapter of {size[1]} bytes would be empty even then"
        return self.finding(
            f"{message} ({tracked})" if tracked else message,
            place,
            effects=(raises("peft", exception),),
            fix=Fix("Run git lfs pull", Safety.DISPLAY),
            ceiling=Severity.NOTE if tracked and not adapter.explicit else Severity.ERROR,
        )


def _pointer(size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0123456789abcdef' * 4}\nsize {size}\n".encode()
