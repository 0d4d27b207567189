"""Runs one rule on one example, the way the tool would."""

from __future__ import annotations

from pathlib import Path

from adapterlint.api import example_request
from adapterlint.findings import Finding
from adapterlint.rules.examples import AnyExample
from adapterlint.run import Run, examine


def run_example(example: AnyExample, directory: Path) -> Run:
    """Write the example below ``directory`` and examine it; a set example is given as one explicit set."""
    return examine(example_request(example, directory))


def findings_of(run: Run, code: str) -> list[Finding]:
    """Everything that one rule said."""
    return [finding for finding in run.findings if finding.rule == code]
