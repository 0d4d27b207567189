"""The pipeline of ``fix``: adapters -> plan -> new files, checked, proved and put in place -> what is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from adapterlint.checking import Checked
from adapterlint.findings import Edit, Finding, Safety
from adapterlint.fixing.apply import Check, apply_all, recover
from adapterlint.fixing.diff import render
from adapterlint.fixing.errors import InternalError, PlanError
from adapterlint.fixing.forms import Form
from adapterlint.fixing.plan import OscillationError, Plan, Refusal, make_plan, recheck
from adapterlint.fixing.prove import Proof
from adapterlint.model.subject import Subject
from adapterlint.run import Request, Run, examine

if TYPE_CHECKING:
    from adapterlint.fixing.meaning import Equality

MAX_PASSES = 4
"""Writing passes: files that must be read again after a rename or a new header."""


class FixRequest(NamedTuple):
    """What to repair, and how. Nothing is written without ``inplace`` or ``output``.

    Attributes:
        request: the adapters, the targets, and the rules whose findings are repaired.
        unsafe: whether fixes that round, lose data or choose are allowed.
        form: the normal form that all get, or none of them.
        inplace: whether the adapters are changed.
        output: a directory that gets changed copies of them instead.
        backup: whether files that are changed in place stay as ``NAME.bak``.
        replace_links: whether links are replaced, in place, by files of their own.
        verbose: whether the plan as a text names every tensor.
    """

    request: Request
    unsafe: bool = False
    form: Form | None = None
    inplace: bool = False
    output: str | None = None
    backup: bool = False
    replace_links: bool = False
    verbose: bool = False


class AdapterPlan(NamedTuple):
    """What changes in one adapter.

    Attributes:
        path: as given or found; the copy, where a second pass goes on in one.
        fixes: the rule or form, and what its fix does, in the order in which they were planned.
        edits: all changes of the stored config and tensors.
    """

    path: str
    fixes: tuple[str, ...]
    edits: tuple[Edit, ...]


class Left(NamedTuple):
    """An error or a warning that stays, and why no fix ends it."""

    finding: Finding
    reason: str


class FixReport(NamedTuple):
    """What is to be repaired, or has been.

    Attributes:
        adapters: paths of the adapters that were looked at.
        plans: one entry for each adapter that changes, for each pass.
        proofs: what was compared before the new files were put in place, one entry for each plan that was carried out.
        refusals: forms that were not made, with the adapters and the reason.
        left: errors and warnings that stay.
        diff: what would change, as the command prints it; empty once it has been written.
    """

    adapters: tuple[str, ...] = ()
    plans: tuple[AdapterPlan, ...] = ()
    proofs: tuple[Proof, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    left: tuple[Left, ...] = ()
    diff: str = ""

    @property
    def written(self) -> bool:
        """Whether the plans have been carried out."""
        return bool(self.proofs)


Told = Callable[[Sequence[AdapterPlan]], None]
"""Is told of the plans of each pass once they are carried out."""


def repair(wanted: FixRequest, told: Told = lambda _: None) -> FixReport:
    """Plan, and carry the plan out if that is asked for.

    With a form, refusals mean that nothing is planned and nothing written. Each pass is made for all adapters or for
    none; what goes wrong in a later one leaves the files as the ones before, and ``told`` of them, have made them.

    Raises:
        UserError: what :func:`adapterlint.run.examine` raises, and every FixError, for what cannot be carried out.
        InternalError: a rule crashed, or fixes undo one another, or come to no end.
    """
    if wanted.inplace:
        recover(list(wanted.request.paths))
    run, plan = _planned(wanted, "nothing was written")
    report = FixReport(tuple(checked.subject.adapter.path for checked in run.adapters))
    if not (wanted.inplace or wanted.output):
        report = report._replace(plans=_plans(plan), diff=render(plan.edits, verbose=wanted.verbose))
        return _ended(report, wanted, plan)
    for _ in range(MAX_PASSES):
        if not plan.edits:
            break
        proofs, plans = _carried_out(wanted, run, plan), _plans(plan)
        report = report._replace(plans=report.plans + plans, proofs=report.proofs + proofs)
        told(plans)
        if not plan.reread:
            break
        wanted = _next_pass(wanted, plan)
        run, plan = _planned(wanted, "nothing more was written")
    else:
        if plan.edits:
            reason = (
                f"internal error: the fixes of {plan.edits[0].path} do not come to an end; nothing more was written"
            )
            raise InternalError(reason)
    return _ended(report, wanted, plan)


def _planned(wanted: FixRequest, state: str) -> tuple[Run, Plan]:
    run = examine(wanted.request)
    _require_sound(run.errors, state)
    try:
        plan = make_plan(run, wanted.request, wanted.unsafe, wanted.form)
    except OscillationError as error:
        raise InternalError(f"internal error: {error}; {state}") from None
    _require_sound(plan.errors, state)
    return run, plan


def _require_sound(errors: Sequence[str], state: str) -> None:
    if errors:
        raise InternalError(f"internal error in a rule; {state}", tuple(errors))


def _plans(plan: Plan) -> tuple[AdapterPlan, ...]:
    return tuple(AdapterPlan(item.path, tuple(plan.titles[item.path]), item.edits) for item in plan.edits)


def _next_pass(wanted: FixRequest, plan: Plan) -> FixRequest:
    """What is left after a pass is to be done in the copies, if it has made any."""
    if wanted.output is None:
        return wanted
    output = wanted.output
    copies = {os.path.join(output, os.path.basename(os.path.abspath(item.path))): item.path for item in plan.edits}
    request = wanted.request._replace(paths=list(copies))
    if request.suppressions:
        request = request._replace(suppressions=request.suppressions._replace(copies=copies))
    return wanted._replace(request=request, inplace=True, output=None, backup=False)


# -- writing -----------------------------------------------------------------------------------------------------


def _carried_out(wanted: FixRequest, run: Run, plan: Plan) -> tuple[Proof, ...]:
    equal: dict[str, Equality] = {}
    proofs = apply_all(
        plan.edits,
        output=wanted.output,
        allow_links=wanted.replace_links,
        backup=wanted.backup,
        check=_check_of(wanted, run, plan, equal),
    )
    return tuple(replace(proof, equality=equal.get(proof.path)) for proof in proofs)


def _check_of(wanted: FixRequest, run: Run, plan: Plan, equal: dict[str, Equality]) -> Check:
    """What looks at the new state before it is put in place; what it compares for a form goes into ``equal``."""

    def check(paths: Sequence[str]) -> list[str]:
        staged = Request(list(paths), wanted.request.targets, wanted.request.base, "none", payload="none")
        state = examine(staged)
        _require_sound(state.errors, "nothing was changed")
        pairs = [(item.path, path) for item, path in zip(plan.edits, paths, strict=True)]
        equal.update({old: _compared(run, state, old, new) for old, new in pairs} if wanted.form else {})
        hidden = {new for old, new in pairs if _was_hidden(run, old)}
        shown = [checked for checked in state.adapters if checked.subject.adapter.path not in hidden]
        after = [finding for checked in shown for finding in checked.findings]
        after += _unreadable(checked for checked in state.adapters if checked not in shown)
        return [text for each in equal.values() for text in each.complaints] + recheck(run.findings, plan, after)

    return check


def _compared(run: Run, state: Run, old: str, new: str) -> Equality:
    from adapterlint.fixing.meaning import compare  # for forms only

    before = _subject(run, old)
    try:
        return compare(before, Subject(_subject(state, new).adapter, before.base))
    except ValueError as error:
        reason = f"what it means cannot be compared with what the form makes ({error}): fix it without a form first"
        raise PlanError(old, reason) from error


def _subject(run: Run, path: str) -> Subject:
    return next(checked.subject for checked in run.adapters if checked.subject.adapter.path == path)


def _was_hidden(run: Run, path: str) -> bool:
    """Whether no rule could see the tensors before: what they say of them now was in the adapter already."""
    adapter = _subject(run, path).adapter
    return not adapter.readable or not adapter.tensors


def _unreadable(adapters: Iterable[Checked]) -> list[Finding]:
    """The findings of adapters that still cannot be read."""
    return [finding for checked in adapters if not checked.subject.adapter.readable for finding in checked.findings]


# -- what is left ------------------------------------------------------------------------------------------------


def _ended(report: FixReport, wanted: FixRequest, plan: Plan) -> FixReport:
    refused = {path for refusal in plan.refusals for path in refusal.adapters}
    left = (Left(item, _why_left(item, wanted.unsafe, item.location.path in refused)) for item in plan.left)
    return report._replace(refusals=tuple(plan.refusals), left=tuple(left))


def _why_left(finding: Finding, unsafe: bool, refused: bool) -> str:
    fix = finding.fix
    if fix is None:
        return "no fix"
    if (fix.edits or fix.safety is Safety.UNSAFE) and not unsafe:
        return "needs --unsafe-fixes"
    if refused and (fix.edits or fix.form):
        return "refused"
    return f"by hand: {fix.title}"
