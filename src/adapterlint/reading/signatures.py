"""What a file is, by its first bytes: the usual impostors under a weights file's name."""

from __future__ import annotations

from typing import NamedTuple

from .lfs import LfsPointer, parse_pointer

SIGNATURE_BYTES = 1024
"""How much of the start of a file :func:`identify` can make use of."""


class Signature(NamedTuple):
    """What a file turned out to be.

    Attributes:
        kind: ``lfs-pointer``, ``html``, ``zip``, ``pickle``, ``gguf`` or ``text``.
        description: completes "the file is ...".
        pointer: the parsed Git LFS pointer, for ``lfs-pointer``.
    """

    kind: str
    description: str
    pointer: LfsPointer | None = None


def identify(head: bytes) -> Signature | None:
    """Name the format of a file that starts with ``head``, or None if nothing fits."""
    pointer = parse_pointer(head)
    if pointer:
        return Signature("lfs-pointer", _describe(pointer), pointer)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Signature("zip", "a zip archive, probably a torch .bin under the wrong name")
    if head.startswith(b"GGUF"):
        return Signature("gguf", "a GGUF file (llama.cpp)")
    # A zero third byte is no opcode: rather the length of a small safetensors header.
    if len(head) >= 3 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2]:
        return Signature("pickle", "a pickle, probably a torch .bin in the old format under the wrong name")
    return _text(head[:SIGNATURE_BYTES])


def _describe(pointer: LfsPointer) -> str:
    oid = f"oid {pointer.oid}" if pointer.oid else "no oid"
    size = "no size" if pointer.size is None else f"{pointer.size} bytes"
    return f"a Git LFS pointer ({oid}, {size}): the weights were not downloaded, run `git lfs pull`"


def _text(head: bytes) -> Signature | None:
    # A character may be cut at the end of the excerpt: up to three bytes of it are left out.
    for cut in range(min(4, len(head))):
        try:
            text = head[: len(head) - cut].decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        break
    else:
        return None
    if not all(char.isprintable() or char in "\t\n\r\f" for char in text) or not text.strip():
        return None
    start = " ".join(text.split())[:40]
    if start.startswith("<"):
        return Signature("html", f"an HTML or XML page, probably a download that failed: it starts with {start!r}")
    return Signature("text", f"text: it starts with {start!r}")
