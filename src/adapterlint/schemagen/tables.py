"""The history of PEFT's configs as plain tables: ``schemas/peft/fields.json``, and its form release by release.

``fields.json`` is ``{"releases": [...], "enums": {...}, "types": {...}}``. A type and each of its fields is a list of
stretches of releases without a change; ``since`` is a stretch's first release and ``before`` the first one after it,
null while it lasts. No import beyond the standard library: listing and comparing releases needs no parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

FIELDS_FILE = "fields.json"


def release_key(release: str) -> tuple[int, ...]:
    """The numbers of a release: ``"0.22.0.dev0"`` -> ``(0, 22, 0)``."""
    numbers = re.match(r"\d+(?:\.\d+)*", release)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


def sort_releases(releases: Iterable[str]) -> list[str]:
    """Releases in order; one with a suffix, such as ``.dev0`` or ``rc1``, comes before the release without it."""

    def key(release: str) -> tuple[tuple[int, ...], bool, str]:
        return release_key(release), re.fullmatch(r"[\d.]+", release) is not None, release

    return sorted(releases, key=key)


@dataclass(slots=True)
class Table:
    """One release.

    Attributes:
        enums: enum class -> values of its members, as strings.
        classes: peft_type -> class name.
        fields: peft_type -> field -> ``{"default": ..., "kind": [...]}``, with ``required`` instead of ``default``
            where there is none, and ``init`` false where the constructor does not take it.
    """

    enums: dict[str, list[str]] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


def history(tables: Mapping[str, Table]) -> dict[str, Any]:
    """The history of several releases.

    Args:
        tables: release -> its table.
    """
    releases = sort_releases(tables)
    found = [tables[release] for release in releases]
    enums = _names(table.enums for table in found)
    types = sorted(_names(table.classes for table in found))
    return {
        "releases": releases,
        "enums": {name: _members([table.enums.get(name, []) for table in found], releases) for name in enums},
        "types": {name: _type(name, found, releases) for name in types},
    }


def tables(table: Mapping[str, Any]) -> dict[str, Table]:
    """The inverse of :func:`history`: release -> its table."""
    return {release: _table(table, release) for release in table["releases"]}


def _table(table: Mapping[str, Any], release: str) -> Table:
    releases = table["releases"]
    found = Table()
    for name, members in table["enums"].items():
        present = [member for member, span in members.items() if _covers(span, release, releases)]
        if present:
            found.enums[name] = present
    for name, value in table["types"].items():
        owner = _at(value["class"], release, releases)
        if owner is not None:
            found.classes[name] = owner["name"]
            entries = {field: _at(stretches, release, releases) for field, stretches in value["fields"].items()}
            found.fields[name] = {field: entry for field, entry in entries.items() if entry is not None}
    return found


def _at(stretches: Iterable[dict[str, Any]], release: str, releases: list[str]) -> dict[str, Any] | None:
    for stretch in stretches:
        if _covers(stretch, release, releases):
            return {key: value for key, value in stretch.items() if key not in ("since", "before")}
    return None


def _covers(span: Mapping[str, Any], release: str, releases: list[str]) -> bool:
    end = len(releases) if span["before"] is None else releases.index(span["before"])
    return releases.index(span["since"]) <= releases.index(release) < end


def _names(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _members(present: list[list[str]], releases: list[str]) -> dict[str, dict[str, Any]]:
    """For each member its span of releases. One that comes back would be spanned over the gap; none has so far."""
    spans = {}
    for member in _names(present):
        where = [index for index, members in enumerate(present) if member in members]
        spans[member] = _span(releases, where[0], where[-1] + 1)
    return spans


def _type(name: str, found: list[Table], releases: list[str]) -> dict[str, Any]:
    owners = [{"name": table.classes[name]} if name in table.classes else None for table in found]
    stretches = _stretches(releases, owners)
    fields = [table.fields.get(name, {}) for table in found]
    return {
        "since": stretches[0]["since"],
        "before": stretches[-1]["before"],
        "class": stretches,
        "fields": {field: _stretches(releases, [entries.get(field) for entries in fields]) for field in _names(fields)},
    }


def _stretches(releases: list[str], entries: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Runs of equal entries, each with the releases that bound it; None is absence."""
    found = []
    start = 0
    for index in range(1, len(entries) + 1):
        if index == len(entries) or not same(entries[index], entries[start]):
            entry = entries[start]
            if entry is not None:
                found.append({**_span(releases, start, index), **entry})
            start = index
    return found


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values that tells ``true`` from ``1`` and ``0.0`` from ``0``."""
    return json.dumps(left) == json.dumps(right)


def _span(releases: list[str], start: int, stop: int) -> dict[str, Any]:
    return {"since": releases[start], "before": releases[stop] if stop < len(releases) else None}


def dump(table: dict[str, Any]) -> str:
    """The text of ``fields.json``: compact, with one line an enum, type or field, so that its changes can be read."""
    lines = ["{", f'"releases":{_compact(table["releases"])},', '"enums":{']
    lines.append(",\n".join(f"{_compact(name)}:{_compact(value)}" for name, value in table["enums"].items()))
    lines += ["},", '"types":{']
    lines.append(",\n".join(_dump_type(name, value) for name, value in table["types"].items()))
    return "\n".join([*lines, "}", "}", ""])


def _dump_type(name: str, value: dict[str, Any]) -> str:
    head = _compact({key: item for key, item in value.items() if key != "fields"})
    fields = ",\n".join(f"{_compact(field)}:{_compact(item)}" for field, item in value["fields"].items())
    return f'{_compact(name)}:{head[:-1]},"fields":{{\n{fields}\n}}}}'


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
