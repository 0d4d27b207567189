"""AL012."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adapterlint.findings import SAFETENSORS_FILE, Finding, Fix, RewriteHeader, Safety, Severity
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, safetensors_bytes

_REWRITTEN = ("leading-whitespace", "duplicate-metadata", "null-metadata", "unknown-field", "unusual-entry")
# dtype -> first release of the safetensors library that was seen to accept it (the one before it refused).
_SINCE = {
    "F8_E4M3": "0.4.5",
    "F8_E5M2": "0.4.5",
    "F8_E8M0": "0.6.2",
    "F4": "0.6.2",
    "F6_E2M3": "0.6.2",
    "F6_E3M2": "0.6.2",
    "C64": "0.7.0",
    "F8_E4M3FNUZ": "0.8.0",
    "F8_E5M2FNUZ": "0.8.0",
}


class IrregularHeader(Rule):
    """## What it does
    Notes what the safetensors library reads although its specification says otherwise, or other readers refuse: white
    space before the header, unknown fields of a tensor, repeated keys in the metadata, `null` metadata, tensors that
    are not aligned to their element size, dtypes that older releases of the library do not know.

    ## Why is this bad?
    PEFT loads such files as they are meant. Other readers of the format, or the library of an older environment, may
    refuse them or read misaligned numbers slowly.

    ## Example
    A header that starts with a line feed.

    ## Fix
    Write the header anew, unchanged in meaning. Misaligned tensors must be saved again: their data have to move.

    ## References
    - The format's specification; safetensors 0.3.3 to 0.8.0, measured.
    """

    code = "AL012"
    name = "irregular-header"
    needs = ("files",)
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("as the library writes it", lora_config(), llama_tensors()),
            Example("padded", lora_config(), files={SAFETENSORS_FILE: _with_header(lambda text: text + b" " * 16)}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        unknown = _with_header(lambda text: text.replace(b'"dtype"', b'"stride":[1],"dtype"', 1))
        null = _with_header(lambda text: text.replace(b'{"format":"pt"}', b"null"))
        return [
            Example("white space", lora_config(), files={SAFETENSORS_FILE: _with_header(lambda text: b"\n" + text)}),
            Example("unknown field", lora_config(), files={SAFETENSORS_FILE: unknown}),
            Example("null metadata", lora_config(), files={SAFETENSORS_FILE: null}),
            Example("misaligned", lora_config(), {"scale": ("U8", (3,)), **llama_tensors()}),
            Example("a recent dtype", lora_config(), {**llama_tensors(), "scale": ("F8_E8M0", (4,))}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if adapter.weights_file != SAFETENSORS_FILE or any(problem.fatal for problem in adapter.weights_problems):
            return
        odd = [problem for problem in adapter.weights_problems if problem.kind in _REWRITTEN]
        if odd:
            tensor = next((problem.tensor for problem in odd if problem.tensor), None)
            more = f", and {len(odd) - 1} more such things" if len(odd) > 1 else ""
            yield self.finding(
                odd[0].message + more,
                subject.at_tensor(tensor) if tensor else subject.at_file(SAFETENSORS_FILE),
                fix=Fix("Write the header anew, unchanged in meaning", Safety.SAFE, (RewriteHeader(),)),
            )
        for problem in adapter.weights_problems:
            if problem.kind == "misaligned":
                place = subject.at_tensor(problem.tensor) if problem.tensor else subject.at_file(SAFETENSORS_FILE)
                fix = Fix("Load the tensors and save them again, which moves their data", Safety.DISPLAY)
                yield self.finding(problem.message, place, fix=fix)
        yield from self._recent_dtypes(subject)

    def _recent_dtypes(self, subject: Subject) -> Iterator[Finding]:
        if not subject.adapter.dtypes & _SINCE.keys():
            return
        recent: dict[str, list[str]] = {}
        for name, tensor in subject.adapter.tensors.items():
            if tensor.dtype in _SINCE:
                recent.setdefault(tensor.dtype, []).append(name)
        for dtype, names in recent.items():
            yield self.finding(
                f"safetensors before {_SINCE[dtype]} refuses the dtype {dtype}, which is that of {first_names(names)}",
                subject.at_tensor(names[0]),
            )


def _with_header(change: Callable[[bytes], bytes]) -> bytes:
    """A small file whose header text was changed."""
    data = safetensors_bytes(llama_tensors())
    length = int.from_bytes(data[:8], "little")
    text = change(data[8 : 8 + length].rstrip())
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
