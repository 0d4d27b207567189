"""``adapterlint completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from adapterlint.cli.grouped import Command
from adapterlint.cli.output import fail, guarded

EXAMPLES = [
    ("completion bash >> ~/.bashrc", "for bash 4.4 or newer"),
    ("completion zsh >> ~/.zshrc", "for zsh"),
    ("completion fish > ~/.config/fish/completions/adapterlint.fish", "for fish"),
]


@click.command("completion", cls=Command, examples=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
@guarded
def command(ctx: click.Context, shell: str) -> None:
    """Print the code that makes a shell complete adapterlint: commands, options, rules and targets."""
    found = get_completion_class(shell)
    if found is None:
        raise fail(f"click knows no completion for {shell}")
    root = ctx.find_root()
    source = found(root.command, {}, "adapterlint", "_ADAPTERLINT_COMPLETE").source()
    # click's code for fish cuts an answer at every comma, and lists of rules have commas of their own.
    click.echo(source.replace('string split ","', 'string split --max 1 ","'))
