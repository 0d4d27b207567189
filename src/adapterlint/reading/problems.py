"""What a reader found wrong. Readers never raise on bad content: they return these, rules turn them into findings."""

from __future__ import annotations

from typing import NamedTuple

from adapterlint.findings import CutText, RecodeText


class Problem(NamedTuple):
    """One thing that is wrong with a file.

    Attributes:
        kind: stable kebab-case word that rules select on, such as ``"truncated"`` or ``"duplicate-key"``.
        message: one sentence that names the tensor or key and the likely cause; no final full stop.
        fatal: whether the real loader (``json``, the safetensors library, ``torch.load``) refuses the file for it.
        tensor: the tensor concerned, if it is one.
        pointer: the JSON pointer concerned (RFC 6901), if it is one.
        offset: where it is: bytes from the start of a binary file, code points from the start of a text.
        detail: what the library itself would say, or a value that the message quotes.
        mend: edits after which the file can be read, where only one text can be meant.
    """

    kind: str
    message: str
    fatal: bool = True
    tensor: str | None = None
    pointer: str | None = None
    offset: int | None = None
    detail: str | None = None
    mend: tuple[CutText | RecodeText, ...] = ()
