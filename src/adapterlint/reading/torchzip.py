"""The zip archive that ``torch.save`` writes: one pickle, and one member for each storage.

Checks and their order are those of ``torch.load`` and of its archive reader (``caffe2/serialize/inline_container.cc``).
"""

from __future__ import annotations

import re
from typing import Any, BinaryIO

from . import rebuild
from .opcodes import Machine
from .picklevalues import GaveUpError, RefusedError, Storage
from .torchcontent import MAX_PICKLE, TorchFile, follow, storage_dtype, storage_id
from .torchglobals import DTYPES
from .ziplist import DEFLATED, STORED, BrokenZip, Member, data_offset, list_members, read_member

_MAX_RECORD = 4096
_FAIL = "RuntimeError: [enforce fail at inline_container.cc"
_MINIZ = "RuntimeError: PytorchStreamReader failed"


def read_zipped(file: BinaryIO, file_bytes: int, content: TorchFile) -> None:
    """Read a zip archive into ``content``; what torch raises for comes as RefusedError and other exceptions."""
    _Zip(file, file_bytes, content).read()


class _Zip:
    """One zip archive being read."""

    def __init__(self, file: BinaryIO, file_bytes: int, content: TorchFile) -> None:
        self.file, self.file_bytes, self.content = file, file_bytes, content
        self.root = b""
        self.by_key: dict[bytes, Member] = {}
        self.storages: dict[Any, Storage] = {}

    def read(self) -> None:
        """Fill ``content``."""
        self._list()
        self._check_version()
        self._check_records()
        pickle = self._record("data.pkl")
        if pickle is None:
            detail = f"{_MINIZ} locating file data.pkl: file not found."
            raise RefusedError("broken-archive", "the archive has no data.pkl: it is no torch file", detail)
        data = self._unpack(pickle, MAX_PICKLE)
        machine = Machine(data, reduce=rebuild.call, persistent=self._storage, lenient=self.content.lenient)
        self.content.value = follow(machine, data, self.content)
        deflated = [member.name for member in (pickle, *self.content.members.values()) if member.method == DEFLATED]
        if deflated:
            message = f"{len(deflated)} members of the archive are compressed (`{deflated[0][:80]}`)"
            self.content.add("deflated", message, fatal=False)

    def _list(self) -> None:
        try:
            members = list_members(self.file, self.file_bytes)
        except BrokenZip as error:
            kind = "truncated" if "central" in error.reason else "broken-archive"
            message = f"the zip archive cannot be read: {error.reason}"
            raise RefusedError(kind, message, _MINIZ) from None
        except OverflowError as error:
            raise GaveUpError("too-large", str(error)) from None
        if not members:
            detail = "RuntimeError: archive does not contain any files"
            raise RefusedError("broken-archive", "the zip archive is empty", detail)
        root, slash, _ = members[0].name.encode("utf-8", "surrogateescape").partition(b"/")
        if not slash:
            message = f"the archive holds `{members[0].name[:80]}` outside any folder: torch did not write it"
            raise RefusedError("broken-archive", message, _FAIL)
        self.root = members[0].key[: len(root) + 1]
        for member in members:
            if member.key in self.by_key:
                message = f"the archive has two members named `{member.name[:80]}`"
                raise GaveUpError("duplicate-member", message)
            self.by_key[member.key] = member
        self.names = [member.name for member in members]

    def _record(self, name: str) -> Member | None:
        """torch's ``getRecord``; miniz compares names without regard to case."""
        return self.by_key.get(self.root + name.encode("utf-8", "surrogateescape").lower())

    def _unpack(self, member: Member, limit: int) -> bytes:
        _check_directory(member)
        if member.size > limit:
            raise GaveUpError("too-large", f"the member `{member.name[:80]}` of the archive has {member.size} bytes")
        try:
            return read_member(self.file, member, self.file_bytes)
        except BrokenZip as error:
            name = member.name.partition("/")[2][:80]
            message = f"the member `{name}` of the archive cannot be read: {error.reason}"
            raise RefusedError("broken-archive", message, _MINIZ) from None

    def _small(self, name: str) -> bytes | None:
        member = self._record(name)
        return None if member is None else self._unpack(member, _MAX_RECORD)

    def _check_version(self) -> None:
        self._small(".data/serialization_id")
        version = self._small(".data/version")
        if version is None:
            version = self._small("version")
        if version is None:
            message = "the archive has no `version` beside its first member: it is no torch file, or was packed anew"
            detail = 'RuntimeError: Expected hasRecord("version") to be true, but got false.'
            raise RefusedError("broken-archive", message, detail)
        number = re.match(rb"[ \t\n\v\f\r]*([+-]?[0-9]{1,30})", version)
        if number is None:
            raise RefusedError("broken-archive", "the `version` in the archive is no number", _FAIL)
        if not 1 <= int(number[1]) <= 10:
            message = f"the archive is of version {int(number[1])}; torch reads 1 to 10"
            raise RefusedError("broken-archive", message, _FAIL)

    def _check_records(self) -> None:
        """What ``torch.load`` looks at before the pickle."""
        if any("\udc80" <= char <= "\udcff" for name in self.names for char in name if char > "\x7f"):
            raise RefusedError("broken-archive", "the archive has a name that is not UTF-8", "UnicodeDecodeError")
        root = self.names[0].partition("/")[0] + "/"
        stray = next((name for name in self.names if not name.startswith(root)), None)
        if stray is not None:
            message = f"the archive holds `{stray[:80]}` outside its folder `{root[:80]}`: it was packed anew"
            raise RefusedError("broken-archive", message, _FAIL)
        if root + "constants.pkl" in self.names:
            detail = "RuntimeError: Cannot use ``weights_only=True`` with TorchScript archives"
            raise RefusedError("torchscript", "the file is a TorchScript archive", detail)
        order = self._small("byteorder")
        if order not in (None, b"little", b"big"):
            detail = "ValueError: Unknown endianness type"
            raise RefusedError("broken-archive", "the archive has an unknown byte order", detail)
        if order == b"big":
            self.content.little_endian = False
            self.content.add("big-endian", "numbers are stored big-endian", fatal=False)
        alignment = self._small(".storage_alignment")
        if alignment is not None and not re.fullmatch(rb"\s*[+-]?[0-9](_?[0-9])*\s*", alignment):
            detail = "ValueError: invalid literal for int() with base 10"
            raise RefusedError("broken-archive", "the archive has a bad .storage_alignment", detail)

    def _storage(self, identifier: Any) -> Storage:
        """A storage by its persistent id; the first of a key counts."""
        _, kind, key, _location, numel = storage_id(identifier, 5)
        dtype = storage_dtype(kind, untyped=True)
        if type(key) not in (str, int) or type(numel) is not int:
            raise RefusedError(
                "bad-persistent-id", "the key or the length of a storage is of a wrong type", "TypeError"
            )
        known = self.storages.get(key)
        if known is not None:
            return known
        name = f"data/{key}"
        member = self._record(name)
        if member is None:
            detail = f"{_MINIZ} locating file {name[:80]}: file not found."
            message = f"the archive has no member `{name[:80]}`, which the pickle refers to"
            raise RefusedError("missing-storage", message, detail)
        self._check_member(name, member)
        nbytes = numel * DTYPES[dtype].itemsize
        if nbytes != member.size:
            raise _wrong_size(name, member.size, nbytes)
        storage = Storage(key, DTYPES[dtype], nbytes)
        self.content.put(storage, member)
        if nbytes:
            self.storages[key] = storage
        return storage

    def _check_member(self, name: str, member: Member) -> None:
        """Whether a storage could be unpacked, as far as can be told without reading it."""
        _check_directory(member)
        try:
            if member.encrypted or member.method not in (STORED, DEFLATED):
                raise BrokenZip("unsupported encryption or method")
            if member.packed:
                data_offset(self.file, member, self.file_bytes)
        except BrokenZip as error:
            message = f"the member `{name[:80]}` of the archive cannot be read: {error.reason}"
            raise RefusedError("broken-archive", message, _MINIZ) from None


def _check_directory(member: Member) -> None:
    if member.directory:
        message = f"the member `{member.name[:80]}` of the archive is marked as a directory"
        raise GaveUpError("directory-member", message)


def _wrong_size(name: str, actual: int, claimed: int) -> RefusedError:
    kind = "storage-too-large" if claimed > actual else "storage-too-small"
    message = f"the pickle claims {claimed} bytes for the storage `{name[:80]}`, which has {actual}"
    if 0 <= claimed < 1 << 64:
        detail = f"RuntimeError: record size ({actual} bytes) does not match expected size ({claimed} bytes"
    else:
        detail = "TypeError: get_storage_from_record(): incompatible function arguments"
    return RefusedError(kind, message, detail)
