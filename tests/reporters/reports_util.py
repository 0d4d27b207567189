"""Reports of examples written below the working directory, and how to read what was drawn of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapterlint.report import Report
from adapterlint.rules.examples import BaseExample, Example, write, write_base
from adapterlint.run import Request, check

TEXT_FORMATS = ("full", "concise", "github")
MACHINE_FORMATS = ("gitlab", "junit", "markdown", "rdjson")


def report_of(
    adapters: Mapping[str, Example], base: BaseExample | None = None, targets: Sequence[str] = (), **options: Any
) -> Report:
    """The report on adapters that are written below the working directory under their names; seconds are fixed."""
    for name, example in adapters.items():
        write(example, Path(name))
    if base is not None:
        write_base(base, Path("base"))
    found = check(Request(list(adapters), targets=targets, base="base" if base else None, **options))
    return found._replace(summary=found.summary._replace(seconds=0.25), tool_version="0.0.0")


def columns(char: str) -> int:
    """Terminal columns of the characters that the tests use, by block and not by the tables of the tool."""
    if "\u0300" <= char <= "\u036f":
        return 0
    wide = ("\u2e80", "\ua4cf"), ("\uac00", "\ud7a3"), ("\uff01", "\uff60"), ("\U0001f300", "\U0001faff")
    return 2 if any(low <= char <= high for low, high in wide) else 1
