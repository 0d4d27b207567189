"""Writes new files: the kernel moves the bytes where it can, else they pass through in blocks, never a whole tensor."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from io import FileIO

from adapterlint.fixing.layout import NewWeights
from adapterlint.fixing.strided import gather
from adapterlint.fixing.system import early_flush, flush

Told = Callable[[int, int], None]

LARGE = 16 << 20
"""Bytes from which on it pays to let the disk begin before all of them are copied."""

STEP = 8 << 20
"""Bytes that are copied then before the disk is told."""

BLOCK = 1 << 20
"""Bytes read and written at once where the kernel does not copy by itself."""

PIPE = 1 << 16
"""Bytes that Linux moves at once when it copies from file to file: 16 pages, which fill a pipe."""

# What copy_file_range says when it is the wrong tool here (another file system, an old kernel, a sandbox); not ENOSPC
# and the like, which a plain copy would meet as well.
_NOT_HERE = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.EBADF, errno.ETXTBSY}
)


def write_weights(new: NewWeights, path: str) -> None:
    """Writes the file at ``path``, which must not exist. Zeros become holes. Raises OSError."""
    with ExitStack() as stack:
        target = stack.enter_context(_created(path))
        # The size first: what no run covers reads as zeros.
        target.truncate(new.size)
        told = stack.enter_context(early_flush(target.fileno())) if new.size >= LARGE else None
        _write_all(target, new.header, 0)
        sources: dict[str, FileIO] = {}
        for run in new.runs():
            if run.source.file not in sources:
                sources[run.source.file] = stack.enter_context(open(run.source.file, "rb", buffering=0))
            copy_range(sources[run.source.file], run.source.offset, target, run.to, run.size, told)
        for tensor in new.tensors:
            if tensor.term is not None:
                _write_blocks(target, new.values.encoded(tensor.term, tensor.dtype), len(new.header) + tensor.begin)
        for to, view in new.spread():
            _write_blocks(target, gather(view), to)


def write_bytes(data: bytes, path: str) -> None:
    """Writes a small file at ``path``, which must not exist, to the disk. Raises OSError."""
    with _created(path) as target:
        _write_all(target, data, 0)
        flush(target.fileno())


def copy_file(source: str, path: str) -> None:
    """Copies a file's bytes to ``path``, which must not exist. Raises OSError."""
    with open(source, "rb", buffering=0) as old, _created(path) as target:
        copy_range(old, 0, target, 0, os.fstat(old.fileno()).st_size)


def copy_range(source: FileIO, offset: int, target: FileIO, to: int, size: int, told: Told | None = None) -> None:
    """Copies ``size`` bytes from one offset to another. Raises OSError, also if the source ends too early.

    ``told`` is called with offset and size of each part that the kernel has copied.
    """
    done = min(-to % PIPE, size)
    if done:
        # Up to the boundary by hand: only whole pages can be shared between the files, and if they are not, writes
        # that lie on a boundary give larger pieces of cache, which cost a third less here, in the proof and later on.
        _copy_blocks(source, offset, target, to, done)
    done += _copy_in_kernel(source, offset + done, target, to + done, size - done, told)
    if done < size:
        _copy_blocks(source, offset + done, target, to + done, size - done)


def _copy_in_kernel(source: FileIO, offset: int, target: FileIO, to: int, size: int, told: Told | None) -> int:
    """Bytes copied without passing through this process; fewer than ``size`` if the system cannot (more of) that."""
    if not hasattr(os, "copy_file_range"):
        return 0
    done, step = 0, STEP if told is not None else size
    while done < size:
        try:
            wanted = min(step, size - done)
            count = os.copy_file_range(source.fileno(), target.fileno(), wanted, offset + done, to + done)
        except OSError as error:
            if error.errno in _NOT_HERE:
                break
            raise
        if count == 0:  # The end of the file, or a file system that only says so: a plain read tells.
            break
        if told is not None:
            told(to + done, count)
        done += count
    return done


def _copy_blocks(source: FileIO, offset: int, target: FileIO, to: int, size: int) -> None:
    buffer = memoryview(bytearray(min(BLOCK, size)))
    source.seek(offset)
    done = 0
    while done < size:
        count = source.readinto(buffer[: min(BLOCK, size - done)])
        if not count:
            raise OSError(errno.EIO, f"the file ends {size - done} bytes too early", source.name)
        _write_all(target, buffer[:count], to + done)
        done += count


def _write_blocks(target: FileIO, blocks: Iterable[bytes], at: int) -> None:
    for data in blocks:
        _write_all(target, data, at)
        at += len(data)


def _write_all(target: FileIO, data: bytes | memoryview, at: int) -> None:
    target.seek(at)
    rest = memoryview(data)
    while rest:
        rest = rest[target.write(rest) or 0 :]


def _created(path: str) -> FileIO:
    # Nobody else may read it before it has the old file's mode.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    return open(descriptor, "r+b", buffering=0)


def copy_attributes(source: str, path: str, *, strict: bool) -> None:
    """Gives the file at ``path`` the mode, owner and extended attributes of another one.

    With ``strict`` it raises OSError if one of them cannot be kept; else they are kept where that is possible.
    Labels of the system's security modules are the system's own affair and only tried.
    """
    old = os.stat(source)
    try:
        _copy_owner(old, path)
    except PermissionError:
        if strict:
            raise
    os.chmod(path, stat.S_IMODE(old.st_mode))
    # After the mode, which would change the mask of an access control list.
    _copy_extended(source, path, strict=strict)


def _copy_owner(old: os.stat_result, path: str) -> None:
    new = os.stat(path)
    if not hasattr(os, "chown") or (old.st_uid, old.st_gid) == (new.st_uid, new.st_gid):
        return
    try:
        os.chown(path, old.st_uid, old.st_gid)
    except PermissionError as error:
        reason = f"the new file cannot be given to {old.st_uid}:{old.st_gid}, who owns the old one"
        raise PermissionError(error.errno, reason) from error


def _copy_extended(source: str, path: str, *, strict: bool) -> None:
    """Extended attributes; those that the new file inherited from its directory are taken away."""
    if not hasattr(os, "listxattr"):
        return
    try:
        wanted = {name: os.getxattr(source, name) for name in os.listxattr(source)}
        present = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    except OSError:  # A file system without them.
        return
    for name in sorted(wanted.keys() | present.keys()):
        if wanted.get(name) == present.get(name) or (name not in wanted and name.startswith("security.")):
            continue
        try:
            if name in wanted:
                os.setxattr(path, name, wanted[name])
            else:
                os.removexattr(path, name)
        except OSError:
            if strict and not name.startswith(("security.", "trusted.")):
                raise
