"""May a new adapter join those that are already served? Only what the new one brings is reported."""

from __future__ import annotations

import time
from collections.abc import Sequence

from adapterlint.checking import Checked
from adapterlint.discover import NotFoundError
from adapterlint.findings import Effect, Finding
from adapterlint.model.subject import SetSubject
from adapterlint.model.target import Target, alongside
from adapterlint.report import Report
from adapterlint.run import CheckedSet, Request, Run, check_set, examine, loads_in_every_order, to_report


def check_against(request: Request, served: Sequence[str]) -> Report:
    """Check new adapters as members of a set that is already served.

    The served adapters come first, in the order given; each new one is loaded after them. The set's verdict is about
    what the new adapters bring: their own defects under their names, and what the whole set does that the served ones
    do not do among themselves.

    Args:
        request: the new adapters, targets, base and selection.
        served: directories of the adapters that are served, or directories above them.

    Raises:
        NotFoundError: a path does not exist, or there is no adapter below ``served``.
        TargetError: a target that is not bundled.
        BaseNotFoundError: the base is no model directory.
    """
    started = time.perf_counter()
    request = request._replace(grouping="none", sets=())
    run = examine(request)
    old = examine(request._replace(paths=served))
    if not old.adapters:
        raise NotFoundError(f"{', '.join(served)}: no adapter here to check against")
    errors = [*run.errors, *old.errors]
    known = {checked.subject.adapter.path for checked in run.adapters}
    present = [checked for checked in old.adapters if checked.subject.adapter.path not in known]
    sets = [_joined(present, run.adapters, run.targets, errors)] if present and run.adapters else []
    return to_report(request, Run(run.targets, run.adapters, sets, run.base, errors), started)


def _joined(present: list[Checked], new: list[Checked], targets: Sequence[Target], errors: list[str]) -> CheckedSet:
    before = check_set(_subject(present), errors).findings if len(present) > 1 else []
    subject = _subject([*present, *new])
    after = check_set(subject, errors).findings
    findings = [finding for finding in (_brought(finding, before) for finding in after) if finding is not None]
    joined = CheckedSet(subject, new, findings)
    joined.since = loads_in_every_order(subject, findings, new, alongside(targets), errors)
    return joined


def _subject(members: Sequence[Checked]) -> SetSubject:
    base = members[0].subject.base
    same = all(member.subject.base is base for member in members)
    return SetSubject(tuple(member.subject for member in members), base if same else None, explicit=True)


def _brought(finding: Finding, before: Sequence[Finding]) -> Finding | None:
    """The finding with the effects that the served set does not have already; None when there is nothing new in it."""
    known = {_key(effect) for other in before if other.rule == finding.rule for effect in other.effects}
    fresh = tuple(effect for effect in finding.effects if _key(effect) not in known)
    if fresh:
        return finding._replace(effects=fresh)
    seen = any(other.rule == finding.rule for other in before)
    return None if finding.effects or seen else finding


def _key(effect: Effect) -> tuple[object, ...]:
    return effect.outcome, effect.targets, effect.operation, effect.scope
