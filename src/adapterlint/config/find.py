"""Which configuration file holds for a path; of files only a pyproject.toml is read, which may be about others."""

from __future__ import annotations

import os
from collections.abc import Sequence

OWN = "adapterlint.toml"
SHARED = "pyproject.toml"
_ROOTS = (".git", ".hg", ".svn")


def find(paths: Sequence[str]) -> str | None:
    """The configuration file that holds for the paths: the nearest, from the directory that they share upwards.

    The search ends with the root of the repository or the user's home directory, which are looked at themselves. In one
    directory adapterlint.toml comes before pyproject.toml, and a pyproject.toml without a table [tool.adapterlint] is
    none. Where there is none, adapters may lie outside of the project: the same search from the working directory
    decides.
    """
    return _upwards(_shared(paths)) or _upwards(os.getcwd())


def _upwards(directory: str) -> str | None:
    home = os.path.expanduser("~")
    while True:
        for name in (OWN, SHARED):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and (name == OWN or _is_ours(path)):
                return shown(path)
        parent = os.path.dirname(directory)
        if directory in (home, parent) or any(os.path.lexists(os.path.join(directory, name)) for name in _ROOTS):
            return None
        directory = parent


def shown(path: str) -> str:
    """The path as a user reads it: relative if it lies below the working directory."""
    found = os.path.relpath(path)
    return os.path.abspath(path) if found.startswith(os.pardir + os.sep) else found


def _shared(paths: Sequence[str]) -> str:
    """The deepest directory that all paths lie in; a path that is a directory lies in itself."""
    absolute = [os.path.abspath(path) for path in paths] or [os.getcwd()]
    try:
        common = os.path.commonpath(absolute)
    except ValueError:  # on several drives of Windows
        return os.getcwd()
    return common if os.path.isdir(common) else os.path.dirname(common)


def _is_ours(path: str) -> bool:
    """Whether a pyproject.toml has the table; the parser is fetched only where some key may be called so."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return False
    import re

    if not re.search(rb"""tool["']?[ \t]*(?:\.[ \t]*["']?adapterlint|\]|=)""", data):
        return False
    from adapterlint.config.files import has_table

    return has_table(path)
