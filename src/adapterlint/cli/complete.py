"""What a shell offers for rules, targets and formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_rules(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Codes and names of rules; after a comma, of one more."""
    from click.shell_completion import CompletionItem

    from adapterlint.rules.registry import all_rules

    before, comma, word = incomplete.rpartition(",")
    found = []
    for rule in all_rules():
        found += [(rule.code, rule.name), (rule.name, rule.code)]
    return [CompletionItem(f"{before}{comma}{text}", help=about) for text, about in found if text.startswith(word)]


def complete_targets(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """``peft`` and every bundled release, newest first."""
    from click.shell_completion import CompletionItem

    from adapterlint.model.target import bundled

    texts = ["peft", *(str(target) for target in reversed(bundled()))]
    return [CompletionItem(text) for text in texts if text.startswith(incomplete)]


def complete_formats(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The formats of reports."""
    from click.shell_completion import CompletionItem

    from adapterlint.cli.reports import FORMATS

    return [CompletionItem(name) for name in FORMATS if name.startswith(incomplete)]
