"""Corrections by hand to what the sources say, read from ``schemas/patches/*.json``, each with its reason and evidence.

A patch file holds ``title``, ``reason``, ``evidence`` and any of these lists:

- ``kinds``: the types of fields. ``add``, ``remove``, ``drop_literals`` or ``kind`` (instead of all), in the compact
  form of ``fields.json``; ``where`` limits it to fields whose kinds are exactly these.
- ``refused``: a schema that matches configs which the release refuses.
- ``keys``: keys that are taken although they are no fields.
- ``guards``: a schema instead of the translation of one of the sources' own refusals, where code before it matters.
- ``inexpressible``: refusals in the sources that stay untranslated, with the reason.

``types`` (peft_types, or ``"*"``), ``fields`` (or ``"*"``), ``since`` and ``before`` say where it holds. An alias such
as LORAPLUS follows the type whose class it selects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapterlint.schemagen.extract import ConfigClass, Extraction, Field
from adapterlint.schemagen.kinds import NULL, Kind, Kinds, parse_plain
from adapterlint.schemagen.tables import release_key


@dataclass(frozen=True, slots=True)
class Patches:
    """All patches.

    Attributes:
        kinds, refused, keys, guards: entries as in the files.
        inexpressible: text of a guard -> why no schema can say it.
    """

    kinds: tuple[dict[str, Any], ...] = ()
    refused: tuple[dict[str, Any], ...] = ()
    keys: tuple[dict[str, Any], ...] = ()
    guards: tuple[dict[str, Any], ...] = ()
    inexpressible: tuple[tuple[str, str], ...] = ()

    def apply(self, release: str, extraction: Extraction) -> Extraction:
        """The extraction of a release with the kinds of its fields corrected."""
        classes = {
            name: replace(owner, fields={item.name: self.field(release, owner, item) for item in owner.fields.values()})
            for name, owner in extraction.classes.items()
        }
        return replace(extraction, classes=classes)

    def field(self, release: str, owner: ConfigClass, field: Field) -> Field:
        """A field with all its corrections, in the order of the files. Nested configs have no type."""
        kinds = field.kinds
        for entry in self.kinds:
            named = entry["fields"] == "*" or field.name in entry["fields"]
            excepted = f"{owner.peft_type}/{field.name}" in entry.get("except", ())
            if named and not excepted and holds(entry, release, owner.peft_type):
                kinds = _corrected(kinds, entry)
        return replace(field, kinds=kinds)

    def refusals(self, release: str, peft_type: str) -> list[dict[str, Any]]:
        """Schemas of configs that a release refuses, beyond what its config class says itself."""
        return [entry["schema"] for entry in self.refused if holds(entry, release, peft_type)]

    def instead(self, release: str, peft_type: str, guard: str) -> dict[str, Any] | None:
        """The schema that stands for a guard, if it is not to be translated."""
        found = (item for item in self.guards if item["guard"] == guard and holds(item, release, peft_type))
        return next((item["schema"] for item in found), None)

    def extra_keys(self, release: str, peft_type: str) -> list[str]:
        """Keys that are no fields and yet no error."""
        return [entry["key"] for entry in self.keys if holds(entry, release, peft_type)]


def load_patches(folder: Path) -> Patches:
    """Read every ``*.json`` of a folder, in the order of their names."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]

    def joined(key: str) -> tuple[dict[str, Any], ...]:
        return tuple(entry for file in files for entry in file.get(key, ()))

    inexpressible = (item for file in files for item in file.get("inexpressible", {}).items())
    return Patches(joined("kinds"), joined("refused"), joined("keys"), joined("guards"), tuple(inexpressible))


def holds(entry: dict[str, Any], release: str, peft_type: str) -> bool:
    """Whether an entry is about this release and type."""
    key = release_key(release)
    late_enough = "since" not in entry or key >= release_key(entry["since"])
    early_enough = "before" not in entry or key < release_key(entry["before"])
    return late_enough and early_enough and (entry["types"] == "*" or peft_type in entry["types"])


def _corrected(kinds: Kinds, entry: dict[str, Any]) -> Kinds:
    plain = [kind.plain() for kind in kinds]
    if "where" in entry and plain != entry["where"]:
        return kinds
    if "kind" in entry:
        return _each_once(parse_plain(item) for item in entry["kind"])
    kept = [_without_literals(kind, entry.get("drop_literals", ())) for kind in kinds]
    kept = [kind for kind in kept if kind.plain() not in entry.get("remove", ())]
    return _each_once([*kept, *(parse_plain(item) for item in entry.get("add", ()))])


def _without_literals(kind: Kind, dropped: Iterable[str]) -> Kind:
    return replace(kind, values=tuple(value for value in kind.values if value not in dropped)) if kind.values else kind


def _each_once(kinds: Iterable[Kind]) -> Kinds:
    found = dict.fromkeys(kinds)
    return tuple(kind for kind in found if kind != NULL) + ((NULL,) if NULL in found else ())
