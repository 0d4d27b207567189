"""Git LFS pointers: the small text files that a clone without ``git lfs pull`` leaves in place of the weights."""

from __future__ import annotations

import re
from typing import NamedTuple

# The second address is that of pointers written before the 1.0 release, which git-lfs itself still reads.
_VERSION = re.compile(rb"(?:\xef\xbb\xbf)?version https://(?:git-lfs|hawser)\.github\.com/spec/v\d+[ \t]*(?=[\r\n]|\Z)")
_OID = re.compile(rb"^oid (sha256:[0-9a-fA-F]{64})[ \t]*\r?$", re.MULTILINE)
_SIZE = re.compile(rb"^size ([0-9]{1,20})[ \t]*\r?$", re.MULTILINE)

MAX_POINTER_BYTES = 1024
"""No pointer is longer, by the specification of Git LFS."""


class LfsPointer(NamedTuple):
    """What a pointer says about the file that is missing.

    Attributes:
        oid: its hash, ``"sha256:<64 hex digits>"``; empty if the pointer was cut before it.
        size: its length in bytes; None if the pointer does not say.
    """

    oid: str
    size: int | None


def parse_pointer(head: bytes) -> LfsPointer | None:
    """The pointer that a file starting with ``head`` is, or None if it is something else.

    Only the first :data:`MAX_POINTER_BYTES` are looked at. CRLF line ends and a byte order mark are taken too: they
    show up where a checkout converts text, and what is meant stays plain.
    """
    head = head[:MAX_POINTER_BYTES]
    if not _VERSION.match(head):
        return None
    oid = _OID.search(head)
    size = _SIZE.search(head)
    return LfsPointer(oid[1].decode("ascii") if oid else "", int(size[1]) if size else None)
