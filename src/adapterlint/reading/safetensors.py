"""The header of a safetensors file: what is in it, and whether the safetensors library opens it.

The library (0.8.0, ``safe_open``) is the judge: a file has a fatal problem exactly if the library refuses it. Only the
8 + n bytes of the header are read, through no library. Of the fatal problems the first that the library would meet is
reported, by a name of ours that tells the cause:

==================  ==============================================================================================
fatal               the file ...
==================  ==============================================================================================
unreadable          cannot be opened or read, or is no regular file
empty               has no bytes
too-short           has fewer than the 8 bytes of the header length
lfs-pointer         is a Git LFS pointer; detail: ``oid <oid> size <bytes>`` instead of the library's text
html                is an HTML or XML page
zip                 is a zip archive (torch .bin)
pickle              is a pickle (torch .bin in the format before zip)
gguf                is a GGUF file
text                is some other text
header-too-large    claims a header of more than 100,000,000 bytes
truncated           ends before its header or its data does
trailing-data       goes on after the last tensor
bad-utf8            has a header that is not UTF-8
bad-json            has a header that is not JSON as serde reads it, or not one object
bad-metadata        has a ``__metadata__`` that is repeated, no object, or holds something other than strings
bad-entry           has a tensor whose entry is no object, lacks a field, or has it twice
bad-dtype           has a tensor of a dtype that the library does not know
bad-shape           has a tensor whose shape is no array of unsigned 64-bit integers
bad-offsets         has a tensor whose offsets are not two such integers, or end before they begin
hole                has bytes that belong to no tensor
overlap             has a tensor that begins inside another
overflow            has a tensor whose size in bits does not fit 64 bits
partial-byte        has a tensor of a dtype below a byte that ends inside one
size-mismatch       has a tensor whose range is not as long as its shape and dtype ask
==================  ==============================================================================================

==================  ==============================================================================================
note                the library opens the file, though ...
==================  ==============================================================================================
leading-whitespace  the header does not start with ``{``, as the specification says that it must
duplicate-tensor    a tensor is listed more than once (the last entry counts); detail: ``same`` or ``different``
duplicate-metadata  a key of ``__metadata__`` is repeated (the last value counts)
null-metadata       ``__metadata__`` is null
unknown-field       a tensor has a field that the library ignores
unusual-entry       a tensor is an array ``[dtype, shape, offsets]``, or its dtype an object ``{dtype: null}``
misaligned          the bytes of a tensor do not start at a multiple of its element size
==================  ==============================================================================================

``detail`` of a fatal problem is what the library raises (the text of its ``SafetensorError``): all of it, except that
bad-json and bad-metadata may give only the start of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from math import prod
from operator import itemgetter
from typing import NamedTuple

from .headerjson import ALIGN_MASK, LIBRARY, U64_MAX, Entries, Parsed, parse_ordinary, run_of
from .headerjson import DTYPE_BITS as DTYPE_BITS
from .headerjson import TensorEntry as TensorEntry
from .headerjson import columns_of as columns_of
from .problems import Problem

MAX_HEADER_BYTES = 100_000_000
"""The longest header that the library takes; it has stood in every release."""

_LENGTH_BYTES = 8
_TOO_LARGE = LIBRARY + "header too large"
_PARTIAL_BYTE = (
    "The slice is slicing for subbytes dtypes, and the slice does not end up at a byte boundary, this is invalid."
)
_by_range = itemgetter(3, 4)


class Header(NamedTuple):
    """What the header of one file says.

    Attributes:
        tensors: by name, in file order; the last one of duplicates. Incomplete if a fatal problem cut the reading.
        metadata: the strings of ``__metadata__``.
        problems: notes, and at most one fatal problem.
        header_bytes: length of the JSON as the file claims it; 0 if there is none.
        file_bytes: length of the file; 0 if it cannot be read.
        raw: the JSON, as it is in the file; empty if it was not read.
    """

    tensors: Mapping[str, TensorEntry]
    metadata: dict[str, str]
    problems: tuple[Problem, ...]
    header_bytes: int
    file_bytes: int
    raw: bytes

    @property
    def data_start(self) -> int:
        """Where the data section starts, in bytes from the start of the file."""
        return _LENGTH_BYTES + self.header_bytes

    @property
    def fatal(self) -> Problem | None:
        """Why the library does not open the file, if it does not."""
        return next((problem for problem in self.problems if problem.fatal), None)

    @property
    def readable(self) -> bool:
        """Whether the library opens the file."""
        return self.fatal is None

    @property
    def exception(self) -> str | None:
        """The text that the library raises, as far as it is known; None if it opens the file."""
        fatal = self.fatal
        if fatal is None:
            return None
        return _TOO_LARGE if fatal.kind == "lfs-pointer" else fatal.detail


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the header of a file; whatever is wrong with it, the file system included, becomes a problem."""
    try:
        # A named pipe must not make the reader wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return _unreadable(f"{os.fspath(path)} is not a regular file", "No such device (os error 19)")
            head, file_bytes = _read_head(descriptor, status.st_size)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        detail = f"No such file or directory: {os.fspath(path)}"
        reason = error.strerror if isinstance(error, OSError) else error
        return _unreadable(f"cannot read {os.fspath(path)}: {reason}", detail)
    return parse_header(head, file_bytes)


def _read_head(descriptor: int, file_bytes: int) -> tuple[bytes, int]:
    """The length and the JSON, or what shows the nature of another file; and the length of the file."""
    head = os.read(descriptor, _LENGTH_BYTES)
    length = int.from_bytes(head, "little")
    fits = length <= min(MAX_HEADER_BYTES, file_bytes - _LENGTH_BYTES)
    head += os.read(descriptor, length if fits else _signature_bytes())
    shrunk = fits and len(head) < _LENGTH_BYTES + length  # since it was asked for its length
    return head, len(head) if shrunk else file_bytes


def _signature_bytes() -> int:
    from .signatures import SIGNATURE_BYTES  # only for files that are no safetensors

    return SIGNATURE_BYTES


def _unreadable(message: str, detail: str) -> Header:
    return Header({}, {}, (Problem("unreadable", message, detail=detail),), 0, 0, b"")


def parse_header(head: bytes, file_bytes: int) -> Header:
    """Read the header from the first bytes of a file.

    Args:
        head: the length and the JSON, or as much of a shorter file as there is; more does no harm.
        file_bytes: length of the whole file.
    """
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    problem = _check_length(head, length, file_bytes)
    if problem:
        claimed = length if file_bytes >= _LENGTH_BYTES else 0
        return Header({}, {}, (problem,), claimed, file_bytes, b"")
    raw = head[_LENGTH_BYTES : _LENGTH_BYTES + length]
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return Header({}, {}, (_bad_utf8(error),), length, file_bytes, raw)
    parsed = parse_ordinary(text) or _parse_strict(text)
    problems = parsed.problems
    if not any(problem.fatal for problem in problems):
        problems += _check_layout(parsed, _LENGTH_BYTES + length, file_bytes)
    if raw[:1] in (b" ", b"\t", b"\n", b"\r"):
        message = "the header starts with white space, not with `{`"
        problems = (Problem("leading-whitespace", message, fatal=False, offset=_LENGTH_BYTES), *problems)
    return Header(parsed.tensors, parsed.metadata, problems, length, file_bytes, raw)


def _parse_strict(text: str) -> Parsed:
    from .headerserde import parse_strict  # few headers are written otherwise than by the library

    return parse_strict(text)


def _check_length(head: bytes, length: int, file_bytes: int) -> Problem | None:
    """What is wrong with the length in the first 8 bytes: mostly that the file is something else."""
    if file_bytes == 0:
        return Problem("empty", "the file is empty", detail=LIBRARY + "header too small")
    if file_bytes < _LENGTH_BYTES:
        kind, detail = "too-short", LIBRARY + "header too small"
        message = f"the file has {file_bytes} bytes, fewer than the 8 of the header length"
    elif length > MAX_HEADER_BYTES:
        kind, detail = "header-too-large", _TOO_LARGE
        message = f"the first 8 bytes claim a header of {length} bytes: the file is not safetensors, or damaged"
    elif _LENGTH_BYTES + length > file_bytes:
        kind, detail = "truncated", LIBRARY + "invalid header length"
        missing = _LENGTH_BYTES + length - file_bytes
        message = f"the file ends {missing} bytes before its header of {length} bytes does"
    else:
        return None
    # Where the JSON should start, it does: whatever else the bytes resemble, this is safetensors, and cut off.
    from .signatures import identify

    signature = None if head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" else identify(head)
    if signature:
        kind, message = signature.kind, f"the file is {signature.description}"
        if signature.pointer:
            size = "" if signature.pointer.size is None else f" size {signature.pointer.size}"
            detail = f"oid {signature.pointer.oid}{size}"
    return Problem(kind, message, offset=0, detail=detail)


def _bad_utf8(error: UnicodeDecodeError) -> Problem:
    if error.reason == "unexpected end of data":
        said = f"incomplete utf-8 byte sequence from index {error.start}"
    else:
        said = f"invalid utf-8 sequence of {error.end - error.start} bytes from index {error.start}"
    message = f"the header is not UTF-8: {error.reason} at its byte {error.start}"
    detail = f"{LIBRARY}invalid UTF-8 in header: {said}"
    return Problem("bad-utf8", message, offset=_LENGTH_BYTES + error.start, detail=detail)


def _check_layout(parsed: Parsed, data_start: int, file_bytes: int) -> tuple[Problem, ...]:
    """Walk the tensors by offset: they must cover the data section from end to end, once."""
    if _in_order(parsed.tensors, data_start, file_bytes):
        return ()
    position = 0
    misaligned = []
    for entry in sorted(parsed.tensors.values(), key=_by_range):
        _, dtype, shape, begin, end = entry
        if begin != position or end < begin:
            return (_bad_range(entry, position, data_start),)
        bits = prod(shape) * DTYPE_BITS[dtype]
        # A zero hides what the library multiplies before it, and trips over.
        if bits > U64_MAX or (not bits and _overflows(shape)):
            return (_overflow(entry),)
        if end - begin != bits >> 3 or bits & 7:
            return (_bad_size(entry, bits, data_start),)
        if (data_start + begin) & ALIGN_MASK[dtype] and bits:
            misaligned.append(entry)
        position = end
    notes = (_misaligned(misaligned, data_start),) if misaligned else ()
    missing = data_start + position - file_bytes
    return (*notes, _bad_end(missing, data_start + position)) if missing else notes


def _in_order(tensors: Mapping[str, TensorEntry], data_start: int, file_bytes: int) -> bool:
    """Whether the tensors lie one after another as they are listed, whole and aligned: nearly all files are so."""
    run = tensors.run if isinstance(tensors, Entries) else run_of(columns_of(tensors))
    return run is not None and run.mask is not None and not data_start & run.mask and data_start + run.end == file_bytes


def _overflows(shape: tuple[int, ...]) -> bool:
    elements = 1
    for dim in shape:
        elements *= dim
        if elements > U64_MAX:
            return True
    return False


def _bad_range(entry: TensorEntry, position: int, data_start: int) -> Problem:
    """The first range that does not start where the one before it ended."""
    name, begin, end = entry.name, entry.begin, entry.end
    if end < begin:
        kind, message = "bad-offsets", f"tensor `{name}` ends at {end}, before it begins at {begin}"
    elif begin > position:
        kind = "hole"
        message = f"{begin - position} bytes of data before tensor `{name}`, {position} to {begin}, belong to no tensor"
    else:
        kind = "overlap"
        message = f"tensor `{name}` begins at {begin}, inside another that ends at {position}"
    detail = f"{LIBRARY}invalid offset for tensor `{name}`"
    return Problem(kind, message, tensor=name, offset=data_start + begin, detail=detail)


def _overflow(entry: TensorEntry) -> Problem:
    message = f"the size of tensor `{entry.name}`, {entry.dtype} {_shape(entry)}, does not fit 64 bits"
    detail = LIBRARY + "overflow computing buffer size from shape and/or element type"
    return Problem("overflow", message, tensor=entry.name, detail=detail)


def _bad_size(entry: TensorEntry, bits: int, data_start: int) -> Problem:
    what = f"tensor `{entry.name}`, {entry.dtype} {_shape(entry)},"
    if bits & 7:
        kind, message = "partial-byte", f"{what} takes {bits} bits, which is no whole number of bytes"
        said = _PARTIAL_BYTE
    else:
        kind, message = "size-mismatch", f"{what} takes {bits >> 3} bytes, but its range has {entry.end - entry.begin}"
        said = "invalid shape, data type, or offset for tensor"
    return Problem(kind, message, tensor=entry.name, offset=data_start + entry.begin, detail=LIBRARY + said)


def _bad_end(missing: int, end: int) -> Problem:
    detail = LIBRARY + "incomplete metadata, file not fully covered"
    if missing > 0:
        message = f"the file ends {missing} bytes before its last tensor does: the download or copy is incomplete"
        return Problem("truncated", message, offset=end - missing, detail=detail)
    return Problem("trailing-data", f"{-missing} bytes follow the last tensor", offset=end, detail=detail)


def _misaligned(entries: list[TensorEntry], data_start: int) -> Problem:
    first = entries[0]
    offset = data_start + first.begin
    more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
    message = f"tensor `{first.name}`{more}: the data ({first.dtype}, byte {offset}) is not aligned to its element size"
    return Problem("misaligned", message, fatal=False, tensor=first.name, offset=offset, detail=str(len(entries)))


def _shape(entry: TensorEntry) -> str:
    return f"[{', '.join(map(str, entry.shape))}]"
