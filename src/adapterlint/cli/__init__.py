"""The command line: parse, run, exit. One file a command."""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from adapterlint.cli.app import main

__all__ = ["main", "script"]


def script() -> None:
    """The ``adapterlint`` command: :func:`main` in a process of its own.

    Collecting garbage and tearing the interpreter down take a tenth of a short run, and free what is about to be freed.
    """
    gc.set_threshold(100_000)
    try:
        main()
    except SystemExit as error:
        code = error.code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed pipe: nobody reads the rest
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
