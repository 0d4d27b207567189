"""Findings and targets -> outcomes. A verdict is the worst effect that covers the target; nothing else decides it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from adapterlint.findings import CONFIG_FILE, INTERNAL_ERROR, Effect, Finding, Outcome, Severity
from adapterlint.findings import OPERATIONS as OPERATIONS
from adapterlint.model.target import Target
from adapterlint.report import Verdict

LOAD = "load"
_STAGES = {"load": 0, "after_load": 1, "switch": 2, "after_switch": 3, None: 4}


class Order(NamedTuple):
    """What operations need to know of the order of a set.

    Attributes:
        first: name of the adapter that is loaded first.
        first_path: its directory.
        next: name of the adapter that is active once the first is deleted; None if none is.
        next_path: its directory.
    """

    first: str
    first_path: str
    next: str | None
    next_path: str | None


def verdict(
    findings: Iterable[Finding],
    target: Target,
    *,
    scope: str,
    has_base: bool,
    operation: str = LOAD,
    order: Order | None = None,
) -> Verdict:
    """The worst effect of the findings on one target.

    Args:
        findings: all findings of the adapter or set, before any suppression.
        target: the release.
        scope: ``alone`` for an adapter loaded as ``default``, ``set`` for one under its own name.
        has_base: whether the base was there; if not, ``loads`` rests on it.
        operation: which operation the effects must be about. Each begins with loading, so what loading breaks for good
            counts as well.
        order: which adapters of the set come first, and next.
    """
    hits = [
        (finding, effect)
        for finding in findings
        for effect in target.holding(effect for effect in finding.effects if effect.scope in ("any", scope))
        if effect.operation == operation or _carries(finding, effect, operation, order)
    ]
    if not hits:
        return Verdict(Outcome.LOADS, assumes=() if has_base else ("base",))
    worst = max(effect.outcome.rank for _, effect in hits)
    chosen = [(finding, effect) for finding, effect in hits if effect.outcome.rank == worst]
    met = min(chosen, key=_when)[1]
    return Verdict(
        outcome=met.outcome,
        inert=met.outcome is Outcome.WRONG and all(effect.inert for _, effect in chosen),
        stage=met.stage,
        adapter=met.adapter,
        rules=tuple(sorted({finding.rule for finding, _ in chosen})),
        exception=met.exception,
        missing=tuple(sorted({item for _, effect in chosen for item in effect.missing})),
    )


def _carries(finding: Finding, effect: Effect, operation: str, order: Order | None) -> bool:
    """Whether what happens at loading decides a later operation too."""
    if effect.operation != LOAD or operation == LOAD:
        return False
    if operation == "hotswap":
        return _outlives_swap(finding, effect, order)
    if finding.damage == "active" or (finding.damage == "peft_model" and operation == "native"):
        return False
    if operation in finding.spares and effect.stage not in ("load", None):
        return False
    if effect.outcome is Outcome.WRONG:
        if operation == "save":
            pointed = finding.location.tensor is not None and not finding.adapters
            return pointed if finding.drops is None else finding.drops
        if operation == "delete" and order is not None:
            return _outlives_deletion(finding, effect, order)
    return True


def _outlives_deletion(finding: Finding, effect: Effect, order: Order) -> bool:
    """The first adapter goes, and the next one answers: with its own faults, and those that others left in the base."""
    if finding.damage == "base":
        return finding.location.path != order.next_path
    if not finding.adapters:
        return finding.location.path == order.next_path
    return effect.adapter in (None, order.next)


def _outlives_swap(finding: Finding, effect: Effect, order: Order | None) -> bool:
    """Hot-swapping loads the first adapter only, and puts the tensors of the others in the place of its own."""
    raised = effect.outcome is Outcome.RAISES
    if finding.damage == "files" and effect.outcome is Outcome.UNKNOWN:
        return True  # even of the first, which may not load at all
    if order is None or finding.adapters:
        return order is not None and raised and finding.of_first and effect.adapter == order.first
    if finding.location.path == order.first_path:
        return raised
    return finding.damage == "files" or finding.damage == ("config" if raised else "tensors")


def _when(hit: tuple[Finding, Effect]) -> tuple[int, bool, str]:
    """Order in which a user meets the effects: stage by stage, and PEFT reads the config before the weights."""
    finding, effect = hit
    in_config = finding.location.file == CONFIG_FILE or finding.damage == "config"
    return _STAGES.get(effect.stage, 4), not in_config, finding.rule


def with_severity(
    finding: Finding, targets: Sequence[Target], given: bool, operations: Iterable[str] = ()
) -> Finding | None:
    """The finding with the severity that it has for the requested targets; None when they are unaffected.

    Args:
        finding: as the rule yielded it.
        targets: requested targets.
        given: whether they were asked for; if not, breakage on other bundled releases is worth a warning.
        operations: operations beyond loading that were asked for.
    """
    if finding.rule == INTERNAL_ERROR:
        return finding
    wanted = {LOAD, *operations}
    said = [effect for effect in finding.effects if effect.outcome is not Outcome.LOADS]
    hits = [effect for target in targets for effect in target.holding(said)]
    asked = [effect for effect in hits if effect.operation in wanted]
    about_wanted = any(effect.operation in wanted for effect in said)
    quiet = False
    if any(effect.outcome in (Outcome.RAISES, Outcome.WRONG) for effect in asked):
        severity = Severity.ERROR
    elif asked:
        severity = Severity.WARNING
    elif said and not about_wanted:
        severity, quiet = Severity.NOTE, True
    elif said and (given or finding.targeted):
        if not hits:
            return None
        severity, quiet = Severity.NOTE, True
    else:
        severity = finding.severity
    return finding._replace(severity=min(severity, finding.ceiling, key=lambda item: item.rank), quiet=quiet)


def loads_since(findings: Sequence[Finding], known: Sequence[Target]) -> str | None:
    """The oldest release from which on every newer bundled one loads a set, whatever the loading order; or None."""
    oldest = None
    for target in reversed(known):
        found = verdict(findings, target, scope="set", has_base=True)
        if found.outcome is not Outcome.LOADS:
            break
        oldest = target.version
    return oldest
