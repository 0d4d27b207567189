"""``adapterlint verify``."""

from __future__ import annotations

import json
import sys

import click

from adapterlint import assemble
from adapterlint.checking import load_base
from adapterlint.cli.output import EXIT_FINDINGS, EXIT_NOTHING, fail, guarded
from adapterlint.discover import discover
from adapterlint.recipes import recipe


@click.command("verify")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--base", required=True, metavar="DIR", help="The base model's directory.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--orders", default="all", show_default=True, metavar="all|N", help="Loading orders to try.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32", show_default=True)
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@guarded
def command(paths: tuple[str, ...], base: str, device: str, orders: str, dtype: str, format_: str) -> None:
    """Load the adapters in the installed PEFT, in every order, and compare their outputs.

    The adapters at and below PATHS are one set. Each output is held against a reference made without PEFT: the base
    with the adapter merged by hand. Exit codes: 0 all equal, 1 not, 2 cannot be done, 3 no adapters.
    """
    from adapterlint.verifying import MissingExtra, VerifyError, render_table, verify

    count = _orders(orders)
    model = load_base(base)
    adapters = [assemble.read_adapter(found, model) for found in discover(paths)]
    if not adapters:
        click.echo("nothing to verify: no adapter found", err=True)
        sys.exit(EXIT_NOTHING)
    recipes = [recipe(assemble.subject(adapter, model)) for adapter in adapters]
    try:
        report = verify(recipes, base, device=device, orders=count, dtype=dtype)  # type: ignore[arg-type]
    except (MissingExtra, VerifyError, ValueError) as error:
        raise fail(str(error)) from None
    click.echo(json.dumps(report.as_dict(), indent=2) if format_ == "json" else render_table(report))
    sys.exit(0 if report.ok else EXIT_FINDINGS)


def _orders(text: str) -> int | str:
    if text == "all":
        return text
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise click.BadParameter("--orders takes 'all' or a number from 1")
