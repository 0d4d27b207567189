"""Options that several commands share, and how they become a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from adapterlint.run import Request
from adapterlint.sets import Grouping
from adapterlint.suppress import Selection
from adapterlint.verdicts import OPERATIONS

Command = TypeVar("Command", bound=Callable[..., Any])


def _codes(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Split comma lists and refuse what names no rule."""
    codes = tuple(code.strip() for item in value for code in item.split(",") if code.strip())
    if codes:
        from adapterlint.rules.registry import all_rules

        rules = all_rules()
        for code in codes:
            if not any(code == rule.name or (code.startswith("AL") and rule.code.startswith(code)) for rule in rules):
                raise click.BadParameter(f"{code!r} names no rule; `adapterlint rule` lists them")
    return codes


def request_options(command: Command) -> Command:
    """Add the options that describe what to check."""
    decorators = [
        click.argument("paths", nargs=-1, required=True, type=click.Path()),
        click.option(
            "--target",
            "targets",
            multiple=True,
            metavar="SPEC",
            help="Such as 'peft==0.13.2' or 'peft>=0.6,<0.14'; repeatable.",
        ),
        click.option("--base", metavar="DIR", help="The base model's directory; found by itself where it is local."),
        click.option("--select", multiple=True, callback=_codes, metavar="CODES", help="Report only these rules."),
        click.option("--ignore", multiple=True, callback=_codes, metavar="CODES", help="Do not report these rules."),
        click.option("--set", "one_set", is_flag=True, help="Treat all adapters found as one set."),
        click.option("--no-sets", is_flag=True, help="Look at every adapter on its own."),
        click.option("--no-payload", is_flag=True, help="Read headers only, no tensor data."),
        click.option("--full-payload", is_flag=True, help="Search all tensor data for NaN, however large."),
        click.option(
            "--operation",
            "operations",
            multiple=True,
            type=click.Choice([*OPERATIONS, "all"]),
            help="Also report what breaks in this operation; repeatable.",
        ),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def to_request(options: dict[str, Any]) -> Request:
    """The request that parsed options describe."""
    if options["no_payload"] and options["full_payload"]:
        raise click.UsageError("--no-payload and --full-payload exclude each other")
    if options["one_set"] and options["no_sets"]:
        raise click.UsageError("--set and --no-sets exclude each other")
    grouping = "one" if options["one_set"] else "none" if options["no_sets"] else "auto"
    operations = set(options["operations"])
    return Request(
        paths=options["paths"],
        targets=options["targets"],
        base=options["base"],
        grouping=cast(Grouping, grouping),
        selection=Selection(options["select"], options["ignore"]),
        payload="none" if options["no_payload"] else "full" if options["full_payload"] else "quick",
        operations=frozenset(OPERATIONS if "all" in operations else operations),
    )
