"""What the operating system does for a fix: locks, writes that reach the disk, errors with a name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from queue import SimpleQueue
from threading import Thread
from types import ModuleType, TracebackType

from adapterlint.fixing.errors import WriteError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STAGE = ".adapterlint-stage"
"""Name of the hidden directory in which new files are built. Discovery and other tools should pass over it."""


_FEW = 40
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns an OSError inside into a WriteError: about the file that it names, or about ``path`` if that is staged."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) and STAGE not in error.filename else path
        raise WriteError(named, error.strerror or str(error)) from error


def flush(descriptor: int) -> None:
    """Returns when the file's bytes are on the disk. Raises OSError."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if fcntl is not None and full is not None:  # macOS, where fsync leaves them in the drive's own cache
        with suppress(OSError):
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def flush_directory(path: str) -> None:
    """Returns when the names in the directory are on the disk. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no directories.
        return
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush_file(path: str) -> None:
    """Returns when the file's bytes and attributes are on the disk. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        flush(file.fileno())


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Does the work in a thread while the block runs, and ends when both have.

    Raises what the work raised, unless the block raised something itself.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # Raised again below, where it can be seen.
            failures.append(error)

    thread = Thread(target=run, name="adapterlint")
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def early_flush(descriptor: int) -> Iterator[Callable[[int, int], None]]:
    """While the block writes a file, the disk begins with what is written, and the last flush has less to do.

    Yields what is to be called with offset and size of every part that is written. Nothing depends on it. (A flush that
    is repeated while the file grows would do it too, and stop what is writing.)
    """
    parts: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
    call = _sync_file_range()

    def work() -> None:
        while (part := parts.get()) is not None:
            if call is not None:
                call(descriptor, *part, _START_WRITING)

    with meanwhile(work):
        try:
            yield lambda offset, size: parts.put((offset, size))
        finally:
            parts.put(None)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Linux's system call, of which Python's library has no function."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # 2 ms, for large files only

    try:
        call = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


class Locks:
    """Advisory locks on directories, held until the end of the ``with`` block (or of the process)."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], int] = {}

    def __enter__(self) -> Locks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def take(self, directory: str) -> None:
        """Locks a directory. File systems without locks give none.

        Raises WriteError if another run has the lock, or if there is no such directory.
        """
        with writing(directory):
            try:
                descriptor = os.open(directory, os.O_RDONLY)
            except PermissionError:  # Windows again
                return
        status = os.fstat(descriptor)
        identity = (status.st_dev, status.st_ino)
        if identity in self._held or fcntl is None:
            os.close(descriptor)
            return
        self._held[identity] = descriptor
        if len(self._held) == _FEW:
            _allow_many_files()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WriteError(directory, "another run of adapterlint is changing it") from None
        except OSError:  # No locks on this file system.
            return


def _allow_many_files() -> None:
    """Raises the limit on open files as far as it may be: each lock takes one, and 1024 is a usual limit."""
    import resource  # Not on Windows, where there are no locks.

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
