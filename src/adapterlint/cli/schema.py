"""``adapterlint schema``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from adapterlint.cli.grouped import Group
from adapterlint.cli.output import echo, fail
from adapterlint.model.bundled import bundled_file
from adapterlint.model.target import bundled


@click.group("schema", cls=Group)
def command() -> None:
    """The JSON schemas of PEFT's configs, release by release."""


def _folder() -> Path:
    return Path(bundled_file("peft")).parent


@command.command("list")
def list_() -> None:
    """Every bundled release, and how its behaviour is known."""
    for target in bundled():
        echo(f"{target.version:10} {target.evidence}")


@command.command("show")
@click.argument("release")
@click.argument("peft_type", required=False)
def show(release: str, peft_type: str | None) -> None:
    """The schema of RELEASE, or of one PEFT_TYPE in it."""
    from adapterlint.schemagen import browse

    try:
        schema = browse.show(_folder(), release, peft_type)
    except browse.UnknownReleaseError as error:
        raise fail(str(error)) from None
    echo(json.dumps(schema, indent=2))


@command.command("diff")
@click.argument("before")
@click.argument("after")
def diff(before: str, after: str) -> None:
    """What changed between the releases BEFORE and AFTER."""
    from adapterlint.schemagen import browse

    tables = browse.load_tables(_folder())
    for release in (before, after):
        if release not in tables:
            raise fail(f"there is no schema of PEFT {release}; bundled: {', '.join(tables)}")
    for change in browse.diff(tables[before], tables[after]):
        echo(str(change))


@command.command("add")
@click.argument("origin")
def add(origin: str) -> None:
    """Extract the schema of a release from ORIGIN: a wheel, an sdist, a checkout, or a version on PyPI."""
    try:
        from adapterlint.schemagen import build
    except ModuleNotFoundError as error:
        if error.name != "libcst":
            raise
        raise fail("this needs further libraries: pip install 'adapterlint[schemas]'") from None
    folder = _folder()
    if not os.access(folder, os.W_OK):
        raise fail(f"{folder}: not writable; install adapterlint from a checkout to add a release")
    try:
        built = build.add(origin, folder)
        written = build.write(built, folder)
    except (OSError, ValueError) as error:
        raise fail(str(error)) from None
    for remark in built.remarks:
        click.echo(remark, err=True)
    for path in written:
        echo(f"wrote {path}")
    if not written:
        echo("nothing to write: the release is bundled as it is")
