"""``adapterlint fix``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from adapterlint.cli.grouped import REPORTED, WRITTEN, Command, choice, option
from adapterlint.cli.options import request_options, to_request
from adapterlint.cli.output import EXIT_FINDINGS, EXIT_INTERNAL, EXIT_NOTHING, fail, guarded
from adapterlint.fixing.errors import InternalError
from adapterlint.fixing.forms import FORMS
from adapterlint.fixing.prove import Proof
from adapterlint.fixing.repair import AdapterPlan, FixReport, FixRequest, repair
from adapterlint.reporters.text import printable

EXAMPLES = [
    ("fix adapters --base model", "the plan, as a diff; nothing is written"),
    ("fix adapters --base model --inplace", "all adapters are repaired, or none"),
    ("fix adapters --base model --output fixed", "copies below the directory fixed are repaired"),
    ("fix a b --base model --form lowrank", "a form in which sets also merge and mix"),
]


@click.command("fix", cls=Command, examples=EXAMPLES)
@request_options
@option("--inplace", is_flag=True, group=WRITTEN, help="Write the fixes into the adapters, all or none.")
@option(
    "--output",
    type=click.Path(),
    metavar="DIR",
    group=WRITTEN,
    help="Write fixed copies of the adapters below DIR instead.",
)
@option(
    "--form",
    type=click.Choice(list(FORMS)),
    group=WRITTEN,
    help="Bring sets (portable: adapters) to a normal form.",
)
@option("--unsafe-fixes", "unsafe", is_flag=True, group=WRITTEN, help="Also make fixes that round, drop or choose.")
@option("--backup", is_flag=True, group=WRITTEN, help="Keep each changed file as NAME.bak, with --inplace.")
@option("--replace-links", is_flag=True, group=WRITTEN, help="Replace links by files of their own, with --inplace.")
@option("--verbose", "-v", is_flag=True, group=REPORTED, help="Name every tensor in the plan.")
@choice("--format format_", ["diff", "json"], REPORTED, "How the plan is printed.")
@guarded
def command(**options: Any) -> None:
    """Plan the repairs of the adapters at and below PATHS, as a diff.

    Nothing is written without --inplace or --output. What an ignore is about is left as it is; a baseline is not asked.

    Exit codes: 0 nothing to do, or all repaired; 1 a plan is left to
    apply, or errors are left; 2 refused or failed, with every file as it was; 3 nothing to fix.
    """
    if options["inplace"] and options["output"]:
        raise click.UsageError("--inplace and --output exclude each other")
    wanted = FixRequest(
        to_request(options),
        unsafe=options["unsafe"],
        form=options["form"],
        inplace=options["inplace"],
        output=options["output"] or None,
        backup=options["backup"],
        replace_links=options["replace_links"],
        verbose=options["verbose"],
    )
    try:
        report = repair(wanted, _titles)
    except InternalError as error:
        for trace in error.traces:
            click.echo(trace, err=True)
        raise fail(str(error)) from None
    sys.exit(_told(report, wanted, options["format_"] == "json"))


def _told(report: FixReport, wanted: FixRequest, as_json: bool) -> int:
    """Print what is planned, or done; returns the exit code."""
    if not report.adapters:
        click.echo("nothing to fix: no adapter found", err=True)
        return EXIT_NOTHING
    if wanted.form and report.refusals:
        return _refused(report, as_json)
    if not (wanted.inplace or wanted.output):
        return _shown(report, as_json)
    return _finished(report, as_json)


def _refused(report: FixReport, as_json: bool) -> int:
    if as_json:
        _json(report)
    _left(report, written=False)
    click.echo("nothing was written", err=True)
    return EXIT_INTERNAL


def _shown(report: FixReport, as_json: bool) -> int:
    if as_json:
        _json(report)
    else:
        click.echo(report.diff, nl=False)
        _titles(report.plans)
        _left(report, written=False)
        if report.plans:
            click.echo(f"{len(report.plans)} adapters would change; write it with --inplace or --output DIR", err=True)
    return EXIT_FINDINGS if report.plans or report.left or report.refusals else 0


def _finished(report: FixReport, as_json: bool) -> int:
    if as_json:
        _json(report)
    else:
        for proof in report.proofs:
            click.echo(f"proved {printable(proof.path)}: {printable(describe(proof))}")
        _left(report, written=True)
    return EXIT_FINDINGS if report.left or report.refusals else 0


def _titles(plans: Sequence[AdapterPlan]) -> None:
    for plan in plans:
        for title in plan.fixes:
            click.echo(f"{printable(plan.path)}: {printable(title)}", err=True)


def _left(report: FixReport, written: bool) -> None:
    for refusal in report.refusals:
        click.echo(printable(str(refusal)), err=True)
    for finding, reason in report.left:
        click.echo(f"left: {finding.severity.value}[{finding.rule}] {printable(finding.message)} ({reason})", err=True)
    if written and not report.left and not report.refusals:
        click.echo("nothing is left to fix", err=True)


def _json(report: FixReport) -> None:
    found = {
        "version": 1,
        "plans": [{**plan._asdict(), "edits": [edit._asdict() for edit in plan.edits]} for plan in report.plans],
        "proofs": [asdict(proof) for proof in report.proofs],
        "refusals": [asdict(refusal) for refusal in report.refusals],
        "left": [{"rule": item.finding.rule, "message": item.finding.message} for item in report.left],
    }
    click.echo(json.dumps(found, indent=2))


def describe(proof: Proof) -> str:
    """What a proof compared, in one line."""
    parts = [f"{proof.untouched} tensors equal byte for byte"]
    counts = {
        "renamed": proof.renamed,
        "dropped": proof.dropped,
        "equal to the base": proof.copied,
        "all zero": proof.zeroed,
        "computed": proof.computed,
    }
    parts += [f"{count} {word}" for word, count in counts.items() if count]
    parts += [f"{old} renamed to {new}" for old, new in proof.files]
    parts += [f"{old} converted to {new}" for old, new in proof.converted]
    parts += [f"{name} removed, its tensors being elsewhere" for name in proof.removed]
    equal = proof.equality
    if equal is not None:
        where = f"{equal.error:.1e} of its largest row, in {equal.module}" if equal.module else "nothing"
        parts.append(
            f"what is added to {equal.modules} modules differs by {where} (up to {equal.tolerance:.1e} is rounding)"
        )
    if proof.config_changes:
        parts.append("config: " + ", ".join(proof.config_changes))
    return "; ".join(parts)
