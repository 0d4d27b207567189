"""The ``adapterlint`` command group; each command is imported only when it is called."""

from __future__ import annotations

import importlib

import click

from adapterlint import __version__

COMMANDS = {
    "check": "Say what PEFT will do with adapters and sets of adapters.",
    "fix": "Plan, and with --inplace or --output make, the repairs.",
    "verify": "Load adapters into the installed PEFT and compare outputs.",
    "matrix": "Adapters and sets against targets, with reasons.",
    "show": "Print what an adapter holds.",
    "rule": "Explain a rule, or list them all.",
    "schema": "The JSON schemas by PEFT release, and adding a new one.",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"adapterlint.cli.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="adapterlint")
def main() -> None:
    """Know what PEFT will do with an adapter before you load it.

    Exit codes: 0 clean, 1 findings, 2 usage or internal error, 3 nothing to check.
    """
