"""``adapterlint check``."""

from __future__ import annotations

import sys
from typing import Any

import click

from adapterlint.cli.grouped import CHECKED, CONFIGURED, REPORTED, RUNNING, Command, option
from adapterlint.cli.options import completes, request_options, to_request, to_settings
from adapterlint.cli.output import EXIT_FINDINGS, EXIT_INTERNAL, EXIT_NOTHING, guarded
from adapterlint.cli.reports import FORMATS, destinations, write
from adapterlint.config.keys import FAIL_ON
from adapterlint.findings import Severity
from adapterlint.report import Report
from adapterlint.run import Request, check

EXAMPLES = [
    ("check adapters", "every adapter below, for the newest PEFT"),
    ("check a b --base model", "two adapters, together on their base"),
    ("check adapters --target 'peft>=0.6,<0.14'", "every release in a range"),
    ("check new --against a --against b", "may it join those that are served?"),
    ("check adapters -o full -o sarif=adapters.sarif", "one report to read, one in a file"),
    ("check adapters --select AL5 --statistics", "how often which rule about sets"),
]


@click.command("check", cls=Command, examples=EXAMPLES)
@request_options
@option(
    "--against",
    multiple=True,
    type=click.Path(),
    metavar="DIR",
    group=CHECKED,
    help="Adapters that are served already, repeatable: report only what PATHS bring when they join.",
)
@option(
    "--baseline",
    type=click.Path(),
    metavar="FILE",
    group=CONFIGURED,
    help="Report only what this file of known findings lacks.",
)
@option(
    "-o",
    "--report",
    "reports",
    multiple=True,
    metavar="FORMAT[=FILE]",
    shell_complete=completes("complete_formats"),
    group=REPORTED,
    help=f"Write a report, to the standard output or to FILE; repeatable. Formats: {', '.join(FORMATS)}.",
)
@option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    group=REPORTED,
    help="The same as -o FORMAT.  [default: full]",
)
@option("--statistics", is_flag=True, group=REPORTED, help="Print how often each rule reports, not the findings.")
@option("--quiet", "-q", is_flag=True, group=REPORTED, help="Print the findings, and nothing else.")
@option("--fail-on", type=click.Choice(FAIL_ON), group=RUNNING, help="Exit 1 from this severity on.  [default: error]")
@option("--exit-zero", is_flag=True, group=RUNNING, help="Exit 0 whatever is found (internal errors still exit 2).")
@option("--watch", is_flag=True, group=RUNNING, help="Check again whenever a file changes, until Ctrl-C.")
@option("--timing", is_flag=True, group=RUNNING, help="Print what each rule costs, on the standard error stream.")
@guarded
def command(
    reports: tuple[str, ...],
    format_: str | None,
    statistics: bool,
    exit_zero: bool,
    against: tuple[str, ...],
    watch: bool,
    timing: bool,
    **options: Any,
) -> None:
    """Say what PEFT will do with the adapters at and below PATHS.

    Several PATHS that are adapters are one set, loaded in that order. Settings also come from adapterlint.toml or
    pyproject.toml; `adapterlint config` shows them.

    Exit codes: 0 clean, 1 findings, 2 usage or internal error, 3 nothing to check.
    """
    wanted = destinations(reports, format_)
    counted = None
    if statistics:
        from adapterlint.cli.statistics import counted_instead

        counted, wanted = counted_instead(wanted)
    settings = to_settings(options)
    if watch:
        from adapterlint.cli.watch import watch as run

        sys.exit(run([*options["paths"], *against, *settings.files]))
    request = to_request(options, settings)
    if timing:
        from adapterlint.cli.timing import timed

        with timed():
            report = _report(request, against)
    else:
        report = _report(request, against)
    report = report._replace(quiet=options["quiet"])
    write(report, wanted)
    if counted is not None:
        counted(report)
    sys.exit(exit_code(report, settings["fail-on"], exit_zero))


def _report(request: Request, against: tuple[str, ...]) -> Report:
    if not against:
        return check(request)
    from adapterlint.joining import check_against

    return check_against(request, against)


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
