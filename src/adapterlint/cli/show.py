"""``adapterlint show``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from adapterlint import assemble
from adapterlint.cli.output import EXIT_NOTHING, echo, guarded, use_color
from adapterlint.discover import discover
from adapterlint.model.contents import Contents, contents
from adapterlint.reporters.text import clipped, paint, plural

_SHOWN = 24
_VALUE_LENGTH = 160


@click.command("show")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
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
        "settings": dict(item.settings),
        "peft": {"first": item.readers.first, "unknown_keys": list(item.readers.unknown)} if item.readers else None,
        "problems": list(item.problems),
        "other_files": dict(item.others),
    }


def lines(item: Contents, color: bool = False) -> Iterator[str]:
    """The contents for a person, a heading and one row a fact."""
    yield paint(clipped(item.path), "strong", color)
    for name, values in _rows(item):
        for number, value in enumerate(values):
            yield f"  {paint(f'{name if number == 0 else str():<9}', 'frame', color)} {value}"
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
        yield "unread", _cut([f"{clipped(name)}: {plural(n, 'tensor')}" for name, n in item.others.items()])
    if item.dtypes:
        sizes = [f"{volume.dtype} ({plural(volume.tensors, 'tensor')}, {_size(volume.nbytes)})" for volume in item.dtypes]
        yield "dtypes", [", ".join(_cut(sizes))]
    if item.groups:
        yield "modules", [f"{item.modules}: {', '.join(_cut([clipped(leaf, 60) for leaf in item.leaves]))}", *_groups(item)]
    if item.saved:
        yield "whole", [", ".join(_cut([f"{clipped(name)} ({plural(n, 'tensor')})" for name, n in item.saved.items()]))]
    if item.features:
        yield "features", [", ".join(_cut([clipped(name, 60) for name in item.features]))]
    if item.settings:
        yield "settings", _cut([f"{clipped(key, 60)} = {_value(value)}" for key, value in item.settings.items()])
    if item.readers:
        yield "peft", [_readers(item.readers.first, item.readers.unknown)]


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
        return f"no release knows {', '.join(_cut([clipped(key, 60) for key in unknown]))}"
    return "no release knows every key"


def _cut(items: list[str]) -> list[str]:
    return items if len(items) <= _SHOWN else [*items[:_SHOWN], f"and {len(items) - _SHOWN} more"]


def _value(value: Any) -> str:
    try:
        return clipped(json.dumps(value, ensure_ascii=False), _VALUE_LENGTH)
    except (RecursionError, ValueError):  # deeper than json writes, or an integer longer than Python prints
        return "(a value too large to show)"


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            break
    return f"{size:.1f} {unit}"
