"""HTML: one file that needs no other and asks no network, adapters against targets and every finding.

The content security policy lets nothing run or load but the style and the script of this file, by their hashes. Without
the script everything can be read; it adds the filter and the choice of colours.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from html import escape
from pathlib import Path

from adapterlint.findings import Outcome
from adapterlint.report import Place, Report, Reported, Verdict
from adapterlint.reporters.closing import summary
from adapterlint.reporters.excerpt import excerpt, gutter
from adapterlint.reporters.folding import effect_lines
from adapterlint.reporters.full import position
from adapterlint.reporters.matrix import Row, reason, rows, spans
from adapterlint.reporters.text import clipped, plural

_MARKS = {Outcome.LOADS: "✓", Outcome.RAISES: "✗", Outcome.WRONG: "≠", Outcome.UNKNOWN: "?"}
_LEGEND = (
    (Outcome.LOADS, "loads", "every tensor lands where it was trained"),
    (Outcome.RAISES, "raises", "an exception"),
    (Outcome.WRONG, "wrong", "no exception, but not the adapter's answers"),
    (Outcome.UNKNOWN, "unknown", "cannot be told from what was given"),
)
_NAME_LENGTH = 240
_RELATED = 6


def render(report: Report, color: bool = False) -> str:
    """A whole page; ``color`` has no meaning here."""
    style, script = _asset("page.css"), _asset("page.js")
    table = rows(report)
    body = [
        '<header><h1>adapterlint</h1><button type="button" id="theme" hidden>Dark</button></header>',
        f"<main>{_head(report)}",
        _filters() if table or report.shown else "",
        *(_matrix(report, table) if table else ()),
        *(_findings(report) if report.shown else ()),
    ]
    tool = f"adapterlint {_text(report.tool_version)}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>adapterlint: {_text(_title(report))}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            *filter(None, body),
            f"</main>\n<footer>{tool}. This file needs no network.</footer>",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
        ]
    )


@lru_cache(maxsize=2)
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").strip()


def _policy(style: str, script: str) -> str:
    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"

    allowed = f"img-src data:; style-src {hashed(style)}; script-src {hashed(script)}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _text(text: str, length: int = _NAME_LENGTH) -> str:
    return escape(clipped(text, length))


def _title(report: Report) -> str:
    found = report.summary
    return (
        f"{plural(found.errors, 'error')}, {plural(found.warnings, 'warning')} in {plural(found.adapters, 'adapter')}"
    )


def _head(report: Report) -> str:
    lines = (re.sub("`([^`]*)`", r"<code>\1</code>", escape(line)) for line in summary(report))
    return f'<p class="summary">{"<br>".join(lines)}</p>'


def _filters() -> str:
    outcomes = "".join(f'<option value="{outcome.value}">{name}</option>' for outcome, name, _ in _LEGEND)
    levels = "".join(f'<option value="{level}">{level}s</option>' for level in ("error", "warning", "note"))
    return (
        '<form id="filters" role="search" hidden>\n'
        '<label>Filter <input type="search" id="query" placeholder="name, rule, text" accesskey="f"></label>\n'
        f'<label>Outcome <select id="outcome"><option value="">any</option>{outcomes}</select></label>\n'
        f'<label>Findings <select id="severity"><option value="">all</option>{levels}</select></label>\n'
        '<button type="reset">Clear</button> <span id="count" role="status"></span>\n</form>'
    )


# -- adapters and sets against targets -----------------------------------------------------------------------------


def _matrix(report: Report, table: list[Row]) -> Iterator[str]:
    columns = list(spans(report, table))
    yield '<section aria-labelledby="verdicts">\n<h2 id="verdicts">What each release does</h2>'
    legend = (f'<li class="{outcome.value}">{_mark(outcome)} {name}: {text}</li>' for outcome, name, text in _LEGEND)
    yield f'<ul class="legend">{"".join(legend)}</ul>'
    yield '<div class="scroll" tabindex="0" role="region" aria-labelledby="verdicts">\n<table id="matrix">'
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title, _ in columns)
    yield f'<thead><tr><th scope="col">adapter or set</th>{heads}</tr></thead>\n<tbody>'
    for row in table:
        cells = "".join(_cell(row.verdicts[index]) for _, index in columns)
        found = " ".join(sorted({row.verdicts[index].outcome.value for _, index in columns}))
        kind = '<span class="kind">set</span> ' if row.kind == "set" else ""
        yield (f'<tr data-outcomes="{found}"><th scope="row">{kind}<bdi>{_name(row)}</bdi></th>{cells}</tr>')
    yield "</tbody>\n</table>\n</div>\n</section>"


def _name(row: Row) -> str:
    """A name that can be broken behind its slashes, or between the members of a set."""
    return _text(row.name).replace("/", "/<wbr>")


def _mark(outcome: Outcome) -> str:
    return f'<span class="mark" aria-hidden="true">{_MARKS[outcome]}</span>'


def _cell(verdict: Verdict) -> str:
    outcome = verdict.outcome
    label = f"{_mark(outcome)} {'inert' if verdict.inert else outcome.value}"
    why = reason(verdict)
    if verdict.rules and outcome is not Outcome.LOADS:
        more = f" +{len(verdict.rules) - 1}" if len(verdict.rules) > 1 else ""
        label += f' <span class="code">{escape(verdict.rules[0])}{more}</span>'
    if outcome is Outcome.LOADS and verdict.assumes:
        why = f"assuming the {' and the '.join(verdict.assumes)}"
    if not why:
        return f'<td class="{outcome.value}">{label}</td>'
    return f'<td class="{outcome.value}"><details><summary>{label}</summary><p>{escape(why)}</p></details></td>'


# -- findings ------------------------------------------------------------------------------------------------------


def _findings(report: Report) -> Iterator[str]:
    yield '<section aria-labelledby="findings">\n<h2 id="findings">Findings</h2>'
    for item in report.shown:
        yield from _finding(item, report)
    yield "</section>"


def _finding(item: Reported, report: Report) -> Iterator[str]:
    finding = item.finding
    level = finding.severity.value
    link = f'<a href="{escape(finding.url)}" rel="noreferrer">{escape(finding.rule)} {escape(finding.name)}</a>'
    yield f'<article data-severity="{level}">\n<h3><span class="badge {level}">{level}</span> {link}</h3>'
    yield f"<p>{_text(finding.message, 600)}</p>"
    for place in (item.place, *item.related[:_RELATED]):
        yield from _place(place)
    if len(item.related) > _RELATED:
        yield f"<p>and {len(item.related) - _RELATED} more places</p>"
    lines = effect_lines(finding.effects, report)
    if lines:
        yield "<ul>" + "".join(f"<li>{escape(line.text)}</li>" for line in lines) + "</ul>"
    if finding.fix is not None:
        yield f'<p class="fix">Fix ({finding.fix.safety.value}): {_text(finding.fix.title, 600)}</p>'
    yield "</article>"


def _place(place: Place) -> Iterator[str]:
    label = _text(place.location.label) if place.location.label else ""
    lines = list(excerpt(place, gutter(place), "", clipped(place.location.label or "", _NAME_LENGTH), False))
    tail = f": {label}" if label and not lines else ""
    yield f'<p class="place"><bdi>{escape(position(place))}</bdi>{tail}</p>'
    if lines:
        yield '<pre tabindex="0">' + escape("\n".join(lines)) + "</pre>"
