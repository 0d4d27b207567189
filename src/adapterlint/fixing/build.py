"""Builds the new state of an adapter in another directory: beside the old one, or as a copy."""

from __future__ import annotations

import os
import stat

from adapterlint.fixing.errors import RefusedError
from adapterlint.fixing.resolve import Change, ConfigChange
from adapterlint.fixing.rewrite import copy_attributes, copy_file, write_bytes, write_weights
from adapterlint.fixing.system import STAGE, flush_directory, writing

Files = list[tuple[str, str]]
"""Files that were written, which are not on the disk yet, each with the one that it was made from."""


def build_view(change: Change, directory: str) -> Files:
    """Writes the new files into ``directory``, and links to all others. Raises WriteError."""
    files = _write_changed(change, directory, strict=True)
    rewritten = {*(each.old for each in change.rewritten), *change.removed}
    moves = dict(change.moves)
    with writing(change.plan.path):
        for name in os.listdir(change.root):
            if name != STAGE and name not in rewritten:
                _link(os.path.join(change.root, name), os.path.join(directory, moves.get(name, name)))
    return files


def build_copy(change: Change, directory: str) -> Files:
    """Writes the whole adapter, with the new files, into ``directory``. Raises WriteError, RefusedError."""
    files = _write_changed(change, directory, strict=False)
    omit = {*(each.old for each in change.rewritten), *change.removed}
    _copy_tree(change.root, directory, (change.root,), omit, dict(change.moves), files)
    return files


def written_bytes(change: Change) -> int:
    """Size of the files that will be written anew."""
    weights = change.weights.after.size if change.weights is not None else 0
    return weights + (len(change.config.after) if change.config is not None else 0)


def copied_bytes(change: Change) -> int:
    """Size of all files of the adapter, links followed."""
    total = 0
    for directory, _, names in os.walk(change.root):
        paths = (os.path.join(directory, name) for name in names)
        total += sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
    return total


def _write_changed(change: Change, directory: str, *, strict: bool) -> Files:
    files = []
    for each in change.rewritten:
        model = change.weights if isinstance(each, ConfigChange) and each.fresh and change.weights else each
        old, new = os.path.join(change.plan.path, model.old), os.path.join(directory, each.new)
        with writing(old):
            if isinstance(each, ConfigChange):
                write_bytes(each.after, new)
            else:
                write_weights(each.after, new)
            copy_attributes(old, new, strict=strict)
        files.append((new, old))
    return files


def _link(target: str, path: str) -> None:
    try:
        os.symlink(target, path, target_is_directory=os.path.isdir(target))
    except OSError:  # Windows, without the right to make symbolic links
        if not os.path.isdir(target):
            os.link(target, path)


def _copy_tree(
    source: str, target: str, above: tuple[str, ...], omit: set[str], names: dict[str, str], files: Files
) -> None:
    """Copies a directory's content, and adds to ``files``; ``above`` are the real paths of what it is in."""
    with writing(source):
        entries = sorted(os.listdir(source))
    for name in entries:
        if name != STAGE and name not in omit:
            inner = {left.partition("/")[2] for left in omit if left.startswith(f"{name}/")}
            _copy_entry(os.path.join(source, name), os.path.join(target, names.get(name, name)), above, files, inner)
    with writing(source):
        # Its owner must be able to put it in place, and to remove it again.
        os.chmod(target, stat.S_IMODE(os.stat(source).st_mode) | stat.S_IRWXU)
        flush_directory(target)


def _copy_entry(source: str, target: str, above: tuple[str, ...], files: Files, omit: set[str]) -> None:
    with writing(source):
        if os.path.isdir(source):
            real = os.path.realpath(source)
            if real in above:
                raise RefusedError(source, "the link leads back to a directory that it is in, and cannot be copied")
            os.mkdir(target)
            _copy_tree(source, target, (*above, real), omit, {}, files)
        elif os.path.isfile(source):
            copy_file(source, target)
            copy_attributes(source, target, strict=False)
            status = os.stat(source)
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            files.append((target, source))
        elif os.path.islink(source):
            os.symlink(os.readlink(source), target)
        else:
            raise RefusedError(source, "it is neither a file nor a directory, and cannot be copied")
