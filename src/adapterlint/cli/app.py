"""The ``adapterlint`` command group; each command is imported only when it is called."""

from __future__ import annotations

import importlib

import click

from adapterlint import __version__
from adapterlint.cli.grouped import Group, write_examples

SECTIONS = {
    "Check": {
        "check": "Say what PEFT will do with adapters and sets of adapters.",
        "matrix": "Adapters and sets against targets, with reasons.",
        "verify": "Load adapters into the installed PEFT and compare outputs.",
    },
    "Repair": {
        "fix": "Plan, and with --inplace or --output make, the repairs.",
    },
    "Look": {
        "show": "Print what an adapter holds.",
        "rule": "Explain a rule, or list them all.",
        "schema": "The JSON schemas by PEFT release, and adding a new one.",
    },
    "Set up": {
        "config": "Every setting, and where its value comes from.",
        "baseline": "Write down what is known: only new findings are reported.",
        "new-rule": "Write a package with a rule of your own, and its tests.",
        "completion": "Print the code that makes a shell complete adapterlint.",
    },
}
COMMANDS = {name: about for section in SECTIONS.values() for name, about in section.items()}
EXAMPLES = [
    ("check adapters", "every adapter below, for the newest PEFT"),
    ("check a b --base model", "two adapters, together on their base"),
    ("check adapters --target 'peft>=0.13'", "for every release from 0.13 on"),
    ("fix adapters --inplace", "repair what can be repaired safely"),
]


class LazyGroup(Group):
    """A group whose commands live in modules of their own name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"adapterlint.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(max(map(len, COMMANDS))), about) for name, about in commands.items()])
        super(click.Group, self).format_options(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, EXAMPLES)
        super().format_epilog(ctx, formatter)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="adapterlint")
def main() -> None:
    """Know what PEFT will do with an adapter before you load it.

    Exit codes: 0 clean, 1 findings, 2 usage or internal error, 3 nothing to check.
    """
