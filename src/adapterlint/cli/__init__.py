"""The command line: parse, run, exit. One file a command."""

from __future__ import annotations

from adapterlint.cli.app import main

__all__ = ["main"]
