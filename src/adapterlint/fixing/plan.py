"""Findings -> edits. Plans are worked out on the model in rounds, until nothing is left that may be fixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from adapterlint.checking import check_adapter
from adapterlint.findings import PICKLE_FILE, ConvertWeights, Edit, Finding, Fix, Safety, SetConfig, Severity
from adapterlint.fixing import foreign
from adapterlint.fixing.errors import PlanError
from adapterlint.fixing.forms import FORMS, Form, FormError, plan_form
from adapterlint.fixing.layout import tensor_bytes
from adapterlint.fixing.resolve import AdapterEdits
from adapterlint.fixing.simulate import TENSOR_EDITS, apply_to_model, compose, ends_planning
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.model.together import stores_bias
from adapterlint.reading.base import read_base
from adapterlint.run import CheckedSet, Request, Run, check_set
from adapterlint.verdicts import with_severity

MAX_ROUNDS = 12


class OscillationError(RuntimeError):
    """Fixes that undo one another: a defect of the rules, reported as an InternalError."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a form was not applied to a set."""

    adapters: tuple[str, ...]
    form: str
    reason: str

    def __str__(self) -> str:
        return f"refused the {self.form} form of {', '.join(self.adapters)}: {self.reason}"


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        edits: one entry per adapter that changes.
        titles: adapter path -> titles of the fixes applied, in order.
        refusals: forms that would lose meaning, with the reason.
        left: errors and warnings that have no fix, or none that was allowed.
        reread: the files must be written and read again before the rest can be planned.
        foreseen: everything that the rules say of the planned state.
        errors: tracebacks of rules that crashed on a planned state; such a plan must not be carried out.
    """

    edits: list[AdapterEdits] = field(default_factory=list)
    titles: dict[str, list[str]] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    reread: bool = False
    foreseen: list[Finding] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass
class _State:
    """One adapter while the plan grows; ``findings`` are those of its present state, ``errors`` are the plan's."""

    subject: Subject
    findings: list[Finding]
    errors: list[str]
    unsafe: bool = False
    rounds: list[tuple[Edit, ...]] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)

    def apply(self, edits: tuple[Edit, ...], title: str) -> None:
        """Go on to the next round. Raises PlanError if the edits cannot be made of the files that are there."""
        if self.subject.adapter.is_pickle and any(isinstance(edit, TENSOR_EDITS) for edit in edits):
            if not self.unsafe:
                _require_only_tensors(self.subject)
            edits = (ConvertWeights((PICKLE_FILE,)), *edits)
        adapter = apply_to_model(self.subject.adapter, edits, self.subject.base)
        self.rounds.append(edits)
        self.titles.append(title)
        self.subject = Subject(adapter, self.subject.base, self.subject.payload)
        self.findings = check_adapter(self.subject, self.errors).findings


def make_plan(run: Run, request: Request, unsafe: bool, form: Form | None = None) -> Plan:
    """Work out everything that may be fixed.

    Args:
        run: what the rules said.
        request: targets and selection; findings that are not selected are not fixed.
        unsafe: whether fixes that round, lose data or choose are allowed.
        form: the normal form that was asked for; then either all adapters get it, or the plan has no edits. Without
            one, sets that a rule wants a form for get that.
    """
    plan = Plan()
    states = {
        checked.subject.adapter.path: _State(checked.subject, checked.findings, plan.errors, unsafe)
        for checked in run.adapters
    }
    for state in states.values():
        plan.reread |= _fix_adapter(state, plan, run, request)
    if form is not None:
        _form_all(form, states, run, plan)
        if plan.refusals:
            return plan
    elif not plan.reread:
        for checked in run.sets:
            _fix_set(checked, states, run, request, plan, unsafe)
    for path, state in states.items():
        if state.rounds:
            base = state.subject.base
            edits = compose(state.rounds)
            if edits:
                plan.edits.append(AdapterEdits(path, edits, read_base(base.path) if base else None))
                plan.titles[path] = state.titles
    plan.foreseen = _foreseen(run, states, plan.errors)
    plan.left = _wanted(plan.foreseen, run, request)
    return plan


def _require_only_tensors(subject: Subject) -> None:
    """What is no tensor has no place in a safetensors file, and is lost."""
    adapter = subject.adapter
    other = next((problem for problem in adapter.weights_problems if problem.kind == "non-tensor-entry"), None)
    if other is not None:
        raise PlanError(adapter.path, f"{other.message}; only --unsafe-fixes drops it with the old file")


def _wanted(findings: Iterable[Finding], run: Run, request: Request) -> list[Finding]:
    """Errors and warnings for the targets, as far as they are selected."""
    graded = (with_severity(finding, run.targets, bool(request.targets)) for finding in findings)
    return [
        finding for finding in graded if finding is not None and request.wants(finding) and _matters(finding, request)
    ]


def _matters(finding: Finding, request: Request) -> bool:
    """Errors and warnings; notes only where their rule is asked for by its own code or name."""
    return finding.severity is not Severity.NOTE or bool({finding.rule, finding.name} & set(request.selection.select))


def _allowed(finding: Finding, unsafe: bool) -> bool:
    fix = finding.fix
    if fix is None or fix.safety is Safety.DISPLAY:
        return False
    return fix.safety is Safety.SAFE or unsafe


def _fix_adapter(state: _State, plan: Plan, run: Run, request: Request) -> bool:
    """Fix one adapter as far as it goes; True when its files must be written before more can be planned."""
    seen: list[Fix] = []  # values of config edits may be lists, which have no hash
    refused: list[Fix] = []
    for _ in range(MAX_ROUNDS):
        findings = _wanted(state.findings, run, request)
        fixable = [finding for finding in findings if _allowed(finding, state.unsafe) and finding.fix not in refused]
        fixable = [finding for finding in fixable if finding.fix and (finding.fix.edits or finding.fix.form == "peft")]
        if not fixable:
            return False
        # A safe fix first: what an unsafe one would choose may follow from it.
        fixable.sort(key=lambda finding: finding.fix is None or finding.fix.safety is not Safety.SAFE)
        fix = fixable[0].fix
        assert fix is not None
        if fix in seen:
            raise OscillationError(
                f"{state.subject.adapter.path}: the fix of {fixable[0].rule} does not end its finding"
            )
        try:
            edits = foreign.plan(state.subject) if fix.form else fix.edits
            state.apply(edits, f"{fixable[0].rule}: {fix.title}")
        except PlanError as error:
            refused.append(fix)
            form = "PEFT" if fix.form else "safetensors"
            plan.refusals.append(Refusal((state.subject.adapter.path,), form, error.reason))
            continue
        seen.append(fix)
        if ends_planning(edits):
            return True
    raise OscillationError(f"{state.subject.adapter.path}: fixes do not come to an end in {MAX_ROUNDS} rounds")


def _fix_set(
    checked: CheckedSet, states: dict[str, _State], run: Run, request: Request, plan: Plan, unsafe: bool
) -> None:
    def wanted(form: str) -> bool:
        found = _wanted(check_set(_now(checked.subject, states), plan.errors).findings, run, request)
        return any(finding.fix and finding.fix.form == form and _allowed(finding, unsafe) for finding in found)

    if wanted("unbiased"):
        for state in (states[path] for path in checked.subject.paths):
            if state.subject.adapter.get("bias", "none") not in ("none", None) and not stores_bias(state.subject):
                state.apply((SetConfig("/bias", "none"),), "unbiased: no bias is stored")
    if wanted("union"):
        _form("union", _now(checked.subject, states), states, run, plan)


def _now(subject: SetSubject, states: dict[str, _State]) -> SetSubject:
    """A set in its present state."""
    return SetSubject(tuple(states[path].subject for path in subject.paths), subject.base, subject.explicit)


def _form_all(form: Form, states: dict[str, _State], run: Run, plan: Plan) -> None:
    """Bring every set, and every adapter that is in none, to a form."""
    if plan.reread:
        reason = "their files need another fix first, and have to be read again after it: run fix without --form"
        plan.refusals.append(Refusal(tuple(states), form, reason))
        return
    sets = [] if form == "portable" else [checked.subject for checked in run.sets]
    grouped = {path for subject in sets for path in subject.paths}
    alone = [state.subject for path, state in states.items() if path not in grouped]
    for subject in (*sets, *(SetSubject((member,), member.base) for member in alone)):
        _form(form, _now(subject, states), states, run, plan)


def _form(form: Form, subject: SetSubject, states: dict[str, _State], run: Run, plan: Plan) -> None:
    try:
        edits = plan_form(form, subject, run.targets)
    except FormError as error:
        plan.refusals.append(Refusal(subject.paths, form, str(error)))
        return
    try:
        for path, own in zip(subject.paths, edits, strict=True):
            if own:
                before = _tensor_bytes(states[path])
                states[path].apply(own, f"{form}: {FORMS[form]}")
                states[path].titles[-1] += f" ({before:,} bytes of tensors become {_tensor_bytes(states[path]):,})"
    except PlanError as error:
        plan.refusals.append(Refusal(subject.paths, form, error.reason))


def _tensor_bytes(state: _State) -> int:
    return sum(tensor_bytes(item.dtype, item.shape) or 0 for item in state.subject.adapter.tensors.values())


def _foreseen(run: Run, states: dict[str, _State], errors: list[str]) -> list[Finding]:
    found = [finding for state in states.values() for finding in state.findings]
    for checked in run.sets:
        found += check_set(_now(checked.subject, states), errors).findings
    return found


def recheck(before: Sequence[Finding], plan: Plan, after: Sequence[Finding]) -> list[str]:
    """Complaints about a state after a fix: errors that were not there before, and that the plan did not foresee."""
    known = {(finding.rule, finding.location.pointer) for finding in (*before, *plan.foreseen)}
    return [
        f"{finding.rule} {finding.message}"
        for finding in after
        if finding.severity is Severity.ERROR and (finding.rule, finding.location.pointer) not in known
    ]
