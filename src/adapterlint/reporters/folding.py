"""Releases and effects in few words: ``raises on peft 0.6-0.13: TypeError: ...``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from adapterlint.findings import Effect, Outcome, holding
from adapterlint.releases import BESIDE, covers, parts_of
from adapterlint.report import LOAD, Report, Verdict
from adapterlint.reporters.text import clipped, printable

EVERY = "every release"
_NEEDED = {"transformers": "release of transformers"}
_EXCEPTION_LENGTH = 240

_STAGES = {
    (Outcome.RAISES, "switch"): " in set_adapter",
    (Outcome.RAISES, "after_load"): " after loading",
    (Outcome.RAISES, "after_switch"): " after switching",
    (Outcome.WRONG, "switch"): " while switching",
    (Outcome.WRONG, "after_switch"): " after switching",
}
_SCOPES = {"alone": ", loaded alone", "set": ", loaded under a name of its own"}


class Line(NamedTuple):
    """One thing that targets do, in words.

    Attributes:
        text: the words, printable.
        outcome: what happens.
        requested: whether it happens on a requested target.
    """

    text: str
    outcome: Outcome
    requested: bool


class Named(NamedTuple):
    """What a target's text names: ``peft==0.13.2,transformers==5.23`` -> ``("peft", "0.13.2", "5.23")``."""

    name: str
    version: str
    transformers: str


def split(target: str) -> Named:
    """The parts of a target's text."""
    own, beside = parts_of(target)
    name, _, version = own.partition("==")
    return Named(name, version, beside.partition("==")[2])


def fold(targets: Iterable[str], known: Sequence[str], *, open_ended: bool = False) -> str:
    """Target texts folded into ranges of the releases that the tool knows.

    Args:
        targets: such as ``peft==0.6.0``, in any order.
        known: every known release, oldest first; a run in it is a range, and ``0.6`` stands for all 0.6 releases.
        open_ended: say ``every release``, ``<=0.5`` and ``>=0.18`` where a range reaches the first or last known one.
    """
    families: dict[tuple[str, str], set[str]] = {}
    for name, version, beside in map(split, targets):
        families.setdefault((name, beside), set()).add(version)
    parts = []
    for (name, beside), chosen in sorted(families.items()):
        versions = [item.version for item in map(split, known) if item.name == name]
        strange = sorted(chosen.difference(versions))
        suffix = f" with {BESIDE} {beside}" if beside else ""
        if open_ended and versions and chosen.issuperset(versions):
            parts.append((EVERY if len(families) == 1 else f"every {name}") + suffix)
            continue
        parts.append(f"{name} {', '.join([*_ranges(chosen, versions, open_ended), *strange])}{suffix}")
    return " and ".join(parts)


def _ranges(chosen: set[str], known: Sequence[str], open_ended: bool) -> list[str]:
    runs: list[tuple[int, int]] = []
    for index, version in enumerate(known):
        if version not in chosen:
            continue
        if runs and runs[-1][1] == index - 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return [_range(first, last, known, open_ended) for first, last in runs]


def _range(first: int, last: int, known: Sequence[str], open_ended: bool) -> str:
    low, high = known[first], known[last]
    starts = first == 0 or _minor(known[first - 1]) != _minor(low)
    ends = last == len(known) - 1 or _minor(known[last + 1]) != _minor(high)
    if open_ended and first == 0:
        return f"<={_minor(high) if ends else high}"
    if open_ended and last == len(known) - 1:
        return f">={_minor(low) if starts else low}"
    if _minor(low) == _minor(high):
        if starts and ends:
            return _minor(low)
        return low if first == last else f"{low}-{high}"
    return f"{_minor(low) if starts else low}-{_minor(high) if ends else high}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def fold_effects(
    effects: Iterable[Effect],
    known: Sequence[str],
    requested: Mapping[str, str] = MappingProxyType({}),
    operations: Iterable[str] = (),
) -> list[Line]:
    """Effects in words: those that say the same share a line; loading first, then by operation and release.

    Args:
        effects: claims of one finding.
        known: every known release as target text, oldest first.
        requested: target texts that were asked for, which the lines mark, each with the release of transformers that it
            is about; empty to mark none.
        operations: operations beyond loading whose effects are wanted.
    """
    wanted = {LOAD, *operations}
    groups: dict[Effect, list[Effect]] = {}
    said = [effect for effect in effects if effect.operation in wanted and effect.outcome is not Outcome.LOADS]
    for effect in said:
        groups.setdefault(effect._replace(targets=parts_of(effect.targets)[1]), []).append(effect)
    parts = ((target, beside, split(target)) for target, beside in requested.items())
    met = {
        target: holding(said, own.name, own.version, beside, bool(own.transformers)) for target, beside, own in parts
    }
    lines = []
    for members in groups.values():
        asked = [target for target, held in met.items() if any(each in held for each in members)]
        line, order = _effect_line(members, known, requested, asked)
        lines.append((order, line))
    return [line for _, line in sorted(lines)]


def effect_lines(effects: Iterable[Effect], report: Report) -> list[Line]:
    """:func:`fold_effects` for a report: its releases, the targets that were asked for, the operations it is about."""
    requested = {target: report.stacks.get(target, "") for target in report.targets if report.targets_given}
    return fold_effects(effects, report.releases, requested, report.operations)


def _effect_line(
    members: Sequence[Effect], known: Sequence[str], requested: Collection[str], asked: Sequence[str]
) -> tuple[Line, tuple[bool, str, int, int]]:
    effect, beside = members[0], parts_of(members[0].targets)[1]
    spans = [parts_of(each.targets)[0] for each in members]
    hit = [target for target in known if any(covers(span, *split(target)[:2]) for span in spans)]
    where = fold(hit, known, open_ended=True) if hit else " and ".join(map(printable, spans))
    if beside:
        where += f" with {BESIDE} {beside.removeprefix(BESIDE)}"
    scope = _SCOPES.get(effect.scope, "")
    text = said(effect, where, f"{scope}{_mark(asked, requested, hit, known)}")
    if effect.operation != LOAD:
        text = f"{effect.operation}: {text}"
    first = known.index(hit[0]) if hit else len(known)
    order = (effect.operation != LOAD, effect.operation, first, -effect.outcome.rank)
    return Line(text, effect.outcome, bool(asked)), order


def _mark(asked: Sequence[str], requested: Collection[str], hit: Sequence[str], known: Sequence[str]) -> str:
    """Which of the releases were asked for; nothing to tell apart where all of either kind are."""
    if not asked:
        return ""
    if len(asked) in (len(requested), len(hit)):
        return " [requested]"
    return f" [requested: {fold(asked, known).removeprefix(split(asked[0]).name + ' ')}]"


def fold_verdicts(verdicts: Mapping[str, Verdict], known: Sequence[str]) -> list[Line]:
    """Verdicts in words: targets with the same verdict share a line, oldest first."""
    groups: dict[Verdict, list[str]] = {}
    for target, verdict in verdicts.items():
        groups.setdefault(verdict._replace(rules=(), assumes=()), []).append(target)
    return [Line(said(verdict, fold(targets, known)), verdict.outcome, True) for verdict, targets in groups.items()]


def said(claim: Effect | Verdict, where: str, remark: str = "") -> str:
    """What happens, where, and with which exception.

    Args:
        claim: an effect or a verdict.
        where: the releases, in words; empty where something else shows them.
        remark: what else to say of them.
    """
    adapter = f", first for adapter {printable(claim.adapter)}" if claim.adapter else ""
    stage = _STAGES.get((claim.outcome, claim.stage or ""), "")
    on = f" on {where}" if where else ""
    text = f"{_verb(claim)}{stage}{on}{adapter}{remark}"
    if claim.outcome is Outcome.UNKNOWN and claim.missing:
        text += f" without the {' and the '.join(_NEEDED.get(item, item) for item in claim.missing)}"
    if claim.exception:
        text += f": {clipped(claim.exception, _EXCEPTION_LENGTH)}"
    return text


def _verb(claim: Effect | Verdict) -> str:
    if claim.outcome is Outcome.WRONG:
        return "the base answers alone" if claim.inert else "silently wrong"
    return {"raises": "raises", "unknown": "cannot be told", "loads": "loads"}[claim.outcome.value]
