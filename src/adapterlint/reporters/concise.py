"""The concise format: one line a finding, then the counts."""

from __future__ import annotations

from adapterlint.findings import Safety
from adapterlint.report import Report, Reported
from adapterlint.reporters.closing import fixed_by, summary
from adapterlint.reporters.full import position
from adapterlint.reporters.text import clipped, paint


def render(report: Report, color: bool = False) -> str:
    """``path:line:column: error AL207 [*] message (name)``; ``[*]`` stands for a safe fix."""
    closing = () if report.quiet else summary(report, color)
    return "\n".join([*(_line(item, color) for item in report.shown), *closing])


def _line(item: Reported, color: bool) -> str:
    finding = item.finding
    severity = paint(finding.severity.value, finding.severity.value, color)
    mark = " [*]" if fixed_by(finding) is Safety.SAFE else ""
    where = position(item.place)
    if where.startswith("::"):  # which CI services take for a command
        where = f"./{where}"
    return f"{where}: {severity} {finding.rule}{mark} {clipped(finding.message)} ({finding.name})"
