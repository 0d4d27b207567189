"""Looking at the bundled schemas: which releases there are, one release's schema, and what changed between two."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapterlint.schemagen.tables import FIELDS_FILE, Table, same, tables

DEFS_FILE = "defs.json"
_REFERENCE = re.compile(r'"\$ref": "(?:defs\.json)?#/\$defs/([^"]+)"')


class UnknownReleaseError(ValueError):
    """There is no schema for this release, or it does not know this peft_type."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two releases.

    Attributes:
        what: ``added`` or ``removed`` (a type, or a field), ``class``, ``default`` or ``kind`` (changed).
        peft_type: the type concerned.
        field: the field concerned; empty for the type itself.
        before, after: the class, default or kinds on either side; None where there is none.
    """

    what: Literal["added", "removed", "class", "default", "kind"]
    peft_type: str
    field: str = ""
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        place = f"{self.peft_type}.{self.field}" if self.field else self.peft_type
        if self.what in ("added", "removed"):
            return f"{'+' if self.what == 'added' else '-'} {place}"
        return f"~ {place} {self.what}: {json.dumps(self.before)} -> {json.dumps(self.after)}"


def load_tables(folder: Path) -> dict[str, Table]:
    """Release -> its table, oldest first.

    Args:
        folder: the ``schemas`` folder.
    """
    return tables(json.loads((folder / "peft" / FIELDS_FILE).read_text(encoding="utf-8")))


def releases(folder: Path) -> list[str]:
    """The releases that have a schema, oldest first."""
    found: list[str] = json.loads((folder / "peft" / FIELDS_FILE).read_text(encoding="utf-8"))["releases"]
    return found


def show(folder: Path, release: str, peft_type: str | None = None) -> dict[str, Any]:
    """The schema of a release, or of one peft_type in it, with every definition it needs inside.

    Raises:
        UnknownReleaseError: no such release or type.
    """
    path = folder / "peft" / f"{release}.json"
    if not path.is_file() or release not in releases(folder):
        raise UnknownReleaseError(f"no schema for PEFT {release}; there are {', '.join(releases(folder))}")
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if peft_type is not None:
        schema = _narrowed(schema, release, peft_type)
    named = json.loads((folder / "peft" / DEFS_FILE).read_text(encoding="utf-8"))["$defs"]
    text = json.dumps(schema).replace(f'"{DEFS_FILE}#', '"#')
    return {**json.loads(text), "$defs": dict(sorted(_needed(text, named)))}


def _narrowed(schema: dict[str, Any], release: str, peft_type: str) -> dict[str, Any]:
    for item in schema["allOf"]:
        if item["if"]["properties"]["peft_type"]["const"] == peft_type:
            return {**schema, "properties": {"peft_type": {"const": peft_type}}, "allOf": [item["then"]]}
    known = ", ".join(schema["properties"]["peft_type"]["enum"])
    raise UnknownReleaseError(f"PEFT {release} has no peft_type {peft_type}; it has {known}")


def _needed(text: str, named: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    wanted, seen = _REFERENCE.findall(text), set()
    while wanted:
        name = wanted.pop()
        if name not in seen:
            seen.add(name)
            yield name, named[name]
            wanted += _REFERENCE.findall(json.dumps(named[name]))


def diff(before: Table, after: Table) -> list[Change]:
    """What changed from one release to another, type by type in alphabetical order."""
    found: list[Change] = []
    for peft_type in sorted({*before.classes, *after.classes}):
        left, right = before.classes.get(peft_type), after.classes.get(peft_type)
        if left is None or right is None:
            found.append(Change("added" if left is None else "removed", peft_type, "", left, right))
            continue
        if left != right:
            found.append(Change("class", peft_type, "", left, right))
        found += _field_changes(peft_type, before.fields[peft_type], after.fields[peft_type])
    return found


def _field_changes(
    peft_type: str, before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]
) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        left, right = before.get(name), after.get(name)
        if left is None or right is None:
            yield Change("added" if left is None else "removed", peft_type, name, left, right)
            continue
        if not same(left.get("default"), right.get("default")):
            yield Change("default", peft_type, name, left.get("default"), right.get("default"))
        if not same(left["kind"], right["kind"]):
            yield Change("kind", peft_type, name, left["kind"], right["kind"])
