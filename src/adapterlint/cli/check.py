"""``adapterlint check``."""

from __future__ import annotations

import sys
from typing import Any

import click

from adapterlint.cli.options import request_options, to_request
from adapterlint.cli.output import EXIT_FINDINGS, EXIT_INTERNAL, EXIT_NOTHING, guarded
from adapterlint.cli.reports import FORMATS, destinations, write
from adapterlint.findings import Severity
from adapterlint.report import Report
from adapterlint.run import check

SEVERITIES = [severity.value for severity in reversed(Severity)]


@click.command("check")
@request_options
@click.option(
    "-o",
    "--report",
    "reports",
    multiple=True,
    metavar="FORMAT[=FILE]",
    help=f"Write a report, to the standard output or to FILE; repeatable. Formats: {', '.join(FORMATS)}.",
)
@click.option("--format", "format_", type=click.Choice(FORMATS), help="The same as -o FORMAT.  [default: full]")
@click.option("--fail-on", type=click.Choice([*SEVERITIES, "never"]), default="error", show_default=True)
@click.option(
    "--against",
    multiple=True,
    metavar="DIR",
    help="Adapters that are served already, repeatable: report only what PATHS bring when they join.",
)
@click.option("--exit-zero", is_flag=True, help="Exit 0 whatever is found (internal errors still exit 2).")
@guarded
def command(
    reports: tuple[str, ...],
    format_: str | None,
    fail_on: str,
    exit_zero: bool,
    against: tuple[str, ...],
    **options: Any,
) -> None:
    """Say what PEFT will do with the adapters at and below PATHS.

    Several PATHS that are adapters are one set, loaded in that order.
    """
    wanted = destinations(reports, format_)
    request = to_request(options)
    if against:
        from adapterlint.joining import check_against

        report = check_against(request, against)
    else:
        report = check(request)
    write(report, wanted)
    sys.exit(exit_code(report, fail_on, exit_zero))


def exit_code(report: Report, fail_on: str, exit_zero: bool) -> int:
    """0 clean, 1 findings at or above the threshold, 2 a rule crashed, 3 no adapters."""
    if report.internal_errors:
        return EXIT_INTERNAL
    if not report.adapters:
        return 0 if exit_zero else EXIT_NOTHING
    if exit_zero or fail_on == "never":
        return 0
    threshold = Severity(fail_on).rank
    failing = any(item.finding.severity.rank >= threshold for item in report.shown)
    return EXIT_FINDINGS if failing else 0
