"""Paths -> adapter directories. Only names are looked at; nothing is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from adapterlint.errors import UserError
from adapterlint.findings import CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE

MARKERS = frozenset({CONFIG_FILE, SAFETENSORS_FILE, PICKLE_FILE})
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_SKIPPED = frozenset(
    {".adapterlint-stage", ".git", ".hg", ".svn", "__pycache__", "node_modules", ".venv", "venv", ".tox", ".mypy_cache"}
)


class NotFoundError(UserError):
    """A path that does not exist."""


class Found(NamedTuple):
    """An adapter directory.

    Attributes:
        path: the directory, relative or absolute as the user's path was.
        explicit: the path itself was given, not found below another.
    """

    path: str
    explicit: bool


def is_adapter(directory: str) -> bool:
    """Whether a directory holds one of the three files of a PEFT adapter."""
    return any(os.path.lexists(os.path.join(directory, name)) for name in MARKERS)


def discover(paths: Sequence[str]) -> list[Found]:
    """Adapter directories at and below the paths, in the order given, those below one path sorted; each once.

    A path to a file stands for its directory alone, as if found by looking: tools that pass file names, such as
    pre-commit, pass what changed, not a loading order. A given directory that holds other files but no adapter counts
    as one when nothing below it does, so that misnamed weights are reported and not passed over.

    Raises:
        NotFoundError: a path does not exist.
    """
    found: dict[str, Found] = {}
    for path in paths:
        if not os.path.lexists(path):
            raise NotFoundError(f"{path}: no such file or directory")
        if os.path.isdir(path):
            for real, item in _below(path):
                found.setdefault(real, item)
        else:
            item = Found(os.path.dirname(path) or ".", explicit=False)
            found.setdefault(os.path.realpath(item.path), item)
    return list(found.values())


def _below(top: str) -> list[tuple[str, Found]]:
    """The adapters at and below a directory, with their real paths: links are not followed further down."""
    reals = {top: os.path.realpath(top)}
    found = [(reals[top], Found(top, explicit=True))] if is_adapter(top) else []
    for directory, folders, files in os.walk(top):
        real = reals.pop(directory)
        if directory != top and not MARKERS.isdisjoint((*files, *folders)):
            found.append((real, Found(directory, explicit=False)))
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        reals.update((os.path.join(directory, name), os.path.join(real, name)) for name in folders)
    if not found and _may_hold_weights(top):
        found.append((os.path.realpath(top), Found(top, explicit=True)))
    return found


def _may_hold_weights(directory: str) -> bool:
    """Whether weights lie there under another name, or could: a directory that cannot be listed must not pass."""
    try:
        return any(name.endswith(_WEIGHTS_SUFFIXES) for name in os.listdir(directory))
    except OSError:
        return True
