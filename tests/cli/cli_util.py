"""Runs the command line in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from adapterlint.cli import main


def run(*arguments: str) -> Result:
    """The result of a command; anything but an exit is raised, so that no traceback passes."""
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result
