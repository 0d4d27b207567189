"""The directory of a zip archive as torch's reader (miniz) sees it: names, sizes and places, nothing unpacked.

Why not :mod:`zipfile`: it reads a directory of any size into objects, judges other archives as broken than torch does,
and its import alone takes longer than the whole job.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, NamedTuple

MAX_DIRECTORY = 16 << 20
"""Bytes of central directory that are read; one of 448 tensors has 35 kB."""
MAX_MEMBERS = 100_000
STORED, DEFLATED = 0, 8

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY = struct.Struct("<4s4xHH8xIIHHHH2xII")
_ENTRY_BYTES = 46
_LOCAL_BYTES = 30
_UNSET32 = 0xFFFFFFFF
_ENCRYPTED = 0x1 | 0x40 | 0x2000


class BrokenZip(Exception):  # noqa: N818 - a finding about the file, not a failure of the reader
    """miniz does not read the archive.

    Attributes:
        reason: what it says.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Member(NamedTuple):
    """A file in the archive.

    Attributes:
        name: its name; bytes that are not UTF-8 come out as lone surrogates.
        key: its name as miniz compares it: bytes, ASCII letters in lower case.
        size: unpacked bytes.
        packed: bytes in the file.
        method: 0 stored, 8 deflated; other methods torch does not read.
        offset: where its local header starts in the file.
        flags: general purpose flags.
        directory: whether it is marked as a directory, which miniz leaves unread: torch gets uninitialised memory.
    """

    name: str
    key: bytes
    size: int
    packed: int
    method: int
    offset: int
    flags: int
    directory: bool

    @property
    def encrypted(self) -> bool:
        """Whether miniz refuses to read it as encrypted."""
        return bool(self.flags & _ENCRYPTED)


def list_members(file: BinaryIO, file_bytes: int) -> list[Member]:
    """The members in the order of the central directory.

    Raises:
        BrokenZip: miniz refuses the archive.
        OverflowError: the directory is larger than :data:`MAX_DIRECTORY` or :data:`MAX_MEMBERS`.
        OSError: the file cannot be read.
    """
    count, size, start = _find_directory(file, file_bytes)
    if size < count * _ENTRY_BYTES or start + size > file_bytes:
        raise BrokenZip("invalid header or archive is corrupted")
    if size > MAX_DIRECTORY or count > MAX_MEMBERS:
        raise OverflowError(f"the zip directory has {count} entries in {size} bytes")
    file.seek(start)
    directory = file.read(size)
    members = []
    position = 0
    for _ in range(count):
        member, position = _entry(directory, position, file_bytes)
        members.append(member)
    return members


def _find_directory(file: BinaryIO, file_bytes: int) -> tuple[int, int, int]:
    """Number of entries, bytes and offset of the central directory."""
    tail_bytes = min(file_bytes, 0xFFFF + 22)
    file.seek(file_bytes - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(_END, 0, max(len(tail) - 22 + 4, 0))
    if at < 0:
        reason = "not a ZIP archive" if file_bytes < 22 else "failed finding central directory"
        raise BrokenZip(reason)
    disk, first_disk, here, count, size, start = struct.unpack_from("<4xHHHHII", tail, at)
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR64:
        (end64,) = struct.unpack_from("<8xQ", tail, at - 20)
        file.seek(min(end64, file_bytes))
        record = file.read(56)
        if record.startswith(_END64) and len(record) == 56:
            disk, first_disk, here, count, size, start = struct.unpack_from("<16xIIQQQQ", record)
    if count != here or (disk, first_disk) not in ((0, 0), (1, 1)):
        raise BrokenZip("unsupported multidisk archive")
    return count, size, start


def _entry(directory: bytes, position: int, file_bytes: int) -> tuple[Member, int]:
    if position + _ENTRY_BYTES > len(directory):
        raise BrokenZip("invalid header or archive is corrupted")
    fields = _ENTRY.unpack_from(directory, position)
    signature, flags, method, packed, size, name_bytes, extra_bytes, comment_bytes, disk, attributes, offset = fields
    if signature != b"PK\x01\x02":
        raise BrokenZip("invalid header or archive is corrupted")
    behind_name = position + _ENTRY_BYTES + name_bytes
    raw = directory[position + _ENTRY_BYTES : behind_name]
    if _UNSET32 in (packed, size, offset):
        extra = directory[behind_name : behind_name + extra_bytes]
        size, packed, offset = _zip64(extra, size, packed, offset)
    if (method == STORED and size != packed) or (size and not packed) or offset + _LOCAL_BYTES + packed > file_bytes:
        raise BrokenZip("invalid header or archive is corrupted")
    if disk not in (0, 1, 0xFFFF):
        raise BrokenZip("unsupported multidisk archive")
    end = behind_name + extra_bytes + comment_bytes
    if end > len(directory):
        raise BrokenZip("invalid header or archive is corrupted")
    # torch reads all names as UTF-8, whatever the flag for it says.
    name = raw.decode("utf-8", "surrogateescape")
    return Member(name, raw.lower(), size, packed, method, offset, flags, bool(attributes & 0x10)), end


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Replace the fields that do not fit 32 bits by those of the extra field."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            body = extra[position + 4 : position + 4 + length]
            values = [number for (number,) in struct.iter_unpack("<Q", body[: len(body) // 8 * 8])]
            wide = [value for value in (size, packed, offset) if value == _UNSET32]
            if len(values) < len(wide):
                raise BrokenZip("invalid header or archive is corrupted")
            size, packed, offset = (values.pop(0) if value == _UNSET32 else value for value in (size, packed, offset))
            break
        position += 4 + length
    return size, packed, offset


def data_offset(file: BinaryIO, member: Member, file_bytes: int) -> int:
    """Where the bytes of a member start in the file.

    Raises:
        BrokenZip: there is no local header at its place, or the member leads out of the file.
        OSError: the file cannot be read.
    """
    file.seek(member.offset)
    header = file.read(_LOCAL_BYTES)
    if len(header) < _LOCAL_BYTES or not header.startswith(b"PK\x03\x04"):
        raise BrokenZip("invalid header or archive is corrupted")
    name_bytes, extra_bytes = struct.unpack_from("<26xHH", header)
    start = int(member.offset + _LOCAL_BYTES + name_bytes + extra_bytes)
    if start + member.packed > file_bytes:
        raise BrokenZip("invalid header or archive is corrupted")
    return start


def read_member(file: BinaryIO, member: Member, file_bytes: int) -> bytes:
    """The unpacked bytes of a member; its checksum is not looked at, as torch does not either.

    The caller sees to it that ``member.size`` is small enough.

    Raises:
        BrokenZip: torch does not unpack it.
        OSError: the file cannot be read.
    """
    if member.encrypted or member.method not in (STORED, DEFLATED):
        raise BrokenZip("unsupported encryption" if member.encrypted else "unsupported method")
    file.seek(data_offset(file, member, file_bytes))
    data = file.read(member.size) if member.method == STORED else _inflate(file, member)
    if len(data) != member.size:
        raise BrokenZip("decompression failed or archive is corrupted")
    return data


def _inflate(file: BinaryIO, member: Member) -> bytes:
    """Unpack at most ``member.size + 1`` bytes."""
    inflater = zlib.decompressobj(-15)
    parts = []
    room, left = member.size + 1, member.packed
    try:
        while room > 0 and not inflater.eof:
            packed = inflater.unconsumed_tail or file.read(min(left, 1 << 20))
            if not inflater.unconsumed_tail:
                left -= len(packed)
            if not packed:
                break
            part = inflater.decompress(packed, room)
            parts.append(part)
            room -= len(part)
    except zlib.error:
        raise BrokenZip("decompression failed or archive is corrupted") from None
    return b"".join(parts)
