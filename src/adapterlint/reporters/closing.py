"""What every text format says after the findings: sets, adapters, counts, and what was not looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from adapterlint.findings import Finding, Outcome, Safety, Severity
from adapterlint.releases import version_key
from adapterlint.report import AdapterReport, Report, Reported, SetReport, Verdict
from adapterlint.reporters.folding import EVERY, fold, fold_verdicts, split
from adapterlint.reporters.text import clipped, paint, plural

_SHOWN_NAMES = 8
_NAME_LENGTH = 200
_ROLES = {Outcome.RAISES: "error", Outcome.WRONG: "error", Outcome.UNKNOWN: "warning", Outcome.LOADS: "good"}


def verdicts(report: Report, color: bool) -> Iterator[str]:
    """Lines on every set, and on every adapter that some requested target does not load."""
    names = {adapter.path: adapter.name for adapter in report.adapters}
    for item in report.sets:
        yield from _set_lines(item, names, report, color)
    for adapter in report.adapters:
        if any(verdict.outcome is not Outcome.LOADS for verdict in adapter.verdicts.values()):
            yield _adapter_line(adapter, report, color)


def _set_lines(item: SetReport, names: dict[str, str], report: Report, color: bool) -> Iterator[str]:
    members = [clipped(names.get(path, path), _NAME_LENGTH) for path in item.adapters]
    more = f" and {len(members) - _SHOWN_NAMES} more" if len(members) > _SHOWN_NAMES else ""
    base = clipped(item.base, _NAME_LENGTH) if item.base else "an unnamed base"
    title = paint(f"set of {plural(len(members), 'adapter')} on {base}", "strong", color)
    yield f"{title} ({', '.join(members[:_SHOWN_NAMES])}{more}): {_since(item, report, color)}"
    if _says_all(item):
        return
    for line in fold_verdicts(item.verdicts, report.releases):
        yield f"  {paint(line.text, _ROLES[line.outcome], color)}"


def _since(item: SetReport, report: Report, color: bool) -> str:
    if item.loads_since:
        known = list(report.releases)
        position = next((i for i, target in enumerate(known) if split(target).version == item.loads_since), len(known))
        since = fold(known[position:], known, open_ended=True).replace(" ", "") if position else EVERY
        return paint(f"loads as is on {since}{_beside(report)}, in every order", "good", color)
    newest = fold(report.releases[-1:], report.releases)
    return paint(
        f"not known to load as is, in every order, on {newest} (the newest){_beside(report)}", "warning", color
    )


def _beside(report: Report) -> str:
    """The release of transformers, if all targets name the same one."""
    named = {split(target).transformers for target in report.targets}
    only = named.pop() if len(named) == 1 else ""
    return f" with transformers {only}" if only else ""


def _says_all(item: SetReport) -> bool:
    """Whether the headline says it: every requested target is one from which on the set loads, in every order."""
    if not item.loads_since:
        return False
    oldest = version_key(item.loads_since)
    return all(
        verdict.outcome is Outcome.LOADS and version_key(split(target).version) >= oldest
        for target, verdict in item.verdicts.items()
    )


def _adapter_line(adapter: AdapterReport, report: Report, color: bool) -> str:
    parts = [paint(line.text, _ROLES[line.outcome], color) for line in fold_verdicts(adapter.verdicts, report.releases)]
    return f"{paint(f'adapter {clipped(adapter.path, _NAME_LENGTH)}', 'strong', color)}: {'; '.join(parts)}"


def summary(report: Report, color: bool = False) -> Iterator[str]:
    """The counts, then what was skipped and what the verdicts rest on."""
    if not report.adapters:
        yield "Nothing to check: no adapters found"
        return
    scope = f"{plural(len(report.adapters), 'adapter')} ({', '.join(_facts(report))})"
    counts = _counts(report.shown)
    if counts:
        worst = max((item.finding.severity for item in report.shown), key=lambda severity: severity.rank)
        yield f"{paint(f'Found {counts}', worst.value, color)} in {scope}{_fixable(report.shown)}"
    elif any(verdict.outcome is not Outcome.LOADS for verdict in _every_verdict(report)):
        yield f"{paint('Nothing reported', 'warning', color)} in {scope}"  # the findings were not selected
    else:
        yield f"{paint('No problems found', 'good', color)} in {scope}"
    if report.suppressed:
        yield f"{plural(report.suppressed, 'finding')} not reported: ignored, or in the baseline"
    yield from _skips(report)
    if report.config:
        yield f"Settings from {clipped(report.config, _NAME_LENGTH)}"


def _every_verdict(report: Report) -> Iterator[Verdict]:
    for adapter in report.adapters:
        yield from adapter.verdicts.values()
    for item in report.sets:
        yield from item.verdicts.values()


def _facts(report: Report) -> Iterator[str]:
    yield plural(sum(adapter.tensors for adapter in report.adapters), "tensor")
    yield fold(report.targets, report.releases)
    yield f"{report.summary.seconds:.2f} s"


def _counts(shown: Sequence[Reported]) -> str:
    found = Counter(item.finding.severity for item in shown)
    parts = [plural(found[severity], severity.value) for severity in reversed(Severity) if found[severity]]
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def fixed_by(finding: Finding) -> Safety | None:
    """How far the fix of a finding can be trusted; None if no command makes it."""
    fix = finding.fix
    if fix is None or fix.safety is Safety.DISPLAY or not (fix.edits or fix.form):
        return None
    return fix.safety


def _fixable(shown: Sequence[Reported]) -> str:
    found = Counter(fixed_by(item.finding) for item in shown)
    text = ""
    if found[Safety.SAFE]:
        text = f"; {found[Safety.SAFE]} fixable with `adapterlint fix`"
    if found[Safety.UNSAFE]:
        how = ", {} more with" if text else "; {} fixable with"
        text += f"{how.format(found[Safety.UNSAFE])} `adapterlint fix --unsafe-fixes`"
    return text


def _skips(report: Report) -> Iterator[str]:
    """Rules that lacked the base, then those that lacked a file which can be read; each kind on one line."""
    parts = []
    files = "a config and weights that can be read"
    for lacks, what in ((("base",), "--base"), (("config", "weights"), files)):
        found = [item for item in report.skipped if item.needs in lacks]
        rules, paths = {item.rule for item in found}, {item.path for item in found}
        if rules:
            some = f" ({len(paths)} of {plural(len(report.adapters), 'adapter')})" if len(report.adapters) > 1 else ""
            parts.append(f"{plural(len(rules), 'check needs', 'checks need')} {what}{some}")
    if parts:
        yield f"skipped: {'; '.join(parts)}"
    if any("base" in verdict.assumes for verdict in _every_verdict(report)):
        yield "where no base was found, `loads` assumes the base: modules and shapes as the adapter was trained on"
