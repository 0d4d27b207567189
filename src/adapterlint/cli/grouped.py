"""Help that can be taken in at a glance: options under headings, examples, and what was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from adapterlint.errors import nearest

CHECKED = "What is checked"
REPORTED = "What is reported"
CONFIGURED = "Configuration"
WRITTEN = "What is written"
RUNNING = "Running"
OTHER = "Other options"
_ORDER = (CHECKED, REPORTED, WRITTEN, RUNNING, CONFIGURED, OTHER)


class Option(click.Option):
    """An option with the heading that it stands under."""

    def __init__(self, *arguments: Any, group: str = OTHER, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.group = group


def option(*names: str, **options: Any) -> Callable[[Any], Any]:
    """``click.option`` with a ``group``."""
    return click.option(*names, cls=Option, **options)


def choice(names: str, choices: Sequence[str], group: str, about: str) -> Callable[[Any], Any]:
    """An option that takes one of several words, the first by default; names are separated by blanks."""
    return option(
        *names.split(), type=click.Choice(choices), default=choices[0], show_default=True, group=group, help=about
    )


class Command(click.Command):
    """A command whose help has headings and examples.

    Args:
        examples: (command line without the program's name, what it does) pairs.
    """

    def __init__(self, *arguments: Any, examples: Sequence[tuple[str, str]] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, under their headings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(parameter, "group", OTHER), []).append(record)
        for title in sorted(groups, key=_ORDER.index):
            with formatter.section(title):
                formatter.write_dl(groups[title])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples."""
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[tuple[str, str]]) -> None:
    """A section of examples, each below the comment that says what it does."""
    if not examples:
        return
    with formatter.section("Examples"):
        for line, about in examples:
            formatter.write(f"{'':{formatter.current_indent}}# {about}\n")
            formatter.write(f"{'':{formatter.current_indent}}adapterlint {line}\n")


class Group(click.Group):
    """A group that says which command was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"there is no command {name!r}{nearest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)
