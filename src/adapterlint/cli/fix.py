"""``adapterlint fix``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from adapterlint.checking import Checked
from adapterlint.cli.grouped import REPORTED, WRITTEN, Command, choice, option
from adapterlint.cli.options import request_options, to_request
from adapterlint.cli.output import EXIT_FINDINGS, EXIT_INTERNAL, EXIT_NOTHING, fail, guarded
from adapterlint.findings import Finding, Safety
from adapterlint.fixing.apply import apply_all, recover
from adapterlint.fixing.diff import render
from adapterlint.fixing.errors import FixError
from adapterlint.fixing.forms import FORMS
from adapterlint.fixing.plan import OscillationError, Plan, make_plan, recheck
from adapterlint.fixing.prove import Proof
from adapterlint.model.subject import Subject
from adapterlint.reporters.text import printable
from adapterlint.run import Request, Run, examine

if TYPE_CHECKING:
    from adapterlint.fixing.meaning import Equality

MAX_PASSES = 4  # writing passes: files that must be read again after a rename or a new header


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
    try:
        sys.exit(Fix(to_request(options), options).run())
    except FixError as error:
        raise fail(printable(str(error))) from None
    except OscillationError as error:
        raise fail(f"internal error: {error}; nothing was written") from None


class Fix:
    """One call of the command.

    Args:
        request: what to look at.
        options: the parsed options.
    """

    def __init__(self, request: Request, options: dict[str, Any]) -> None:
        self._request = request
        self._options = options
        self._equal: dict[str, Equality] = {}
        self._json: dict[str, Any] = {"version": 1, "plans": [], "proofs": [], "refusals": [], "left": []}

    def run(self) -> int:
        """Plan, and write if asked to; returns the exit code."""
        writing = self._options["inplace"] or self._options["output"]
        if self._options["inplace"]:
            recover(list(self._request.paths))
        run = examine(self._request)
        if run.errors:
            self._crashed(run)
        if not run.adapters:
            click.echo("nothing to fix: no adapter found", err=True)
            return EXIT_NOTHING
        plan = make_plan(run, self._request, self._options["unsafe"], self._options["form"])
        if self._options["form"] and plan.refusals:
            return self._refuse(plan)
        if not writing:
            return self._show(plan)
        if self._options["output"] and not plan.edits:
            self._report_left(plan, written=True)
            return EXIT_FINDINGS if plan.left else 0
        return self._write(run, plan)

    def _crashed(self, run: Run) -> None:
        for trace in run.errors:
            click.echo(trace, err=True)
        raise fail("internal error in a rule; nothing was written")

    def _refuse(self, plan: Plan) -> int:
        if self._options["format_"] == "json":
            self._plan_json(plan)
            click.echo(json.dumps(self._json, indent=2))
        self._report_left(plan, written=False)
        click.echo("nothing was written", err=True)
        return EXIT_INTERNAL

    # -- showing -----------------------------------------------------------------------------------------------

    def _show(self, plan: Plan) -> int:
        text = render(plan.edits, verbose=self._options["verbose"])
        if self._options["format_"] == "json":
            self._plan_json(plan)
            click.echo(json.dumps(self._json, indent=2))
        else:
            if text:
                click.echo(text, nl=False)
            self._titles(plan)
            self._report_left(plan, written=False)
            if plan.edits:
                click.echo(
                    f"{len(plan.edits)} adapters would change; write it with --inplace or --output DIR", err=True
                )
        return EXIT_FINDINGS if plan.edits or plan.left or plan.refusals else 0

    def _titles(self, plan: Plan) -> None:
        for path, titles in plan.titles.items():
            for title in titles:
                click.echo(f"{printable(path)}: {printable(title)}", err=True)

    def _report_left(self, plan: Plan, written: bool) -> None:
        for refusal in plan.refusals:
            names = ", ".join(printable(path) for path in refusal.adapters)
            click.echo(f"refused the {refusal.form} form of {names}: {printable(refusal.reason)}", err=True)
        for finding in plan.left:
            refused = {path for refusal in plan.refusals for path in refusal.adapters}
            reason = _why_left(finding, self._options["unsafe"], finding.location.path in refused)
            click.echo(
                f"left: {finding.severity.value}[{finding.rule}] {printable(finding.message)} ({reason})", err=True
            )
        if written and not plan.left and not plan.refusals:
            click.echo("nothing is left to fix", err=True)

    # -- writing -----------------------------------------------------------------------------------------------

    def _write(self, run: Run, plan: Plan) -> int:
        proofs: list[Proof] = []
        for _ in range(MAX_PASSES):
            if plan.edits:
                proofs += self._apply(run, plan)
                self._titles(plan)
                self._plan_json(plan)
            if not plan.reread:
                break
            if self._options["output"]:
                self._go_on_in(self._options["output"], plan)
            run = examine(self._request)
            plan = make_plan(run, self._request, self._options["unsafe"])
        return self._finish(plan, proofs)

    def _go_on_in(self, output: str, plan: Plan) -> None:
        """What is left after the first pass is to be done in the copies that it has made."""
        copies = {os.path.join(output, os.path.basename(os.path.abspath(item.path))): item.path for item in plan.edits}
        self._request = self._request._replace(paths=list(copies))
        if self._request.suppressions:
            self._request = self._request._replace(suppressions=self._request.suppressions._replace(copies=copies))
        self._options = {**self._options, "output": None}

    def _apply(self, run: Run, plan: Plan) -> list[Proof]:
        before = [finding for checked in run.adapters for finding in checked.findings]
        before += [finding for checked in run.sets for finding in checked.findings]

        def check(paths: Sequence[str]) -> list[str]:
            staged = Request(list(paths), self._request.targets, self._request.base, "none", payload="none")
            state = examine(staged)
            for item, path in zip(plan.edits, paths, strict=True) if self._options["form"] else ():
                self._compare(run, state, item.path, path)
            hidden = {path for item, path in zip(plan.edits, paths, strict=True) if _was_hidden(run, item.path)}
            shown = [checked for checked in state.adapters if checked.subject.adapter.path not in hidden]
            after = [finding for checked in shown for finding in checked.findings]
            after += _unreadable(checked for checked in state.adapters if checked not in shown)
            return [text for equal in self._equal.values() for text in equal.complaints] + recheck(before, plan, after)

        links = self._options["replace_links"]
        backup = self._options["backup"]
        return apply_all(plan.edits, output=self._options["output"], allow_links=links, backup=backup, check=check)

    def _compare(self, run: Run, state: Run, path: str, staged: str) -> None:
        from adapterlint.fixing.meaning import compare  # for forms only

        old = next(checked.subject for checked in run.adapters if checked.subject.adapter.path == path)
        new = next(checked.subject for checked in state.adapters if checked.subject.adapter.path == staged)
        self._equal[path] = compare(old, Subject(new.adapter, old.base))

    def _finish(self, plan: Plan, proofs: list[Proof]) -> int:
        if self._options["format_"] == "json":
            self._left_json(plan)
            self._json["proofs"] = [self._proof(proof) for proof in proofs]
            click.echo(json.dumps(self._json, indent=2))
        else:
            for proof in proofs:
                click.echo(f"proved {printable(proof.path)}: {printable(describe(proof, self._equal.get(proof.path)))}")
            self._report_left(plan, written=True)
        return EXIT_FINDINGS if plan.left or plan.refusals else 0

    def _proof(self, proof: Proof) -> dict[str, Any]:
        equal = self._equal.get(proof.path)
        return {**asdict(proof), "equality": asdict(equal) if equal else None}

    def _plan_json(self, plan: Plan) -> None:
        for item in plan.edits:
            edits = [edit._asdict() for edit in item.edits]
            self._json["plans"].append({"path": item.path, "fixes": plan.titles.get(item.path, []), "edits": edits})
        self._left_json(plan)

    def _left_json(self, plan: Plan) -> None:
        self._json["refusals"] = [
            {"adapters": list(item.adapters), "form": item.form, "reason": item.reason} for item in plan.refusals
        ]
        self._json["left"] = [{"rule": item.rule, "message": item.message} for item in plan.left]


def describe(proof: Proof, equal: Equality | None = None) -> str:
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
    if equal is not None:
        where = f"{equal.error:.1e} of its largest row, in {equal.module}" if equal.module else "nothing"
        parts.append(
            f"what is added to {equal.modules} modules differs by {where} (up to {equal.tolerance:.1e} is rounding)"
        )
    if proof.config_changes:
        parts.append("config: " + ", ".join(proof.config_changes))
    return "; ".join(parts)


def _was_hidden(run: Run, path: str) -> bool:
    """Whether no rule could see the tensors before: what they say of them now was in the adapter already."""
    adapter = next(checked.subject.adapter for checked in run.adapters if checked.subject.adapter.path == path)
    return not adapter.readable or not adapter.tensors


def _unreadable(adapters: Iterable[Checked]) -> list[Finding]:
    """The findings of adapters that still cannot be read."""
    return [finding for checked in adapters if not checked.subject.adapter.readable for finding in checked.findings]


def _why_left(finding: Finding, unsafe: bool, refused: bool) -> str:
    fix = finding.fix
    if fix is None:
        return "no fix"
    if (fix.edits or fix.safety is Safety.UNSAFE) and not unsafe:
        return "needs --unsafe-fixes"
    if refused and (fix.edits or fix.form):
        return "refused"
    return f"by hand: {fix.title}"
