"""``adapterlint show``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from adapterlint import assemble
from adapterlint.cli.grouped import OTHER, Command, choice
from adapterlint.cli.output import EXIT_NOTHING, echo, guarded, use_color
from adapterlint.discover import discover
from adapterlint.model.contents import Contents, contents
from adapterlint.reporters.text import clipped, paint, plural

_SHOWN = 24
_VALUE_LENGTH = 160
_NAME_LENGTH = 60


EXAMPLES = [("show adapters", "every adapter below"), ("show a --format json", "one, as data")]


@click.command("show", cls=Command, examples=EXAMPLES)
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@choice("--format format_", ["text", "json"], OTHER, "How it is printed.")
@guarded
def command(paths: tuple[str, ...], format_: str) -> None:
    """Print what the adapters at and below PATHS hold.

    Adapters that cannot be read are described as far as they can be. Exit codes: 0 shown, 2 usage, 3 nothing there.
    """
    found = [contents(assemble.read_adapter(item)) for item in discover(paths)]
    if format_ == "json":
        click.echo(json.dumps({"version": 1, "adapters": [as_dict(item) for item in found]}, indent=2))
    else:
        color = use_color()
        echo("\n\n".join("\n".join(lines(item, color)) for item in found) or "nothing to show: no adapter found")
    sys.exit(0 if found else EXIT_NOTHING)


def as_dict(item: Contents) -> dict[str, Any]:
    """The contents as plain data."""
    return {
        "path": item.path,
        "peft_type": item.peft_type,
        "task_type": item.task_type,
        "base": item.base,
        "weights_file": item.weights_file,
        "file_bytes": item.file_bytes,
        "payload_bytes": item.payload_bytes,
        "tensors": item.tensors,
        "dtypes": [volume._asdict() for volume in item.dtypes],
        "modules": item.modules,
        "leaves": list(item.leaves),
        "groups": [group._asdict() for group in item.groups],
        "saved": dict(item.saved),
        "features": list(item.features),
        "settings": {key: _plain(value) for key, value in item.settings.items()},
        "peft": {"first": item.readers.first, "unknown_keys": list(item.readers.unknown)} if item.readers else None,
        "problems": list(item.problems),
        "other_files": dict(item.others),
    }


def lines(item: Contents, color: bool = False) -> Iterator[str]:
    """The contents for a person, a heading and one row a fact."""
    yield paint(clipped(item.path), "strong", color)
    for name, values in _rows(item):
        for number, value in enumerate(values):
            head = name if number == 0 else ""
            yield f"  {paint(head.ljust(9), 'frame', color)} {value}"
    for problem in item.problems:
        yield f"  {paint('problem  ', 'warning', color)} {clipped(problem)}"


def _rows(item: Contents) -> Iterator[tuple[str, list[str]]]:
    task = f", task {clipped(item.task_type, _VALUE_LENGTH)}" if item.task_type else ""
    yield "method", [(clipped(item.peft_type, _VALUE_LENGTH) if item.peft_type else "not declared") + task]
    if item.base:
        yield "base", [clipped(item.base, _VALUE_LENGTH)]
    if item.weights_file:
        yield "weights", [_weights(item)]
    if item.others:
        yield "unread", _cut([_counted(name, count) for name, count in item.others.items()])
    if item.dtypes:
        yield "dtypes", [_listed(f"{_counted(dtype, count)}, {_size(size)}" for dtype, count, size in item.dtypes)]
    if item.groups:
        leaves = _listed(clipped(leaf, _NAME_LENGTH) for leaf in item.leaves)
        yield "modules", [f"{item.modules}: {leaves}", *_groups(item)]
    if item.saved:
        yield "whole", [_listed(_counted(name, count) for name, count in item.saved.items())]
    if item.features:
        yield "features", [_listed(item.features)]
    if item.settings:
        settings = [f"{clipped(key, _NAME_LENGTH)} = {_value(value)}" for key, value in item.settings.items()]
        yield "settings", _cut(settings)
    if item.readers:
        yield "peft", [_readers(item.readers.first, item.readers.unknown)]


def _counted(name: str, tensors: int) -> str:
    return f"{clipped(name, _VALUE_LENGTH)}: {plural(tensors, 'tensor')}"


def _listed(items: Iterable[str]) -> str:
    return ", ".join(_cut(list(items)))


def _weights(item: Contents) -> str:
    container = "safetensors" if str(item.weights_file).endswith(".safetensors") else "torch pickle"
    payload = f"{_size(item.payload_bytes)} of tensors" if item.tensors else "no tensors that can be read"
    return f"{item.weights_file} ({container}): {plural(item.tensors, 'tensor')}, {_size(item.file_bytes)}, {payload}"


def _groups(item: Contents) -> list[str]:
    rows = [(clipped(group.pattern, _VALUE_LENGTH), group) for group in item.groups]
    longest = max(len(pattern) for pattern, _ in rows[:_SHOWN])
    return _cut(
        [f"{pattern:<{longest}}  {_ranked(group.modules, group.rank, group.scale)}".rstrip() for pattern, group in rows]
    )


def _ranked(modules: int, rank: int | None, scale: float | None) -> str:
    parts = [plural(modules, "module")]
    parts += [f"rank {rank}"] if rank is not None else []
    parts += [f"scale {scale:g}"] if scale is not None else []
    return ", ".join(parts)


def _readers(first: str | None, unknown: tuple[str, ...]) -> str:
    if first is not None:
        return f"{first} is the first release that knows every key"
    if unknown:
        return f"no release knows {_listed(clipped(key, _NAME_LENGTH) for key in unknown)}"
    return "no release knows every key"


def _cut(items: list[str]) -> list[str]:
    return items if len(items) <= _SHOWN else [*items[:_SHOWN], f"and {len(items) - _SHOWN} more"]


def _value(value: Any) -> str:
    return clipped(json.dumps(_plain(value), ensure_ascii=False), _VALUE_LENGTH)


def _plain(value: Any) -> Any:
    """The value if JSON can hold it; else, for what is nested too deeply or not a number, a text that says so."""
    try:
        json.dumps(value, allow_nan=False)
    except (RecursionError, ValueError) as error:
        return f"({error})"
    return value


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    for unit, power in (("kB", 3), ("MB", 6)):
        if round(count / 10**power, 1) < 1000:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count / 10**9:.1f} GB"
