"""Findings and targets -> outcomes. A verdict is the worst effect that covers the target; nothing else decides it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adapterlint.findings import CONFIG_FILE, Effect, Finding, Outcome, Severity, covers
from adapterlint.findings import OPERATIONS as OPERATIONS
from adapterlint.model.adapter import Adapter
from adapterlint.model.target import Target
from adapterlint.report import Verdict

LOAD = "load"
INTERNAL_ERROR = "AL999"
_MENDED = frozenset({"AL501", "AL510"})
"""Rules about which adapter is active: operations name the one they want, and have rules of their own for the rest."""
_OF_PEFT_MODEL = frozenset({"AL509", "AL512"})
"""Rules about classes that transformers' own loader does not use."""
_STAGES = {"load": 0, "after_load": 1, "switch": 2, "after_switch": 3, None: 4}


def verdict(
    findings: Iterable[Finding],
    target: Target,
    *,
    scope: str,
    has_base: bool,
    operation: str = LOAD,
    first: Adapter | None = None,
) -> Verdict:
    """The worst effect of the findings on one target.

    Args:
        findings: all findings of the adapter or set, before any suppression.
        target: the release.
        scope: ``alone`` for an adapter loaded as ``default``, ``set`` for one under its own name.
        has_base: whether the base was there; if not, ``loads`` rests on it.
        operation: which operation the effects must be about. Each begins with loading, so what loading breaks for good
            counts as well.
        first: the first adapter of the set.
    """
    hits = [
        (finding, effect)
        for finding in findings
        for effect in finding.effects
        if (effect.operation == operation or _carries(finding, effect, operation, first))
        and effect.scope in ("any", scope)
        and covers(effect.targets, target.name, target.version)
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


def _carries(finding: Finding, effect: Effect, operation: str, first: Adapter | None) -> bool:
    """Whether what happens at loading decides a later operation too."""
    if effect.operation != LOAD or operation == LOAD:
        return False
    of_first = first is not None and first.path == finding.location.path and not finding.adapters
    if operation == "hotswap":  # loads the first adapter only, and reads the files of the others
        return of_first or (not finding.adapters and finding.rule.startswith("AL0"))
    if operation == "native" and finding.rule in _OF_PEFT_MODEL:
        return False
    if effect.outcome is Outcome.WRONG:
        if operation == "save":
            return finding.location.tensor is not None and not finding.adapters
        if operation == "delete" and finding.rule != "AL502":  # the first adapter is gone
            return not of_first and (first is None or effect.adapter != first.name)
    return finding.rule not in _MENDED


def _when(hit: tuple[Finding, Effect]) -> tuple[int, bool, str]:
    """Order in which a user meets the effects: stage by stage, and PEFT reads the config before the weights."""
    finding, effect = hit
    in_config = finding.location.file == CONFIG_FILE or finding.rule == "AL001"
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
    claims = [effect for effect in finding.effects if effect.outcome is not Outcome.LOADS]
    hits = [effect for effect in claims if _hits(effect, targets)]
    asked = [effect for effect in hits if effect.operation in wanted]
    about_wanted = any(effect.operation in wanted for effect in claims)
    quiet = False
    if any(effect.outcome in (Outcome.RAISES, Outcome.WRONG) for effect in asked):
        severity = Severity.ERROR
    elif asked:
        severity = Severity.WARNING
    elif claims and not about_wanted:
        severity, quiet = Severity.NOTE, True
    elif claims and (given or finding.targeted):
        if not hits:
            return None
        severity, quiet = Severity.NOTE, True
    else:
        severity = finding.severity
    return finding._replace(severity=min(severity, finding.ceiling, key=lambda item: item.rank), quiet=quiet)


def _hits(effect: Effect, targets: Sequence[Target]) -> bool:
    return any(covers(effect.targets, target.name, target.version) for target in targets)


def loads_since(findings: Sequence[Finding], known: Sequence[Target]) -> str | None:
    """The oldest release from which on every newer bundled one loads a set, whatever the loading order; or None."""
    oldest = None
    for target in reversed(known):
        found = verdict(findings, target, scope="set", has_base=True)
        if found.outcome is not Outcome.LOADS:
            break
        oldest = target.version
    return oldest
