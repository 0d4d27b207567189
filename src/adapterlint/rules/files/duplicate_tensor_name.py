"""AL011."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import SAFETENSORS_FILE, Finding, Fix, RewriteHeader, Safety
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, safetensors_bytes


class DuplicateTensorName(Rule):
    """## What it does
    Looks for a tensor name that the header lists more than once, also where one of them is written with `\\u` escapes.

    ## Why is this bad?
    The safetensors library takes the last entry, if all have the same range. Other readers take the first, or refuse
    the file.

    ## Example
    `{"a": {...}, "\\u0061": {...}}`

    ## Fix
    Write the header anew with the entry that counts; the data stay as they are.

    ## References
    - safetensors 0.3.3 to 0.8.0, measured.
    """

    code = "AL011"
    name = "duplicate-tensor-name"
    needs = ("files",)

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("each name once", lora_config(), llama_tensors())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        data = safetensors_bytes(llama_tensors())
        length = int.from_bytes(data[:8], "little")
        header, rest = data[8 : 8 + length].rstrip(), data[8 + length :]
        start = header.index(b'"base_model')
        entry = header[start : header.index(b"}", start) + 1]
        twice = header[:-1] + b"," + entry + b"}"
        written = len(twice).to_bytes(8, "little") + twice + rest
        return [Example("an entry repeated", lora_config(), files={SAFETENSORS_FILE: written})]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        found = [problem for problem in adapter.weights_problems if problem.kind == "duplicate-tensor"]
        if not found or any(problem.fatal for problem in adapter.weights_problems):
            return
        names = list(dict.fromkeys(problem.tensor or "" for problem in found))
        differ = any(problem.detail == "different" for problem in found)
        yield self.finding(
            f"the header lists {len(names)} tensor name{'s' if len(names) != 1 else ''} more than once, "
            f"{'with different entries' if differ else 'each time alike'}, and only the last entry counts: "
            + first_names(names),
            subject.at_tensor(names[0]),
            fix=Fix("Write the header anew, without the repeated entries", Safety.SAFE, (RewriteHeader(),)),
        )
