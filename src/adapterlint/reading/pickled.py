"""``adapter_model.bin``, read without unpickling: which tensors it holds, and whether ``torch.load`` takes it.

Nothing in the file is ever unpickled, imported or run. torch 2.13 with ``weights_only=True``, as PEFT calls it, is the
judge: a file has a fatal problem exactly if torch or PEFT raises on it. Both formats of ``torch.save`` are read, the
zip archive and the older row of pickles ("legacy").

=====================  ===========================================================================================
fatal                  the file ...
=====================  ===========================================================================================
unreadable             cannot be opened or read, or is no regular file
empty                  has no bytes
lfs-pointer            is a Git LFS pointer; detail: what torch raises
safetensors-bytes      is a safetensors file under this name
not-a-pickle           is something else: HTML, text, GGUF, another archive
truncated              ends too early
broken-archive         is a zip archive that torch does not read
torchscript            is a TorchScript archive
broken-pickle          has a pickle that does not make sense
unsafe-global          asks for something outside the list that weights_only loading accepts
unsupported-opcode     uses a pickle opcode that weights_only loading does not know (another pickle protocol, say)
bad-persistent-id      refers to something other than a storage
bytes-bomb             asks for more memory than there is
missing-storage        has a tensor whose storage is not in the file
storage-too-large      claims a storage larger than the bytes that are there
storage-too-small      claims a storage smaller than the bytes that are there
out-of-range           has a tensor that reaches beyond its storage
bad-tensor             has a tensor whose description torch refuses
not-a-dict             holds something other than a dictionary (PEFT raises)
non-text-key           has a key that is no text (PEFT raises)
special-tensor         has a tensor without plain bytes (meta, quantized, sparse, distributed): PEFT cannot copy it
undetermined           (only if read leniently) gives tensors to code that is not run
=====================  ===========================================================================================

=====================  ===========================================================================================
note                   torch and PEFT load the file, though ...
=====================  ===========================================================================================
non-tensor-entry       an entry is no tensor (``tensor``: its name); PEFT raises if a parameter has that name
special-tensor         a tensor is a lazily negated or conjugated view: its bytes are not its values
big-endian             numbers are stored big-endian
deflated               members are compressed
duplicate-member       two members have one name: which one torch takes is not foreseen (``complete`` is false)
directory-member       a member is marked as a directory: torch takes what is in memory (``complete`` is false)
memo-bomb              a memo slot would make other unpicklers than torch's reserve gigabytes
too-large              it is too large to be followed (``complete`` is false)
too-many-opcodes       the same
unknown-codec          it encodes a text by a codec that is not followed (``complete`` is false)
=====================  ===========================================================================================
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from .picklevalues import Tensor, is_contiguous, type_name
from .problems import Problem
from .signatures import SIGNATURE_BYTES, identify
from .torchcontent import TorchFile
from .torchfile import read_torch_file
from .ziplist import STORED, BrokenZip, Member, data_offset

_SHOWN = 5
_CANNOT_COPY = "RuntimeError: Error(s) in loading state_dict for PeftModel"
# What makes a tensor special without making PEFT fail on it.
_LAZY = ("negated", "conjugated")


class PickledTensor(NamedTuple):
    """A tensor as the pickle describes it.

    Attributes:
        name: its key.
        dtype: safetensors dtype name; the torch name in capitals (``QINT8``) where safetensors has none.
        shape: dimensions.
        entry: zip member that holds its storage; empty in the legacy format.
        offset: its first element, in bytes from the start of the storage, in the legacy format from the start of the
            file; -1 if its bytes are not in the file.
        strides: elements from one index to the next, for each dimension.
        contiguous: whether its elements lie in row-major order without gaps.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    entry: str
    offset: int
    strides: tuple[int, ...]
    contiguous: bool


@dataclass(frozen=True, slots=True)
class Archive:
    """What one ``.bin`` file holds.

    Attributes:
        tensors: tensors of the top-level dictionary, which is what PEFT sees, by name, in file order.
        problems: at most one fatal problem of each kind, and notes.
        nested_under: key of the top-level dictionary whose value holds the tensors, if the top level has none.
        nested: the tensors under that key.
        others: type of each top-level entry that is no tensor, by name.
        legacy: whether it is in the format before zip.
        little_endian: whether numbers are stored little-endian.
        complete: whether the whole file could be followed; if not, what torch does with it is not known.
        members: the zip members that hold storages, by name.
        file_bytes: length of the file.
    """

    tensors: dict[str, PickledTensor] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    nested_under: str | None = None
    nested: dict[str, PickledTensor] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    legacy: bool = False
    little_endian: bool = True
    complete: bool = True
    members: dict[str, Member] = field(default_factory=dict)
    file_bytes: int = 0

    @property
    def fatal(self) -> Problem | None:
        """Why torch or PEFT raises, if they do."""
        return next((problem for problem in self.problems if problem.fatal), None)


def read_archive(path: str | os.PathLike[str], *, lenient: bool = False) -> Archive:
    """Read a ``.bin`` file; whatever is wrong with it, the file system included, becomes a problem.

    Args:
        path: the file.
        lenient: pass over the objects that torch refuses, to get at the tensors beside them. The problems then do not
            tell what torch does.
    """
    try:
        # A named pipe must not make the reader wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                message = f"{os.fspath(path)} is not a regular file"
                return Archive(problems=(Problem("unreadable", message, detail="OSError"),))
            return _read(path, file, status.st_size, lenient)
    except (OSError, ValueError) as error:
        known = isinstance(error, OSError) and error.errno
        reason = os.strerror(known) if known else error
        said = f"[Errno {known}] {reason}" if known else error
        message = f"cannot read {os.fspath(path)}: {reason}"
        return Archive(problems=(Problem("unreadable", message, detail=f"{type(error).__name__}: {said}"),))


def tensor_position(file: BinaryIO, archive: Archive, tensor: PickledTensor) -> int | None:
    """Where the first element of a tensor is, in bytes from the start of the file that ``file`` is open on.

    None if its bytes are not there as they are: a compressed member, a tensor without data, a broken archive. A tensor
    that is not contiguous, has a ``special-tensor`` problem or comes from an archive that is not ``little_endian`` has
    its storage there, but not its values in order.

    Raises:
        OSError: the file cannot be read.
    """
    if tensor.offset < 0:
        return None
    if not tensor.entry:
        return tensor.offset
    member = archive.members[tensor.entry]
    if member.method != STORED:
        return None
    try:
        return data_offset(file, member, archive.file_bytes) + tensor.offset
    except BrokenZip:
        return None


def _read(path: str | os.PathLike[str], file: BinaryIO, file_bytes: int, lenient: bool) -> Archive:
    if file_bytes == 0:
        return Archive(problems=(Problem("empty", "the file is empty", detail="EOFError:"),))
    head = file.read(SIGNATURE_BYTES)
    content = read_torch_file(file, file_bytes, head, lenient)
    if content.fatal is not None and content.legacy:
        problem = _impostor(path, head, content.fatal)
        return Archive(problems=(problem,), legacy=problem.kind not in _IMPOSTORS, file_bytes=file_bytes)
    return _describe(content, file_bytes)


_IMPOSTORS = ("lfs-pointer", "safetensors-bytes", "not-a-pickle")


def _impostor(path: str | os.PathLike[str], head: bytes, problem: Problem) -> Problem:
    """The problem of a file that is no zip archive, by its true cause if that is another format."""
    signature = identify(head)
    if signature is not None and signature.kind == "pickle":
        return problem
    if problem.kind == "not-a-pickle" and any(head):
        return problem
    if signature is not None and signature.kind != "zip":
        kind = "lfs-pointer" if signature.kind == "lfs-pointer" else "not-a-pickle"
        return Problem(kind, f"the file is {signature.description}", offset=0, detail=problem.detail)
    if head[8:9] in (b"{", b" ", b"\n") and _is_safetensors(path):
        message = "the file is in the safetensors format: it belongs under the name adapter_model.safetensors"
        return Problem("safetensors-bytes", message, offset=0, detail=problem.detail)
    if not any(head):
        message = "the file starts with zeros: it was not written to the end"
        return Problem("not-a-pickle", message, offset=0, detail=problem.detail)
    if head[:1] == b"\x80":
        return problem
    message = f"the file is no torch file: it starts with the bytes {head[:8].hex(' ')}"
    return Problem("not-a-pickle", message, offset=0, detail=problem.detail)


def _is_safetensors(path: str | os.PathLike[str]) -> bool:
    from .safetensors import read_header

    return read_header(path).readable


def _describe(content: TorchFile, file_bytes: int) -> Archive:
    """Sort the top-level dictionary into tensors and others."""
    problems = list(content.problems)
    archive_facts: dict[str, Any] = {
        "legacy": content.legacy,
        "little_endian": content.little_endian,
        "complete": content.complete,
        "members": content.members,
        "file_bytes": file_bytes,
    }
    if content.fatal is not None or not content.complete:
        return Archive(problems=tuple(problems), **archive_facts)
    if not isinstance(content.value, dict):
        problems.insert(0, _not_a_dict(content.value))
        return Archive(problems=tuple(problems), **archive_facts)
    tensors, others = _sort_out(content, content.value, problems)
    under: str | None = None
    nested: dict[str, PickledTensor] = {}
    if not tensors:
        under, nested = _nested(content, content.value)
    problems += [_non_tensor(name, kind) for name, kind in list(others.items())[:_SHOWN]]
    return Archive(tensors, tuple(problems), under, nested, others, **archive_facts)


def shown(name: str) -> str:
    """A name from the file, fit for a message: not too long, nothing that a terminal or an encoder trips over."""
    text = name if len(name) <= 200 else name[:200] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]


def _non_tensor(name: str, kind: str) -> Problem:
    message = f"the entry `{shown(name)}` is no tensor but of type {kind}"
    return Problem("non-tensor-entry", message, fatal=False, tensor=name)


def _not_a_dict(value: Any) -> Problem:
    name = type_name(value)
    attribute = "items" if name == "list" else "copy"
    detail = f"AttributeError: '{name}' object has no attribute '{attribute}'"
    return Problem("not-a-dict", f"the file holds a value of type {name}, not a dictionary of tensors", detail=detail)


def _sort_out(
    content: TorchFile, entries: dict[Any, Any], problems: list[Problem]
) -> tuple[dict[str, PickledTensor], dict[str, str]]:
    tensors: dict[str, PickledTensor] = {}
    others: dict[str, str] = {}
    special: list[tuple[str, str]] = []
    for name, value in entries.items():
        if type(name) is not str:
            if not any(problem.kind == "non-text-key" for problem in problems):
                problems.append(_non_text_key(name))
        elif isinstance(value, Tensor):
            tensors[name] = _tensor(content, name, value)
            if value.special:
                special.append((name, value.special))
        else:
            others[name] = type_name(value)
            if others[name].endswith(" tensor"):
                special.append((name, others[name]))
    problems += [_special(name, what) for name, what in special[:_SHOWN]]
    return tensors, others


def _non_text_key(key: Any) -> Problem:
    name = type_name(key)
    if name == "bytes":
        detail = "TypeError: endswith first arg must be bytes or a tuple of bytes, not str"
    else:
        detail = f"AttributeError: '{name}' object has no attribute 'endswith'"
    message = f"the dictionary has a key of type {name}, but names of tensors are texts"
    return Problem("non-text-key", message, detail=detail)


def _special(name: str, special: str) -> Problem:
    if special in _LAZY:
        message = f"tensor `{shown(name)}` is a lazily {special} view: its bytes are not its values"
        return Problem("special-tensor", message, fatal=False, tensor=name)
    what = "a meta tensor, without data" if special == "meta" else f"not plain ({special})"
    message = f"tensor `{shown(name)}` is {what}, which cannot be copied into a parameter"
    return Problem("special-tensor", message, tensor=name, detail=_CANNOT_COPY)


def _tensor(content: TorchFile, name: str, value: Tensor) -> PickledTensor:
    entry, offset = "", -1
    storage = value.storage
    if storage is not None and (not value.special or value.special in _LAZY):
        entry, offset = content.place(storage)
        if offset >= 0:
            offset += value.offset * value.dtype.itemsize
    contiguous = len(value.strides) == len(value.shape) and is_contiguous(value.shape, value.strides)
    return PickledTensor(name, value.dtype.name, value.shape, entry, offset, value.strides, contiguous)


def _nested(content: TorchFile, entries: dict[Any, Any]) -> tuple[str | None, dict[str, PickledTensor]]:
    """The dictionary one level below that holds the most tensors."""
    best: tuple[str | None, dict[Any, Any], int] = (None, {}, 0)
    seen: set[int] = set()
    for name, value in entries.items():
        if type(name) is not str or not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))
        count = sum(isinstance(item, Tensor) for item in value.values())
        if count > best[2]:
            best = (name, value, count)
    under, inner, _ = best
    return under, {
        name: _tensor(content, name, value)
        for name, value in inner.items()
        if type(name) is str and isinstance(value, Tensor)
    }
