"""The format of ``torch.save`` before zip: a row of pickles, then the bytes of each storage behind its length.

The pickles are a magic number, a version, facts about the machine, the object and the list of storage keys.
"""

from __future__ import annotations

import re
from typing import Any, BinaryIO

from . import rebuild
from .opcodes import Machine
from .picklevalues import GaveUpError, MoreDataError, RefusedError, Storage, type_name
from .torchcontent import MAX_PICKLE, TorchFile, follow, storage_dtype, storage_id
from .torchglobals import DTYPES

MAX_STORAGES = 100_000
_FIRST_CHUNK = 1 << 20
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_legacy(file: BinaryIO, file_bytes: int, head: bytes, content: TorchFile) -> None:
    if _is_tar(head):
        detail = "RuntimeError: Cannot use ``weights_only=True`` with files saved in the legacy .tar format."
        raise RefusedError("not-a-pickle", "the file is a tar archive (torch before 0.1.10), or only zeros", detail)
    for size in (_FIRST_CHUNK, MAX_PICKLE):
        file.seek(0)
        data = file.read(size)
        try:
            _Legacy(file, file_bytes, data, content).read()
            return
        except MoreDataError:
            content.problems.clear()
    raise GaveUpError("too-large", f"the pickle does not end within {MAX_PICKLE >> 20} MiB")


def _is_tar(head: bytes) -> bool:
    """Whether :mod:`tarfile` opens it, which is what torch tries first; 512 zeros are an empty tar archive."""
    block = head[:512]
    if len(block) < 512:
        return False
    if not any(block):
        return True
    stored = re.match(rb"[ ]*([0-7]*)[ \0]*\Z", block[148:156])
    if stored is None or not stored[1]:
        return False
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    signed = unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
    return int(stored[1], 8) in (unsigned, signed)


class _Legacy:
    """One file in the legacy format being read."""

    def __init__(self, file: BinaryIO, file_bytes: int, data: bytes, content: TorchFile) -> None:
        self.file, self.file_bytes, self.data, self.content = file, file_bytes, data, content
        self.position = 0
        self.storages: dict[Any, Storage] = {}

    def read(self) -> None:
        """Fill ``content``."""
        if self._pickle() != _MAGIC:
            message = "the file starts with a pickle that torch did not write"
            raise RefusedError("broken-pickle", message, "RuntimeError: Invalid magic number; corrupt file?")
        protocol = self._pickle()
        if protocol != _PROTOCOL:
            shown = protocol if type(protocol) is int and abs(protocol) < 1 << 63 else type_name(protocol)
            message = f"the file says that its format is of version {shown}; torch reads {_PROTOCOL}"
            raise RefusedError("broken-pickle", message, f"RuntimeError: Invalid protocol version: {shown}")
        self._pickle()
        self.content.value = self._pickle(self._storage)
        keys = self._pickle()
        if not isinstance(keys, (list, tuple, dict, set, str)):
            raise TypeError(f"'{type_name(keys)}' object is not iterable")
        if len(keys) > MAX_STORAGES:
            raise GaveUpError("too-large", f"the file has {len(keys)} storages")
        self._place(keys)

    def _pickle(self, persistent: Any = None) -> Any:
        partial = len(self.data) < self.file_bytes
        machine = Machine(
            self.data,
            self.position,
            reduce=rebuild.call,
            persistent=persistent,
            partial=partial,
            lenient=self.content.lenient,
        )
        try:
            return follow(machine, self.data, self.content)
        finally:
            self.position = machine.position

    def _storage(self, identifier: Any) -> Storage:
        """A storage, or a slice of one, by its persistent id."""
        _, kind, key, _location, numel, view = storage_id(identifier, 6)
        dtype = DTYPES[storage_dtype(kind, untyped=False)]
        if type(key) not in (str, int) or type(numel) is not int:
            raise RefusedError(
                "bad-persistent-id", "the key or the length of a storage is of a wrong type", "TypeError"
            )
        root = self.storages.get(key)
        if root is None:
            nbytes = numel * dtype.itemsize
            if not 0 <= nbytes < 1 << 40:
                message = f"the pickle claims {nbytes} bytes for a storage in a file of {self.file_bytes}"
                raise RefusedError("storage-too-large", message, "RuntimeError: [enforce fail at alloc_cpu.cpp")
            root = self.storages[key] = Storage(key, dtype, nbytes, resizable=True)
        if view is None:
            return root
        if type(view) is not tuple or len(view) != 3 or any(type(number) is not int for number in view[1:]):
            raise RefusedError("bad-persistent-id", "a view of a storage is described wrongly", "TypeError")
        return self._slice(root, view, dtype)

    def _slice(self, root: Storage, view: tuple[Any, int, int], dtype: Any) -> Storage:
        key, offset, size = view
        if type(key) not in (str, int):
            raise RefusedError("bad-persistent-id", "the key of a storage view is of a wrong type", "TypeError")
        known = self.storages.get(key)
        if known is not None:
            return known
        begin = offset * dtype.itemsize
        if begin < 0 or size < 0 or begin + size * dtype.itemsize > root.nbytes:
            raise RefusedError("out-of-range", "a view of a storage reaches beyond its end", "RuntimeError")
        part = self.storages[key] = Storage(key, dtype, size * dtype.itemsize)
        part.root, part.begin = root, begin
        return part

    def _place(self, keys: Any) -> None:
        """Find the bytes of the storages, which follow in the order of ``keys``."""
        position = self.position
        for key in keys:
            storage = self.storages.get(key) if type(key) in (str, int) else None
            if storage is None:
                detail = "AssertionError: storage key"
                raise RefusedError("missing-storage", "the file lists a storage that no tensor uses", detail)
            self.file.seek(position)
            length = self.file.read(8)
            nbytes = int.from_bytes(length, "little", signed=True) * storage.dtype.itemsize
            if len(length) < 8 or (nbytes == storage.nbytes and position + 8 + nbytes > self.file_bytes):
                missing = max(8 - len(length), position + 8 + nbytes - self.file_bytes)
                message = f"the file ends {missing} bytes too early: the download or copy is incomplete"
                raise RefusedError(
                    "truncated", message, f"RuntimeError: unexpected EOF, expected {missing} more bytes."
                )
            if nbytes != storage.nbytes:
                kind = "storage-too-large" if storage.nbytes > nbytes else "storage-too-small"
                message = f"the pickle claims {storage.nbytes} bytes for a storage, and {nbytes} are stored"
                raise RefusedError(kind, message, "RuntimeError: storage has wrong byte size")
            storage.data = position + 8
            position += 8 + nbytes
