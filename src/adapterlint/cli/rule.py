"""``adapterlint rule``."""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import click

from adapterlint.api import example_request, settings_of
from adapterlint.cli.complete import complete_rules
from adapterlint.cli.grouped import OTHER, Command, choice
from adapterlint.cli.options import file_options
from adapterlint.cli.output import echo, fail, guarded, use_color
from adapterlint.errors import no_rule
from adapterlint.findings import DOC_URL, OPERATIONS, PREFIX, Effect, Safety
from adapterlint.model.target import bundled
from adapterlint.report import Report, Reported
from adapterlint.reporters import json as json_report
from adapterlint.reporters.folding import fold_effects
from adapterlint.reporters.full import finding_lines
from adapterlint.reporters.ruledoc import sections
from adapterlint.reporters.text import paint
from adapterlint.rules.examples import AnyExample
from adapterlint.rules.registry import AnyRule, all_rules
from adapterlint.run import check

EVERY_TARGET = "peft>=0"
EXAMPLES = [
    ("rule", "all rules"),
    ("rule AL207", "one of them, by its code or its name"),
    ("rule rank-mismatch --format markdown", "its page"),
]


@click.command("rule", cls=Command, examples=EXAMPLES)
@click.argument("wanted", metavar="[CODE|NAME]", required=False, shell_complete=complete_rules)
@choice("--format format_", ["text", "json", "markdown"], OTHER, "How it is printed.")
@file_options
@guarded
def command(wanted: str | None, format_: str, config: str | None, isolated: bool) -> None:
    """Explain a rule by its code or name, or list them all.

    The examples are written to a temporary directory and examined: what is printed is what `check` says of them. Rules
    of plugins are among them where the configuration of the working directory names the plugins.
    """
    plugins = tuple(settings_of(["."], {}, config, isolated)["plugins"])
    rules = [_find(wanted)] if wanted is not None else list(all_rules())
    pages = [page(rule, plugins) for rule in rules]
    if format_ == "markdown":
        from adapterlint.cli import rule_markdown

        echo(rule_markdown.table(pages, _address) if wanted is None else rule_markdown.page(pages[0]))
    elif format_ == "json":
        shown = [as_dict(item) for item in pages]
        click.echo(json.dumps(shown if wanted is None else shown[0], indent=2))
    elif wanted is None:
        echo("\n".join(_table(pages, use_color())))
    else:
        echo("\n".join(_page_lines(pages[0], use_color())))


def _find(wanted: str) -> AnyRule:
    rules = all_rules()
    for rule in rules:
        if wanted.upper() == rule.code or wanted.lower() == rule.name:
            return rule
    raise fail(f"{wanted!r} {no_rule(wanted, [(rule.code, rule.name) for rule in rules])}")


# -- running the examples ----------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """An invalid example and what the rule says of it.

    Attributes:
        title: what it shows.
        findings: the rule's findings, with their places.
        report: the run that they belong to.
        root: the directory, with a slash, in which it was written; no output names it.
    """

    title: str
    findings: tuple[Reported, ...]
    report: Report
    root: str


@dataclass(frozen=True)
class Page:
    """A rule with its examples run.

    Attributes:
        rule: the rule.
        examples: its invalid examples.
    """

    rule: AnyRule
    examples: tuple[Shown, ...]

    @property
    def fix(self) -> Safety | None:
        """The safest fix that some example gets; None if none gets any."""
        return next((safety for safety in Safety if safety in self._offered), None)

    @property
    def fixes(self) -> tuple[Safety, ...]:
        """The fixes that ``adapterlint fix`` applies to some example: without the flag, with it; what none of both does
        is for a person, or for nobody."""
        return tuple(safety for safety in (Safety.SAFE, Safety.UNSAFE) if safety in self._offered)

    @cached_property
    def _offered(self) -> set[Safety]:
        return {item.finding.fix.safety for shown in self.examples for item in shown.findings if item.finding.fix}

    @property
    def effects(self) -> list[Effect]:
        """The effects of the rule and of its examples, without what only one adapter is about."""
        found = [*self.rule.effects]
        found += [effect for shown in self.examples for item in shown.findings for effect in item.finding.effects]
        return list(dict.fromkeys(effect._replace(exception=None, adapter=None) for effect in found))


def page(rule: AnyRule, plugins: tuple[str, ...] = ()) -> Page:
    """The rule, its invalid examples written to a temporary directory and examined."""
    return Page(rule, tuple(_run(rule, example, plugins) for example in rule.invalid()))


def _run(rule: AnyRule, example: AnyExample, plugins: tuple[str, ...]) -> Shown:
    with tempfile.TemporaryDirectory(prefix="adapterlint-") as root:
        written = example_request(example, Path(root))
        for targets in ((), (EVERY_TARGET,)):  # some rules speak only to those who ask for an older release
            request = written._replace(targets=targets, operations=frozenset(OPERATIONS), plugins=plugins)
            report = check(request)
            found = tuple(item for item in report.findings if item.finding.rule == rule.code)
            if found:
                break
    return Shown(example.title, found, report._replace(targets_given=False), f"{root}/")


# -- output ------------------------------------------------------------------------------------------------------


def _address(item: Page) -> str:
    """The page in the documentation; a rule of a plugin has none."""
    return f"{DOC_URL}{item.rule.name}/" if item.rule.code.startswith(PREFIX) else ""


def as_dict(item: Page) -> dict[str, Any]:
    """Everything about a rule as plain data; a finding has the form that it has in a JSON report."""
    rule = item.rule
    return {
        "code": rule.code,
        "name": rule.name,
        "since": rule.since,
        "severity": rule.severity.value,
        "needs": list(rule.needs),
        "fix": item.fix.value if item.fix else None,
        "fixes": [safety.value for safety in item.fixes],
        "url": _address(item),
        "sections": dict(sections(type(rule).__doc__ or "")),
        "effects": _effects(item),
        "valid": [example.title for example in rule.valid()],
        "invalid": [
            {
                "title": shown.title,
                "findings": [_without(json_report.finding_as_dict(found), shown.root) for found in shown.findings],
            }
            for shown in item.examples
        ],
    }


def _without(value: Any, root: str) -> Any:
    """The value with every path below the temporary directory made relative."""
    if isinstance(value, str):
        return value.replace(root, "")
    if isinstance(value, list):
        return [_without(item, root) for item in value]
    return {key: _without(item, root) for key, item in value.items()} if isinstance(value, dict) else value


def _effects(item: Page) -> list[str]:
    known = [str(target) for target in bundled()]
    return [line.text for line in fold_effects(item.effects, known, operations=OPERATIONS)]


def _table(pages: Sequence[Page], color: bool) -> Iterator[str]:
    head = ("code", "name", "severity", "fix", "needs")
    rows = [
        (
            item.rule.code,
            item.rule.name,
            item.rule.severity.value,
            "/".join(item.fixes) or "none",
            ", ".join(item.rule.needs),
        )
        for item in pages
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    yield paint("  ".join(f"{cell:<{size}}" for cell, size in zip(head, widths, strict=True)).rstrip(), "strong", color)
    for row in rows:
        cells = [f"{cell:<{size}}" for cell, size in zip(row, widths, strict=True)]
        cells[0] = paint(cells[0], "frame", color)
        cells[2] = paint(cells[2], row[2], color)
        yield "  ".join(cells).rstrip()


def _page_lines(item: Page, color: bool) -> Iterator[str]:
    rule = item.rule
    yield paint(f"{rule.code} {rule.name}", "strong", color)
    fix = " and ".join(f"{safety.value} fix" for safety in item.fixes) or "no fix"
    yield f"{rule.severity.value}, {fix}, needs {', '.join(rule.needs)}, since {rule.since}"
    for heading, text in sections(type(rule).__doc__ or ""):
        yield from ("", paint(heading, "frame", color), textwrap.indent(text, "  "))
    effects = _effects(item)
    if effects:
        yield from ("", paint("Effects", "frame", color), *(f"  {text}" for text in effects))
    yield from ("", paint("Fine", "frame", color), *(f"  {example.title}" for example in rule.valid()))
    yield from ("", paint("Reported", "frame", color))
    for shown in item.examples:
        yield f"  {shown.title}"
        for found in shown.findings:
            text = "\n".join(finding_lines(found, shown.report, color)).replace(shown.root, "")
            yield textwrap.indent(text, "    ", lambda line: True)
