"""The pipeline of ``check``: paths -> adapters -> findings -> verdicts -> report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from adapterlint import __version__, assemble
from adapterlint.checking import Bases, Checked, Progress, check_adapters, crash, lacking, load_base, trace
from adapterlint.discover import discover
from adapterlint.findings import Finding, Severity
from adapterlint.locate import Locator
from adapterlint.model.base import Base
from adapterlint.model.subject import SetSubject
from adapterlint.model.target import Target, alongside, bundled, resolve
from adapterlint.model.together import successor_of
from adapterlint.report import (
    AdapterReport,
    BaseReport,
    Report,
    Reported,
    RuleDoc,
    SetReport,
    Summary,
    Verdict,
    concerns,
)
from adapterlint.rules.registry import AnyRule, activate, adapter_rules, all_rules, set_rules
from adapterlint.sets import Grouping, declared_sets, group, orders
from adapterlint.suppress import Selection
from adapterlint.verdicts import LOAD, OPERATIONS, Order, loads_since, verdict, with_severity

if TYPE_CHECKING:
    from adapterlint.ignores import Pattern, Suppressions
    from adapterlint.remains import Scope


class Request(NamedTuple):
    """What to check, and how.

    Attributes:
        paths: adapter directories, or directories above them.
        targets: target texts; empty for the newest bundled PEFT.
        base: base model directory for every adapter; None: found by itself where it is local.
        grouping: ``auto`` finds sets, ``one`` makes all adapters one set, ``none`` makes no sets.
        selection: which rules are reported.
        payload: how much tensor data may be read.
        operations: operations beyond loading whose findings are reported.
        sets: declared sets: the patterns of each one's members, in loading order.
        suppressions: ignores and baseline; None where there are none.
        plugins: entry points of rules by third parties.
        config: the configuration file that these come from, as shown to the user.
        progress: is told how many adapters have been looked at.
    """

    paths: Sequence[str]
    targets: Sequence[str] = ()
    base: str | None = None
    grouping: Grouping = "auto"
    selection: Selection = Selection()
    payload: assemble.PayloadDepth = "quick"
    operations: frozenset[str] = frozenset()
    sets: tuple[tuple[Pattern, ...], ...] = ()
    suppressions: Suppressions | None = None
    plugins: tuple[str, ...] = ()
    config: str | None = None
    progress: Progress | None = None

    def wants(self, finding: Finding) -> bool:
        """Whether a finding is selected and no ignore is about it; the baseline is not asked."""
        return self.selection.keeps(finding) and not (self.suppressions and self.suppressions.ignored(finding))


@dataclass(eq=False, repr=False)
class CheckedSet:
    """One set with what the set rules said; members' own findings stand in ``members``."""

    subject: SetSubject
    members: list[Checked]
    findings: list[Finding] = field(default_factory=list)
    since: str | None = None

    @property
    def everything(self) -> list[Finding]:
        """Set findings and members' findings: what decides the set's verdict."""
        return self.findings + [finding for member in self.members for finding in member.findings]


@dataclass(eq=False, repr=False)
class Run:
    """All of a run before it becomes a report."""

    targets: tuple[Target, ...]
    adapters: list[Checked]
    sets: list[CheckedSet]
    base: Base | None
    errors: list[str]

    @property
    def findings(self) -> list[Finding]:
        """All that the rules said, those about sets last."""
        found = [finding for checked in self.adapters for finding in checked.findings]
        return found + [finding for checked in self.sets for finding in checked.findings]


def check(request: Request) -> Report:
    """Check adapters and sets.

    Raises:
        NotFoundError: a path does not exist.
        TargetError: a target that is not bundled.
        BaseNotFoundError: ``base`` is no model directory.
    """
    started = time.perf_counter()
    return to_report(request, examine(request), started)


def examine(request: Request) -> Run:
    """Read everything and run every rule; nothing is suppressed or formatted yet."""
    activate(request.plugins)
    targets = resolve(tuple(request.targets))
    base = load_base(request.base) if request.base else None
    errors: list[str] = []
    adapters = check_adapters(discover(request.paths), Bases(base), request.payload, errors, request.progress)
    known = alongside(targets)
    declared, rest = declared_sets(adapters, request.sets)
    sets = [_run_set(members, known, errors, declared=True) for members in declared]
    for members in group(rest, request.grouping, base is not None):
        sets.append(_run_set(members, known, errors, request.grouping == "one"))
    return Run(targets, adapters, sets, base, errors)


def check_set(subject: SetSubject, errors: list[str] | None = None) -> CheckedSet:
    """Run every set rule on one set, in its own order only."""
    members = [Checked(member) for member in subject.members]
    return CheckedSet(subject, members, _set_findings(subject, errors if errors is not None else []))


def _run_set(members: list[Checked], known: Sequence[Target], errors: list[str], declared: bool) -> CheckedSet:
    base = members[0].subject.base
    same = all(member.subject.base is base for member in members)
    explicit = declared or all(member.subject.adapter.explicit for member in members)
    subject = SetSubject(tuple(member.subject for member in members), base if same else None, explicit)
    checked = CheckedSet(subject, members, _set_findings(subject, errors))
    checked.since = loads_in_every_order(subject, checked.findings, members, known, errors)
    return checked


def loads_in_every_order(
    subject: SetSubject,
    findings: Sequence[Finding],
    members: Sequence[Checked],
    known: Sequence[Target],
    errors: list[str],
) -> str | None:
    """The oldest release from which on every newer one loads the set in every order; or None.

    Args:
        subject: the set.
        findings: what the set rules say of its own order.
        members: adapters whose own findings count.
        known: the releases, oldest first.
        errors: where tracebacks of rules that crash are added.
    """
    own = [finding for member in members for finding in member.findings]
    found = [finding for order in orders(subject)[1:] for finding in _set_findings(order, errors, loading=True)]
    return loads_since([*findings, *found, *own], known)


def _set_findings(subject: SetSubject, errors: list[str], loading: bool = False) -> list[Finding]:
    """What the set rules say; with ``loading`` only those that say something about loading."""
    findings: list[Finding] = []
    if any(member.adapter.config is None for member in subject.members):
        return findings
    for rule in set_rules():
        if loading and not rule.loading:
            continue
        try:
            findings.extend(rule.check(subject))
        except Exception:
            errors.append(trace())
            findings.append(crash(rule, subject.members[0].at_directory(), subject.paths))
    return findings


# -- report ------------------------------------------------------------------------------------------------------


def to_report(request: Request, run: Run, started: float) -> Report:
    """A run as the report that reporters print."""
    given = bool(request.targets)
    locator = Locator()
    raw = [*run.findings, *_about_suppressions(request, run)]
    graded = [
        item
        for item in (with_severity(finding, run.targets, given, request.operations) for finding in raw)
        if item is not None
    ]
    selected = [finding for finding in graded if request.selection.keeps(finding)]
    left = _unsuppressed(request, selected)
    kept = [locator.report(finding) for finding in left]
    adapters = tuple(_adapter_report(checked, run.targets) for checked in run.adapters)
    return Report(
        tool_version=__version__,
        targets=tuple(str(target) for target in run.targets),
        targets_given=given,
        base=BaseReport(run.base.path, len(run.base.stored)) if run.base else None,
        adapters=adapters,
        sets=tuple(_set_report(checked, run.targets) for checked in run.sets),
        findings=tuple(sorted(kept, key=_order([checked.subject.adapter.path for checked in run.adapters]))),
        skipped=tuple(item for checked in run.adapters for item in checked.skipped),
        summary=_summary(adapters, kept, time.perf_counter() - started),
        internal_errors=tuple(run.errors),
        operations=request.operations,
        releases=tuple(str(target) for target in bundled()),
        stacks={str(target): target.transformers for target in run.targets},
        rules=_documented({item.finding.rule for item in kept}),
        config=request.config,
        suppressed=_printed(selected, request) - _printed(left, request) if request.suppressions else 0,
    )


def _unsuppressed(request: Request, findings: list[Finding]) -> list[Finding]:
    if request.suppressions is None:
        return findings
    from adapterlint.remains import reported  # not needed without a configuration

    return reported(findings, request.suppressions)


def _printed(findings: Sequence[Finding], request: Request) -> int:
    return sum(concerns(finding, request.operations) for finding in findings)


def _about_suppressions(request: Request, run: Run) -> list[Finding]:
    """What there is to say about ignores and baseline themselves."""
    if request.suppressions is None:
        return []
    from adapterlint.remains import findings_about

    return findings_about(request.suppressions, run.findings, scope_of(request, run))


def scope_of(request: Request, run: Run) -> Scope:
    """What a run looked at."""
    from adapterlint.remains import Scope

    skipped = {(item.rule, item.path) for checked in run.adapters for item in checked.skipped}
    for checked in run.sets:
        for member in checked.subject.members:
            lacks = lacking(member).keys()
            skipped |= {(rule.code, member.adapter.path) for rule in set_rules() if lacks & {*rule.needs}}
    return Scope(
        paths=request.paths,
        adapters=[checked.subject.adapter.path for checked in run.adapters],
        sets=[checked.subject.paths for checked in run.sets],
        skipped=frozenset(skipped),
        grouped=request.grouping != "none",
    )


def _documented(codes: set[str]) -> dict[str, RuleDoc]:
    """Documentation of the rules with these codes; those not about single adapters are imported only where needed."""
    known: tuple[AnyRule, ...] = adapter_rules()
    if not codes.issubset(rule.code for rule in known):
        known = all_rules()
    return {
        rule.code: RuleDoc(rule.name, rule.severity.value, type(rule).__doc__ or "")
        for rule in known
        if rule.code in codes
    }


def _order(paths: list[str]) -> Callable[[Reported], tuple[Any, ...]]:
    position = {path: number for number, path in enumerate(paths)}

    def key(item: Reported) -> tuple[Any, ...]:
        place, finding = item.place, item.finding
        where = place.location
        return (
            bool(finding.adapters),
            position.get(where.path, len(paths)),
            where.file,
            place.start or (0, 0),
            finding.rule,
            where.tensor or "",
            finding.message,
        )

    return key


def _adapter_report(checked: Checked, targets: Sequence[Target]) -> AdapterReport:
    subject, adapter = checked.subject, checked.subject.adapter
    applies = (sum(subject.in_base.values()), len(subject.in_base)) if subject.base and adapter.modules else None
    return AdapterReport(
        path=adapter.path,
        name=adapter.name,
        peft_type=adapter.peft_type,
        tensors=len(adapter.tensors),
        modules=len(adapter.modules),
        applies=applies,
        verdicts={
            str(target): verdict(checked.findings, target, scope="alone", has_base=subject.base is not None)
            for target in targets
        },
    )


def _set_report(checked: CheckedSet, targets: Sequence[Target]) -> SetReport:
    subject, everything = checked.subject, checked.everything
    has_base, first, successor = subject.base is not None, subject.members[0].adapter, successor_of(subject)
    following = (successor.adapter.name, successor.adapter.path) if successor else (None, None)
    order = Order(first.name, first.path, *following)

    def all_verdicts(operation: str) -> dict[str, Verdict]:
        return {
            str(target): verdict(everything, target, scope="set", has_base=has_base, operation=operation, order=order)
            for target in targets
        }

    reference = subject.members[0].adapter.get("base_model_name_or_path")
    return SetReport(
        base=subject.base.path if subject.base else reference if isinstance(reference, str) else None,
        adapters=subject.paths,
        verdicts=all_verdicts(LOAD),
        operations={operation: all_verdicts(operation) for operation in OPERATIONS},
        loads_since=checked.since,
        explicit=subject.explicit,
    )


def _summary(adapters: Sequence[AdapterReport], kept: Sequence[Reported], seconds: float) -> Summary:
    severities = [item.finding.severity for item in kept]
    return Summary(
        adapters=len(adapters),
        tensors=sum(adapter.tensors for adapter in adapters),
        errors=severities.count(Severity.ERROR),
        warnings=severities.count(Severity.WARNING),
        notes=severities.count(Severity.NOTE),
        fixable=sum(
            item.finding.fix is not None and bool(item.finding.fix.edits or item.finding.fix.form) for item in kept
        ),
        seconds=round(seconds, 6),
    )
