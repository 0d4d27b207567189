"""What every PEFT release knows of a config: fields, defaults, kinds, names. Plain tables, no jsonschema.

Source: ``schemas/peft/fields.json``, extracted from PEFT's own sources by :mod:`adapterlint.schemagen`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from adapterlint.findings import version_key

STRICT_SINCE, STRICT_BEFORE = "0.6.0", "0.14.0"
"""Releases that raise TypeError for a key they do not know; older and newer ones ignore it."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A run of releases in which a field is the same.

    Attributes:
        since: first release.
        before: first release after the run; None: still so.
        default: the default value, ``{}`` and ``[]`` for factories.
        kind: alternatives that the value may have, in the table's notation.
    """

    since: str
    before: str | None
    default: Any
    kind: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ConfigType:
    """One peft_type: the releases that have it, its class, its fields."""

    name: str
    since: str
    before: str | None
    class_name: str
    fields: Mapping[str, tuple[Stretch, ...]]


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(files("adapterlint.schemas").joinpath("peft/fields.json").read_text("utf-8"))
    return tables


def known_types() -> tuple[str, ...]:
    """Every peft_type that some release has."""
    return tuple(_tables()["types"])


@lru_cache(maxsize=64)
def config_type(peft_type: str | None) -> ConfigType | None:
    """The table of one peft_type, or None if no release has it."""
    entry = _tables()["types"].get(peft_type)
    if entry is None or peft_type is None:
        return None
    fields = {name: tuple(_stretch(item) for item in stretches) for name, stretches in entry["fields"].items()}
    return ConfigType(peft_type, entry["since"], entry["before"], entry["class"][-1]["name"], fields)


def _stretch(item: dict[str, Any]) -> Stretch:
    default = item.get("default")
    if isinstance(default, dict) and "factory" in default:
        default = [] if default["factory"] == "list" else {}
    return Stretch(item["since"], item["before"], default, tuple(map(_frozen, item["kind"])))


def _frozen(kind: Any) -> Any:
    return kind if isinstance(kind, str) else tuple(sorted((key, _enum_key(value)) for key, value in kind.items()))


def _enum_key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def enum_members(name: str) -> dict[str, tuple[str, str | None]]:
    """Members of ``PeftType``, ``TaskType``, …: value -> (since, before)."""
    return {value: (item["since"], item["before"]) for value, item in _tables()["enums"].get(name, {}).items()}


def missing_ranges(stretches: tuple[Stretch, ...], kind: ConfigType) -> list[tuple[str, str | None]]:
    """Releases in which a config type exists but lacks a field, as (since, before) pairs."""
    gaps: list[tuple[str, str | None]] = []
    cursor = kind.since
    for stretch in stretches:
        if version_key(stretch.since) > version_key(cursor):
            gaps.append((cursor, stretch.since))
        if stretch.before is None:
            return gaps
        cursor = stretch.before
    gaps.append((cursor, kind.before))
    return gaps


def clip(span: tuple[str, str | None], since: str, before: str | None) -> tuple[str, str | None] | None:
    """The part of a release span between ``since`` and ``before``; None if there is none."""
    low = max(span[0], since, key=version_key)
    highs = [high for high in (span[1], before) if high is not None]
    high = min(highs, key=version_key) if highs else None
    return None if high is not None and version_key(low) >= version_key(high) else (low, high)


def span_text(span: tuple[str, str | None]) -> str:
    """A release span as a target range: ``peft>=0.6.0,<0.14.0``."""
    return f"peft>={span[0]}" + (f",<{span[1]}" if span[1] else "")


def fits(value: Any, kind: tuple[Any, ...]) -> bool:
    """Whether a config value has one of the kinds."""
    return any(_fits(value, item) for item in kind)


_SIMPLE = {
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "dict": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
}


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, tuple):
        name, content = kind[0]
        if name == "pattern":
            return isinstance(value, str) and re.fullmatch(content, value) is not None
        members = enum_members(content) if isinstance(content, str) else content
        return isinstance(value, (str, int, bool)) and value in members
    if kind in _SIMPLE:
        return bool(_SIMPLE[kind](value))
    outer, _, inner = kind.partition("[")
    kinds = tuple(inner[:-1].split("|"))
    if outer == "list":
        return isinstance(value, list) and all(fits(item, kinds) for item in value)
    if outer == "dict":
        return isinstance(value, dict) and all(fits(item, kinds) for item in value.values())
    return False
