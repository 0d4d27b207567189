"""Exit codes, and how reports and errors reach the terminal."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

import click

from adapterlint.errors import UserError
from adapterlint.reporters.text import printable

EXIT_FINDINGS = 1
EXIT_INTERNAL = 2
EXIT_NOTHING = 3

Command = TypeVar("Command", bound=Callable[..., Any])


def guarded(command: Command) -> Command:
    """Turn what a user can get wrong into one clear line and exit code 2."""

    @functools.wraps(command)
    def inner(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            raise fail(str(error)) from None

    return cast(Command, inner)


def fail(message: str) -> click.ClickException:
    """An error that ends the command with one line and exit code 2."""
    return CommandError(printable(message))


class CommandError(click.ClickException):
    """An error of the user's or the system's making: one line, exit code 2."""

    exit_code = EXIT_INTERNAL


def nothing_to_check() -> NoReturn:
    """End the command: there is no adapter."""
    click.echo("nothing to check: no adapter found", err=True)
    sys.exit(EXIT_NOTHING)


def use_color() -> bool:
    """Whether to colour the standard output stream: if it is a terminal, unless the environment says otherwise.

    In this order: NO_COLOR (https://no-color.org), FORCE_COLOR and CLICOLOR_FORCE (https://force-color.org,
    https://bixense.com/clicolors), CLICOLOR=0, TERM=dumb. A variable that is empty says nothing.
    """
    environment = os.environ
    if environment.get("NO_COLOR"):
        return False
    if any(environment.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    if environment.get("CLICOLOR") == "0" or environment.get("TERM") == "dumb":
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def echo(text: str) -> None:
    """Print a text; characters that the stream's encoding lacks stand as escapes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), color=use_color())
