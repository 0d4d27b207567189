"""``adapterlint config``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from adapterlint.cli.grouped import CONFIGURED, OTHER, RUNNING, Command, choice, option
from adapterlint.cli.options import setting_options, to_settings
from adapterlint.cli.output import echo, guarded, use_color
from adapterlint.config.keys import EXTEND, FAIL_ON, KEYS, Key
from adapterlint.config.settings import Settings
from adapterlint.ignores import Ignore, Pattern
from adapterlint.reporters.text import paint, printable

EXAMPLES = [
    ("config adapters", "what holds for a check of adapters"),
    ("config --target 'peft>=0.13'", "the same options as check"),
    ("config --schema > config.json", "the JSON schema of the file, for editors"),
]


@click.command("config", cls=Command, examples=EXAMPLES)
@setting_options
@option("--baseline", metavar="FILE", group=CONFIGURED, help="As for check.")
@option("--fail-on", type=click.Choice(FAIL_ON), group=RUNNING, help="As for check.")
@choice("--format format_", ["text", "json"], OTHER, "How they are printed.")
@option("--schema", is_flag=True, help="Print the JSON schema of the configuration file instead.")
@guarded
def command(format_: str, schema: bool, **options: Any) -> None:
    """Every setting that holds for PATHS (by default the working directory), and where its value comes from.

    A value comes from the command line, else from the nearest adapterlint.toml or pyproject.toml (in its table
    [tool.adapterlint]), else from the file that this one extends, else it is the default.
    """
    if schema:
        from adapterlint.config.schema import render
        from adapterlint.rules.registry import all_rules

        click.echo(render((rule.code, rule.name) for rule in all_rules()), nl=False)
        return
    settings = to_settings({**options, "paths": options["paths"] or (".",)})
    if format_ == "json":
        click.echo(json.dumps(as_dict(settings), indent=2))
    else:
        echo("\n".join(lines(settings, use_color())))


def as_dict(settings: Settings) -> dict[str, Any]:
    """The settings as plain data."""
    values = {}
    for key in KEYS:
        if key.name != EXTEND:
            setting = settings.setting(key.name)
            values[key.name] = {"value": _value(key, setting.value), "origins": list(setting.origins)}
    return {"files": list(settings.files), "settings": values}


def lines(settings: Settings, color: bool) -> Iterator[str]:
    """The settings for a person: the files, then one line a setting."""
    if settings.files:
        first, *others = map(printable, settings.files)
        yield first + (f", which extends {', which extends '.join(others)}" if others else "")
    else:
        yield "no configuration file"
    yield ""
    for key in KEYS:
        if key.name == EXTEND:
            continue
        setting = settings.setting(key.name)
        text = json.dumps(_value(key, setting.value), ensure_ascii=False)
        origin = paint(f"# {', '.join(map(printable, setting.origins))}", "frame", color)
        yield f"{paint(key.name, 'strong', color)} = {printable(text)}  {origin}"


def _value(key: Key, value: Any) -> Any:
    """A value as JSON holds it, in the form that a file has."""
    if key.kind == "path-ignores":
        return {item.pattern.glob: list(item.rules) for item in value}
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Ignore):
        return _ignore(value)
    if isinstance(value, Pattern):
        return value.glob
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _ignore(item: Ignore) -> dict[str, Any]:
    fields = {
        "rule": list(item.rules),
        "path": [pattern.glob for pattern in item.paths],
        "pointer": item.key,
        "tensor": item.tensor,
        "until": item.until,
        "reason": item.reason,
    }
    return {name: value for name, value in fields.items() if value}
