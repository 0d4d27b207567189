"""``adapterlint baseline``."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import Any

import click

from adapterlint import baseline as file
from adapterlint.baseline import Baseline, Fingerprint, fingerprint
from adapterlint.cli.grouped import WRITTEN, Command, option
from adapterlint.cli.options import setting_options, to_request, to_settings
from adapterlint.cli.output import EXIT_FINDINGS, echo, fail, guarded, nothing_to_check
from adapterlint.config.settings import Settings
from adapterlint.findings import Finding
from adapterlint.remains import stale
from adapterlint.reporters.text import plural, printable
from adapterlint.run import examine, scope_of, to_report

DEFAULT = "adapterlint-baseline.txt"
EXAMPLES = [
    ("baseline --write adapters", "write all that is found now"),
    ("baseline --prune adapters", "drop the lines that are no longer needed"),
    ("baseline --check adapters", "exit 1 if something is new, or no longer needed"),
]


@click.command("baseline", cls=Command, examples=EXAMPLES)
@setting_options
@option("--write", is_flag=True, group=WRITTEN, help="Write down everything that check reports now.")
@option("--prune", is_flag=True, group=WRITTEN, help="Remove what is not found any more; add nothing.")
@option("--check", "compare", is_flag=True, group=WRITTEN, help="Print what --write would change; exit 1 if it would.")
@option("--baseline", metavar="FILE", group=WRITTEN, help=f"The file; else the configured one, else {DEFAULT}.")
@guarded
def command(write: bool, prune: bool, compare: bool, **options: Any) -> None:
    """Keep a file of known findings, so that `check` reports only new ones.

    `check --baseline FILE`, or the setting `baseline`, uses it. PATHS are what check is called with, by default the
    working directory; lines about adapters elsewhere are kept. Without an option it does what --check does.

    Exit codes: 0 done, or nothing to change; 1 something would change; 2 usage or internal error; 3 no adapters.
    """
    if write + prune + compare > 1:
        raise click.UsageError("--write, --prune and --check exclude each other")
    options["paths"] = options["paths"] or (".",)
    settings = to_settings({**options, "baseline": None})
    path = options["baseline"] or settings["baseline"] or DEFAULT
    old = file.read(path) if os.path.lexists(path) or prune else Baseline(path, ())
    new, gone = _now(options, settings, old)
    if write:
        file.write(path, old.counts - gone + new)
        echo(f"{printable(path)}: {_lines(new, 'added')}, {_lines(gone, 'removed')}")
    elif prune:
        file.write(path, old.counts - gone)
        echo(f"{printable(path)}: {_lines(gone, 'removed')}")
    else:
        changes = [f"+{item.line()}" for item in new.elements()] + [f"-{item.line()}" for item in gone.elements()]
        echo("\n".join([*map(_shown, sorted(changes)), f"{_lines(new, 'new')}, {_lines(gone, 'gone')}"]))
        sys.exit(EXIT_FINDINGS if changes else 0)


def _now(
    options: dict[str, Any], settings: Settings, old: Baseline
) -> tuple[Counter[Fingerprint], Counter[Fingerprint]]:
    """The findings that the baseline lacks, and its lines that are no longer needed."""
    without = settings.override({"baseline": None})
    request = to_request(options, without)
    run = examine(request)
    for trace in run.errors:
        click.echo(f"internal error:\n{trace}", err=True)
    if run.errors:
        raise fail("internal error in a rule; the baseline is as it was")
    if not run.adapters:
        nothing_to_check()
    report = to_report(request, run, time.perf_counter())
    found = Counter(fingerprint(item.finding, old.root) for item in report.shown if not _is_about(item.finding))
    gone = stale(old, run.findings, scope_of(request, run))
    return found - old.counts, Counter(entry.fingerprint for entry in gone)


def _is_about(finding: Finding) -> bool:
    """Whether it is about ignores: those are to be mended, not written down."""
    return finding.rule.startswith("AL9")


def _lines(counts: Counter[Fingerprint], word: str) -> str:
    return f"{plural(counts.total(), 'line')} {word}"


def _shown(line: str) -> str:
    return printable(line, keep="\t")
