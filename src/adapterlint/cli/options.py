"""Options that several commands share, and how they become settings and a request."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapterlint.api import request_of, settings_of, unknown_rule
from adapterlint.cli.grouped import CHECKED, CONFIGURED, REPORTED, option
from adapterlint.config.settings import Settings
from adapterlint.findings import OPERATIONS
from adapterlint.run import Request

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])


def request_options(command: Command) -> Command:
    """Add the options that describe what to check."""
    return _add(command, [click.argument("paths", nargs=-1, required=True, type=click.Path()), *_options()])


def setting_options(command: Command) -> Command:
    """The same options, where PATHS may be left out: the working directory then."""
    return _add(command, [click.argument("paths", nargs=-1, type=click.Path()), *_options()])


def file_options(command: Command) -> Command:
    """Add the options that choose the configuration file."""
    return _add(command, _file_options())


def completes(name: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """The function of that name in ``cli.complete``, which is imported only when a shell asks."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from adapterlint.cli import complete as module

        found: list[CompletionItem] = getattr(module, name)(ctx, parameter, incomplete)
        return found

    return complete


def _add(command: Command, decorators: list[Callable[[Any], Any]]) -> Command:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def _file_options() -> list[Callable[[Any], Any]]:
    return [
        option("--config", type=click.Path(), metavar="FILE", group=CONFIGURED, help="Use this configuration file."),
        option("--isolated", is_flag=True, group=CONFIGURED, help="Use no configuration file."),
    ]


def _options() -> list[Callable[[Any], Any]]:
    return [
        option(
            "--target",
            "targets",
            multiple=True,
            metavar="SPEC",
            shell_complete=completes("complete_targets"),
            group=CHECKED,
            help="Such as 'peft>=0.6,<0.14' or 'peft==0.18.1,transformers==5.23'; repeatable.",
        ),
        option(
            "--base",
            type=click.Path(),
            metavar="DIR",
            group=CHECKED,
            help="The base model; found by itself where it is local.",
        ),
        option("--set", "one_set", is_flag=True, group=CHECKED, help="Treat all adapters found as one set."),
        option("--no-sets", is_flag=True, group=CHECKED, help="Look at every adapter on its own."),
        option("--no-payload", is_flag=True, group=CHECKED, help="Read headers only, no tensor data."),
        option("--full-payload", is_flag=True, group=CHECKED, help="Search all tensor data for NaN, however large."),
        option(
            "--select",
            multiple=True,
            metavar="RULES",
            shell_complete=completes("complete_rules"),
            group=REPORTED,
            help="Report only these rules.",
        ),
        option(
            "--extend-select",
            multiple=True,
            metavar="RULES",
            shell_complete=completes("complete_rules"),
            group=REPORTED,
            help="Report these rules as well.",
        ),
        option(
            "--ignore",
            multiple=True,
            metavar="RULES",
            shell_complete=completes("complete_rules"),
            group=REPORTED,
            help="Do not report these rules.",
        ),
        option(
            "--operation",
            "operations",
            multiple=True,
            type=click.Choice([*OPERATIONS, "all"]),
            metavar="NAME",
            group=REPORTED,
            help=f"Also report what breaks in: {', '.join(OPERATIONS)}, all.",
        ),
        *_file_options(),
    ]


def to_settings(options: dict[str, Any]) -> Settings:
    """The settings that the configuration and parsed options describe."""
    if options["no_payload"] and options["full_payload"]:
        raise click.UsageError("--no-payload and --full-payload exclude each other")
    if options["one_set"] and options["no_sets"]:
        raise click.UsageError("--set and --no-sets exclude each other")
    if options["config"] and options["isolated"]:
        raise click.UsageError("--config and --isolated exclude each other")
    given = {
        "targets": options["targets"],
        "base": options["base"],
        "select": _split(options["select"]),
        "extend-select": _split(options["extend_select"]),
        "ignore": _split(options["ignore"]),
        "operations": options["operations"],
        "sets": "one" if options["one_set"] else "none" if options["no_sets"] else None,
        "payload": "none" if options["no_payload"] else "full" if options["full_payload"] else None,
        "baseline": options.get("baseline"),
        "fail-on": options.get("fail_on"),
    }
    given = {name: value for name, value in given.items() if value}
    settings = settings_of(options["paths"], given, options["config"], options["isolated"])
    for name in given.keys() & {"select", "extend-select", "ignore"}:
        problem = unknown_rule(given[name])
        if problem:
            raise click.BadParameter(problem, param_hint=f"--{name}")
    return settings


def to_request(options: dict[str, Any], settings: Settings | None = None) -> Request:
    """The request that settings, by default those of the configuration and parsed options, describe."""
    request = request_of(options["paths"], settings or to_settings(options))
    if options.get("quiet") or sys.stderr is None or not sys.stderr.isatty():
        return request
    from adapterlint.cli.progress import progress_bar  # where somebody would see it

    return request._replace(progress=progress_bar())


def _split(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(code.strip() for item in values for code in item.split(",") if code.strip())
