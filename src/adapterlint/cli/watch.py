"""``check --watch``: check, wait until a file changes, check again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import click

from adapterlint.config.find import OWN, SHARED

INTERVAL = 0.5
"""Seconds between two looks; a look costs one stat a file."""

_SKIPPED = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", ".venv", "venv", ".tox"})
Snapshot = dict[str, tuple[int, int]]


def watch(paths: Sequence[str]) -> int:
    """Run this very command without ``--watch`` whenever something at or below the paths, or a setting, changes.

    Each check is a process of its own, so that nothing is remembered from the one before. Returns 0, on Ctrl-C.
    """
    command = [sys.executable, *(argument for argument in sys.orig_argv[1:] if argument != "--watch")]
    try:
        while True:
            before = snapshot(paths)
            subprocess.run(command, check=False)
            click.echo(f"watching {len(before)} files, Ctrl-C ends it", err=True)
            while snapshot(paths) == before:
                time.sleep(INTERVAL)
            _settle(paths)
            click.echo("\nsomething changed", err=True)
    except KeyboardInterrupt:
        click.echo(err=True)
        return 0


def _settle(paths: Sequence[str]) -> None:
    """Wait until what is being written is written: until two looks see the same."""
    while True:
        before = snapshot(paths)
        time.sleep(INTERVAL / 2)
        if snapshot(paths) == before:
            return


def snapshot(paths: Sequence[str]) -> Snapshot:
    """Modification time, in nanoseconds, and size of every file at and below the paths, and of settings above them."""
    found: Snapshot = {}
    for path in {*_files(paths), *_settings(paths)}:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found[path] = (status.st_mtime_ns, status.st_size)
    return found


def _files(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        yield path
        for directory, folders, names in os.walk(path):
            folders[:] = [name for name in folders if name not in _SKIPPED]
            yield from (os.path.join(directory, name) for name in names)


def _settings(paths: Sequence[str]) -> Iterator[str]:
    """Where a configuration file is, or may turn up."""
    for path in paths:
        directory = os.path.abspath(path)
        while True:
            yield from (os.path.join(directory, name) for name in (OWN, SHARED))
            parent = os.path.dirname(directory)
            if parent == directory:
                break
            directory = parent
