"""A bar on the standard error stream, where that is a terminal and the work is long."""

from __future__ import annotations

import os
import sys
import time

PATIENCE = 1.0
"""Seconds without a word; what is done by then needs none."""

_STEP = 0.1


_WIDTH = 30


def progress_bar() -> Bar | None:
    """Something that is told how many adapters are done; None where the terminal cannot draw over a line."""
    if os.environ.get("TERM") == "dumb":
        return None
    return Bar()


class Bar:
    """Draws itself over itself, a few times a second, and wipes itself away when all is done."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PATIENCE
        self._drawn = False

    def __call__(self, done: int, total: int) -> None:
        """Tell how many adapters are done, and of how many."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _STEP
            self._drawn = True
            filled = _WIDTH * done // total
            bar = "#" * filled + "." * (_WIDTH - filled)
            self._write(f"[{bar}] {done} of {total} adapters")
        if done == total and self._drawn:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text}\x1b[K")
        if not text:
            sys.stderr.write("\r")
        sys.stderr.flush()
