"""A rule's page as Markdown: what ``adapterlint rule --format markdown`` prints, and the documentation shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from adapterlint.cli.rule import Page, as_dict
from adapterlint.reporters.full import finding_lines
from adapterlint.reporters.ruledoc import as_markdown, first_sentence


def table(pages: Iterable[Page], link: Callable[[Page], str]) -> str:
    """All rules, a row each.

    Args:
        pages: the rules.
        link: the address of a rule's page.
    """
    rows = [
        f"| {item.rule.code} | [{item.rule.name}]({link(item)}) | {item.rule.severity.value} "
        f"| {'/'.join(item.fixes) or 'none'} | {_cell(first_sentence(type(item.rule).__doc__ or ''))} |"
        for item in pages
    ]
    return "\n".join(["| code | name | severity | fix | what it does |", "|---|---|---|---|---|", *rows])


def page(item: Page) -> str:
    """One rule: its words, what releases do, and its examples with what ``check`` says of them."""
    data = as_dict(item)
    fixes = " and ".join(f"{name} fix" for name in data["fixes"]) or "no fix"
    blocks = [
        f"# {data['code']} {data['name']}",
        f"{data['severity'].capitalize()}, {fixes}; needs {', '.join(data['needs'])}; since {data['since']}.",
        as_markdown(type(item.rule).__doc__ or ""),
    ]
    if data["effects"]:
        blocks += ["## Effects", "\n".join(f"- {text}" for text in data["effects"])]
    blocks += ["## Fine", "\n".join(f"- {_plain(title)}" for title in data["valid"])]
    if item.examples:
        blocks.append("## Reported")
    for shown in item.examples:
        text = "\n".join("\n".join(finding_lines(found, shown.report, False)) for found in shown.findings)
        blocks += [f"### {_plain(shown.title)}", _fenced(text.replace(shown.root, ""))]
    return "\n\n".join(blocks)


def _fenced(text: str) -> str:
    """A block of text, in a fence that nothing in it can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("_", r"\_").replace("*", r"\*")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
