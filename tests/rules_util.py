"""Runs one rule on one example, the way the tool would."""

from __future__ import annotations

from pathlib import Path

from adapterlint.findings import Finding
from adapterlint.rules.examples import AnyExample, SetExample, write_any
from adapterlint.run import Request, Run, examine


def run_example(example: AnyExample, directory: Path) -> Run:
    """Write the example below ``directory`` and examine it; a set example is given as one explicit set."""
    paths, base = write_any(example, directory)
    grouping = "one" if isinstance(example, SetExample) else "none"
    return examine(Request([str(path) for path in paths], base=str(base) if base else None, grouping=grouping))


def findings_of(run: Run, code: str) -> list[Finding]:
    """Everything that one rule said."""
    found = [finding for checked in run.adapters for finding in checked.findings]
    found += [finding for checked in run.sets for finding in checked.findings]
    return [finding for finding in found if finding.rule == code]
