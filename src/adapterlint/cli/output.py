"""Exit codes, and how reports and errors reach the terminal."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from adapterlint.checking import BaseNotFoundError
from adapterlint.discover import NotFoundError
from adapterlint.model.target import TargetError
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
        except (NotFoundError, TargetError, BaseNotFoundError) as error:
            raise fail(str(error)) from None

    return cast(Command, inner)


def fail(message: str) -> click.ClickException:
    """An error that ends the command with one line and exit code 2."""
    return CommandError(printable(message))


class CommandError(click.ClickException):
    """An error of the user's or the system's making: one line, exit code 2."""

    exit_code = EXIT_INTERNAL


def use_color() -> bool:
    """Whether the standard output stream is a terminal whose user wants colours (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def echo(text: str) -> None:
    """Print a text; characters that the stream's encoding lacks stand as escapes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), color=use_color())
