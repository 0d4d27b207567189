"""The full format: every finding with its place, its effects and its fix, then the verdicts and the counts."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Safety
from adapterlint.report import Place, Report, Reported, path_of
from adapterlint.reporters.closing import summary, verdicts
from adapterlint.reporters.excerpt import excerpt, gutter
from adapterlint.reporters.folding import effect_lines
from adapterlint.reporters.text import clipped, paint

_SHOWN_RELATED = 6
_NAME_LENGTH = 240

_SAFETY = {
    Safety.SAFE: " (safe: adapterlint fix)",
    Safety.UNSAFE: " (unsafe: adapterlint fix --unsafe-fixes)",
    Safety.DISPLAY: "",
}


def render(report: Report, color: bool = False) -> str:
    """The report for a person at a terminal; with ``color`` it holds ANSI escapes."""
    blocks = ["\n".join(finding_lines(item, report, color)) for item in report.shown]
    if report.quiet:
        return "\n\n".join(blocks)
    closing = list(verdicts(report, color))
    if closing:
        blocks.append("\n".join(closing))
    blocks.append("\n".join(summary(report, color)))
    return "\n\n".join(blocks)


def finding_lines(item: Reported, report: Report, color: bool = False) -> Iterator[str]:
    """One finding.

    Args:
        item: the finding and its places.
        report: the run that it belongs to, for targets, operations and known releases.
        color: whether to use ANSI escapes.
    """
    finding = item.finding
    severity = finding.severity.value
    head = paint(f"{severity}[{finding.rule}]", severity, color)
    yield f"{head} {paint(finding.name, 'strong', color)}: {clipped(finding.message)}"
    shown = item.related[:_SHOWN_RELATED]
    columns = gutter(item.place, *shown)
    yield from _place_lines(item.place, columns, "-->", severity, color)
    for place in shown:
        yield from _place_lines(place, columns, ":::", "frame", color)
    frame = paint(" " * columns + " =", "frame", color)
    if len(item.related) > len(shown):
        yield f"{frame} and {len(item.related) - len(shown)} more places"
    for text in _notes(finding, report, color):
        yield f"{frame} {text}"


def _place_lines(place: Place, columns: int, arrow: str, role: str, color: bool) -> Iterator[str]:
    label = clipped(place.location.label, _NAME_LENGTH) if place.location.label else ""
    head = f"{paint(' ' * columns + arrow, 'frame', color)} {position(place)}"
    lines = list(excerpt(place, columns, role, label, color))
    yield f"{head}: {label}" if label and not lines else head
    yield from lines


def position(place: Place) -> str:
    """Where a place is: ``path:line:column``, ``path#tensor`` or the path alone, printable."""
    path = clipped(path_of(place.location), 2 * _NAME_LENGTH)
    if place.start:
        return f"{path}:{place.start[0]}:{place.start[1]}"
    if place.location.tensor is not None:
        return f"{path}#{clipped(place.location.tensor, _NAME_LENGTH)}"
    return path


def _notes(finding: Finding, report: Report, color: bool) -> Iterator[str]:
    for line in effect_lines(finding.effects, report):
        yield paint(line.text, "strong", color) if line.requested else line.text
    if finding.fix is not None:
        yield f"fix: {clipped(finding.fix.title)}{_SAFETY[finding.fix.safety]}"
