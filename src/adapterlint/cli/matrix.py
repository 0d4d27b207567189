"""``adapterlint matrix``."""

from __future__ import annotations

import sys
from typing import Any

import click

from adapterlint.cli.grouped import REPORTED, Command, choice
from adapterlint.cli.options import request_options, to_request
from adapterlint.cli.output import EXIT_FINDINGS, EXIT_INTERNAL, echo, guarded, nothing_to_check, use_color
from adapterlint.findings import Outcome
from adapterlint.reporters import matrix
from adapterlint.run import check

EXAMPLES = [
    ("matrix adapters --target 'peft>=0.6'", "every release from 0.6 on"),
    ("matrix a b --base model --format json", "two adapters and their set, as data"),
]


@click.command("matrix", cls=Command, examples=EXAMPLES)
@request_options
@choice("--format format_", ["table", "json"], REPORTED, "How it is printed.")
@guarded
def command(format_: str, **options: Any) -> None:
    """Adapters and sets against targets, with the reason in each cell.

    Verdicts do not depend on which rules are selected or ignored.

    Exit codes: 0 everything loads, 1 not, 2 usage or internal error, 3 no adapters.
    """
    report = check(to_request(options))
    if not report.adapters:
        nothing_to_check()
    echo(matrix.render_json(report) if format_ == "json" else matrix.render(report, color=use_color()))
    for trace in report.internal_errors:
        click.echo(f"internal error:\n{trace}", err=True)
    if report.internal_errors:
        sys.exit(EXIT_INTERNAL)
    loads = all(verdict.outcome is Outcome.LOADS for row in matrix.rows(report) for verdict in row.verdicts)
    sys.exit(0 if loads else EXIT_FINDINGS)
