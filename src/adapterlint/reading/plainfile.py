"""Small files as bytes: regular ones only, and never more than they may hold."""

from __future__ import annotations

import errno
import os
import stat

MAX_CONFIG_BYTES = 8 << 20
"""The largest config that is read; real ones have a few kilobytes."""


def read_small(path: str, limit: int = MAX_CONFIG_BYTES) -> bytes:
    """The bytes of a file. A pipe or a device is not waited for.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger; ``strerror`` says which.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        data = os.read(descriptor, min(status.st_size, limit) + 1)
        while len(data) > status.st_size and len(data) <= limit and (more := os.read(descriptor, limit)):
            data += more  # it has grown since
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", path)
        return data
    finally:
        os.close(descriptor)
