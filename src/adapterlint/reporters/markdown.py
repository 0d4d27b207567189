"""Markdown, as GitHub and GitLab show it: a table of verdicts, then the findings. For comments and job summaries."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapterlint.report import Report, Reported
from adapterlint.reporters.closing import summary
from adapterlint.reporters.folding import effect_lines
from adapterlint.reporters.full import position
from adapterlint.reporters.matrix import reason, rows, spans
from adapterlint.reporters.text import clipped, plural

_NAME_LENGTH = 120
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$:-])")
_MENTION = re.compile(r"(?<![\w`])@\w")


def render(report: Report, color: bool = False, limit: int = 0) -> str:
    """The report as Markdown, never coloured.

    Args:
        report: what to say.
        color: has no meaning here.
        limit: bytes of UTF-8 to stay below, by leaving findings and rows out; 0 for no limit.
    """
    head = "\n".join(["## adapterlint", "", *(f"{escaped(line)}  " for line in summary(report))]).rstrip()
    used = len(head.encode()) + 200
    blocks = [head]
    for title, lines in (("Verdicts", _table(report)), ("Findings", map(_finding, *_each(report)))):
        kept: list[str] = []
        left = 0
        for text in lines:
            size = len(text.encode("utf-8", "replace")) + 1
            if left or (limit and used + size > limit):
                left += 1
                continue
            used += size
            kept.append(text)
        if kept:
            blocks.append("\n".join([f"### {title}", "", *kept]))
        if left:
            blocks.append(f"{plural(left, 'more line')} left out: {title.lower()}.")
    return "\n\n".join(blocks)


def _each(report: Report) -> tuple[tuple[Reported, ...], list[Report]]:
    return report.shown, [report] * len(report.shown)


def _table(report: Report) -> Iterator[str]:
    """Every adapter and set, a row each; reasons stand below, numbered as in the cells."""
    table = rows(report)
    if not table:
        return
    columns = list(spans(report, table))
    notes: dict[str, int] = {}
    yield "| | " + " | ".join(escaped(title) for title, _ in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for row in table:
        cells = []
        for _, index in columns:
            verdict, why = row.verdicts[index], reason(row.verdicts[index])
            mark = f" \\[{notes.setdefault(why, len(notes) + 1)}\\]" if why else ""
            cells.append(f"{verdict.outcome.value}{mark}")
        name = code(row.name, _NAME_LENGTH).replace("|", "\\|")
        yield f"| {'set ' if row.kind == 'set' else ''}{name} | {' | '.join(cells)} |"
    if notes:
        yield ""
    for why, number in notes.items():
        yield f"{number}. {escaped(why)}"


def _finding(item: Reported, report: Report) -> str:
    finding = item.finding
    head = f"**{finding.severity.value}** [{finding.rule}]({finding.url}) {code(finding.name)}"
    lines = [f"- {head} {code(position(item.place), 2 * _NAME_LENGTH)}  ", f"  {escaped(clipped(finding.message))}"]
    for line in effect_lines(finding.effects, report):
        lines.append(f"  - {escaped(line.text)}")
    if finding.fix is not None:
        lines.append(f"  - fix ({finding.fix.safety.value}): {escaped(clipped(finding.fix.title))}")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """The printable text, so that none of it is markup; what would call a person stands as code."""
    if _MENTION.search(text):
        return code(text)
    return _SPECIAL.sub(r"\\\1", text)


def code(text: str, length: int = 0) -> str:
    """The text as a code span, its fence longer than any run of backticks in it."""
    shown = clipped(text, length) if length else text
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or not shown.strip() else ""
    return f"{fence}{pad}{shown or ' '}{pad}{fence}"
