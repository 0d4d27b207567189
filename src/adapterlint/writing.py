"""Files that are written whole, or not at all."""

from __future__ import annotations

import contextlib
import os


def replace_file(path: str, data: bytes) -> None:
    """Put data in the place of a file, which keeps its mode; a symbolic link stays, and what it points to is replaced.

    Raises OSError, with the old file as it was.
    """
    target = os.path.realpath(path)
    staged = f"{target}.{os.getpid()}.new"
    try:
        with open(staged, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            if not os.access(target, os.W_OK):
                raise PermissionError(13, "Permission denied")
            os.chmod(staged, os.stat(target).st_mode & 0o7777)
        os.replace(staged, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(staged)
        raise
