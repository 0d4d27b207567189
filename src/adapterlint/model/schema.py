"""What every PEFT release knows of a config: fields, defaults, kinds, names. Plain tables, no jsonschema.

Source: ``schemas/peft/fields.json``, extracted from PEFT's own sources by :mod:`adapterlint.schemagen`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from adapterlint.model.bundled import bundled_file
from adapterlint.releases import version_key

STRICT_SINCE, STRICT_BEFORE = "0.6.0", "0.14.0"
"""Releases that raise TypeError for a key they do not know; older and newer ones ignore it."""

RUNTIME_CONFIG, RUNTIME_SINCE = "runtime_config", "0.12.0"
"""A key that every release from here on takes out of the file, whatever the peft_type and the value."""

REMOVED_FIELDS: dict[str, dict[str, Any]] = {
    "LORA": {"enable_lora": None, "merge_weights": False},
    "ADALORA": {"enable_lora": None, "merge_weights": False},
    "PREFIX_TUNING": {"postprocess_past_key_value_function": None},
}
"""Fields that were gone before the oldest release in the tables, with their defaults, by peft_type."""

Span: TypeAlias = tuple[str, str | None]
"""Releases from the first one on and before the second; None: up to the newest."""


class Stretch(NamedTuple):
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


class ConfigType(NamedTuple):
    """One peft_type: the releases that have it, its class, its fields."""

    name: str
    since: str
    before: str | None
    class_name: str
    fields: Mapping[str, tuple[Stretch, ...]]

    def __hash__(self) -> int:
        return hash(self.name)


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    with open(bundled_file("peft/fields.json"), encoding="utf-8") as file:
        tables: dict[str, Any] = json.load(file)
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


def missing_ranges(stretches: tuple[Stretch, ...], kind: ConfigType) -> list[Span]:
    """Releases in which a config type exists but lacks a field, as (since, before) pairs."""
    gaps: list[Span] = []
    cursor = kind.since
    for stretch in stretches:
        if version_key(stretch.since) > version_key(cursor):
            gaps.append((cursor, stretch.since))
        if stretch.before is None:
            return gaps
        cursor = stretch.before
    gaps.append((cursor, kind.before))
    return gaps


def clip(span: Span, since: str, before: str | None) -> Span | None:
    """The part of a release span between ``since`` and ``before``; None if there is none."""
    low = max(span[0], since, key=version_key)
    highs = [high for high in (span[1], before) if high is not None]
    high = min(highs, key=version_key) if highs else None
    return None if high is not None and version_key(low) >= version_key(high) else (low, high)


def span_text(span: Span) -> str:
    """A release span as a target range: ``peft>=0.6.0,<0.14.0``."""
    return f"peft>={span[0]}" + (f",<{span[1]}" if span[1] else "")


@lru_cache(maxsize=4096)
def unknown_spans(kind: ConfigType, key: str) -> list[Span]:
    """Releases that have the config type but no such key; all of them for a key that no release has."""
    if key == RUNTIME_CONFIG:
        early = clip((kind.since, kind.before), kind.since, RUNTIME_SINCE)
        return [early] if early else []
    return missing_ranges(kind.fields[key], kind) if key in kind.fields else [(kind.since, kind.before)]


def ignoring_spans(kind: ConfigType, key: str) -> list[Span]:
    """Releases that drop the key without an exception, because they do not know it and are not strict."""
    found = []
    for span in unknown_spans(kind, key):
        parts = (clip(span, kind.since, STRICT_SINCE), clip(span, STRICT_BEFORE, None))
        found += [part for part in parts if part is not None]
    return found


class Refusal(NamedTuple):
    """Releases that refuse a config for a key they do not know.

    Attributes:
        since: first release.
        before: first release after the run.
        key: the key that the exception names, which is the first unknown one in the file's order.
        exception: the text of the exception.
    """

    since: str
    before: str
    key: str
    exception: str

    @property
    def targets(self) -> str:
        """The releases as a target range."""
        return span_text((self.since, self.before))


def refusals(peft_type: str | None, keys: Iterable[str]) -> tuple[Refusal, ...]:
    """Which strict releases refuse a config with these keys, and how; the oldest first.

    Args:
        peft_type: the config's type; a type that no release has gives nothing.
        keys: the keys of the config in the order of the file.
    """
    return _refusals(peft_type, tuple(keys))


@lru_cache(maxsize=256)
def _refusals(peft_type: str | None, keys: tuple[str, ...]) -> tuple[Refusal, ...]:
    kind = config_type(peft_type)
    era = clip((kind.since, kind.before), STRICT_SINCE, STRICT_BEFORE) if kind else None
    if kind is None or era is None or era[1] is None:
        return ()
    unknown = {}
    for key in keys:
        spans = [span for gap in unknown_spans(kind, key) if (span := clip(gap, *era))]
        if spans:
            unknown[key] = spans
    ends = {end for spans in unknown.values() for span in spans for end in span if end}
    bounds = sorted({era[0], era[1], *ends}, key=version_key)
    found: list[Refusal] = []
    for since, before in pairwise(bounds):
        first = next((key for key, spans in unknown.items() if any(_holds(span, since) for span in spans)), None)
        if first is None:
            continue
        if found and found[-1].key == first and found[-1].before == since:
            found[-1] = found[-1]._replace(before=before)
        else:
            # "self" is the one name that the constructor has but that no file may give.
            how = "multiple values for argument" if first == "self" else "an unexpected keyword argument"
            text = f"TypeError: {kind.class_name}.__init__() got {how} {first!r}"
            found.append(Refusal(since, before, first, text))
    return tuple(found)


def _holds(span: Span, version: str) -> bool:
    key = version_key(version)
    return version_key(span[0]) <= key and (span[1] is None or key < version_key(span[1]))


@lru_cache(maxsize=256)
def refused_keys(peft_type: str, keys: tuple[str, ...]) -> dict[str, list[Refusal]]:
    """Of a config with these keys, those that some strict release does not know, and its part of the refusals.

    Args:
        peft_type: a type that some release has.
        keys: the keys of the config in the order of the file.
    """
    kind = config_type(peft_type)
    found = {key: _refused_by(key, kind, refusals(peft_type, keys)) for key in keys} if kind else {}
    return {key: parts for key, parts in found.items() if parts}


@lru_cache(maxsize=256)
def unsettled_keys(peft_type: str, keys: tuple[str, ...]) -> list[str]:
    """Of a config's keys, the fields of its type that some release refuses or drops; arguments as above."""
    kind, refused = config_type(peft_type), refused_keys(peft_type, keys)
    return [key for key in keys if kind and key in kind.fields and (key in refused or ignoring_spans(kind, key))]


def _refused_by(key: str, kind: ConfigType, found: Iterable[Refusal]) -> list[Refusal]:
    spans = unknown_spans(kind, key)
    parts = [(refusal, clip(span, refusal.since, refusal.before)) for refusal in found for span in spans]
    return [refusal._replace(since=part[0], before=part[1]) for refusal, part in parts if part and part[1]]


def default_in(stretches: tuple[Stretch, ...], version: str | None) -> Any:
    """The default of a field in a release; in the newest release that has the field if None, or if it lacks it."""
    for stretch in stretches:
        if version is not None and _holds((stretch.since, stretch.before), version):
            return stretch.default
    return stretches[-1].default


def same_value(value: Any, default: Any) -> bool:
    """Whether PEFT treats a value as the default: equal, or both of them off (null, false, empty; 0 for a flag)."""
    if default is False and isinstance(value, (int, float)) and not value:
        return True
    return _is_off(default) if _is_off(value) else type(value) is type(default) and bool(value == default)


def _is_off(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)


def misfits(stretches: tuple[Stretch, ...], value: Any) -> list[Span]:
    """Releases that have the field but take no such value."""
    found: list[Span] = []
    for stretch in stretches:
        if fits(value, stretch.kind):
            continue
        if found and found[-1][1] == stretch.since:
            found[-1] = (found[-1][0], stretch.before)
        else:
            found.append((stretch.since, stretch.before))
    return found


def similar(word: str, words: Iterable[str]) -> str | None:
    """The known word that a misspelt one most likely stands for, or None."""
    from difflib import get_close_matches  # only for what is misspelt

    known = {item.lower().replace("-", "_"): item for item in words}
    close = get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.8)
    return known[close[0]] if close else None


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
