"""Config classes -> JSON Schema, draft 2020-12.

Each distinct field and class stands once in ``defs.json``; a release's file only says which class a peft_type selects.
A field is called by its name, and a class by its name and the release where it first looks so. References are relative,
so a folder of schemas can be moved.

One thing JSON Schema cannot say: ``8.0`` is an integer to it, while PEFT refuses it as a rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapterlint.schemagen.browse import DEFS_FILE
from adapterlint.schemagen.conditions import Scope, UntranslatableError, refused_by
from adapterlint.schemagen.extract import ConfigClass, Extraction, Field
from adapterlint.schemagen.guards import Guard
from adapterlint.schemagen.kinds import Kind, Kinds
from adapterlint.schemagen.patches import Patches
from adapterlint.schemagen.tables import release_key

DRAFT = "https://json-schema.org/draft/2020-12/schema"
STRICT_KEYS = ("0.6.0", "0.14.0")  # since, before: config.py hands every key to the constructor
GUARDS_COUNT = "0.6.0"  # before, values were set on a finished config, past all checks

Schema = dict[str, Any]

_TYPES = {
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "str": "string",
    "null": "null",
    "list": "array",
    "dict": "object",
    "object": "object",
}


def kinds_schema(kinds: Kinds, enums: Mapping[str, tuple[Any, ...]]) -> Schema:
    """The schema of a value that is one of ``kinds``. ``enums`` gives the members of enums known by name."""
    types: list[str] = []
    simple: Schema = {"type": types}
    alternatives: list[Schema] = []
    for kind in kinds:
        if kind.name == "any":
            return {}
        if kind.name in ("enum", "pattern"):
            alternatives.append(_choice(kind, enums))
        elif kind.items and (_TYPES[kind.name] in types):
            alternatives.append({"type": _TYPES[kind.name], **_inside(kind, enums)})
        elif _TYPES[kind.name] not in types:
            types.append(_TYPES[kind.name])
            simple.update(_inside(kind, enums))
    if len(types) == 1:
        simple["type"] = types[0]
    if not alternatives:
        return simple
    parts = [simple, *alternatives] if types else alternatives
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _choice(kind: Kind, enums: Mapping[str, tuple[Any, ...]]) -> Schema:
    if kind.name == "pattern":
        return {"type": "string", "pattern": kind.values[0]}
    return {"enum": list(kind.values or enums[kind.ref])}


def _inside(kind: Kind, enums: Mapping[str, tuple[Any, ...]]) -> Schema:
    if not kind.items:
        return {}
    return {"items" if kind.name == "list" else "additionalProperties": kinds_schema(kind.items, enums)}


def field_schema(item: Field, enums: Mapping[str, tuple[Any, ...]]) -> Schema:
    """The schema of a field's value, with its default."""
    schema = kinds_schema(item.kinds, enums)
    return schema if item.required else {**schema, "default": item.default}


def refusals(release: str, owner: ConfigClass, extraction: Extraction, patches: Patches) -> list[Schema]:
    """Schemas of what the class refuses although every field has its type: its own conditions, then the patches'."""
    found: list[Schema] = []
    if release_key(release) >= release_key(GUARDS_COUNT):
        for guard in owner.guards:
            refused = patches.instead(release, owner.peft_type, guard.text) or translated(guard, owner, extraction)
            if refused is None:
                continue
            found.append({"not": refused, "$comment": f"{guard.exception} if {guard.text}"})
    found += [{"not": schema} for schema in patches.refusals(release, owner.peft_type)]
    distinct = {json.dumps(schema["not"], sort_keys=True): schema for schema in reversed(found)}
    return list(reversed(distinct.values()))


def translated(guard: Guard, owner: ConfigClass, extraction: Extraction) -> Schema | None:
    """A schema that matches what a guard refuses; None where the condition needs more."""
    defaults = {item.name: item.default for item in owner.fields.values()}
    try:
        return refused_by(guard.conditions, Scope(defaults, extraction.enums, dict(guard.names)))
    except UntranslatableError:
        return None


def untranslated(owner: ConfigClass, extraction: Extraction, patches: Patches) -> list[str]:
    """Texts of the class's refusals that are neither translated nor known to be inexpressible."""
    known = dict(patches.inexpressible)
    unknown = [guard for guard in owner.guards if guard.text not in known]
    return [guard.text for guard in unknown if translated(guard, owner, extraction) is None]


def strict_keys(release: str) -> bool:
    """Whether a key that is no field raises ``TypeError`` in this release."""
    return release_key(STRICT_KEYS[0]) <= release_key(release) < release_key(STRICT_KEYS[1])


@dataclass(slots=True)
class Definitions:
    """``defs.json`` while it grows: every distinct schema once, under a readable name.

    Attributes:
        named: name -> schema.
    """

    named: dict[str, Schema] = field(default_factory=dict)
    _known: dict[str, str] = field(default_factory=dict)

    @classmethod
    def restored(cls, named: Mapping[str, Schema]) -> Definitions:
        """The definitions of an earlier build, to go on from."""
        return cls(dict(named), {_identity(name, schema): name for name, schema in named.items()})

    def reference(self, name: str, schema: Schema) -> Schema:
        """A reference to ``schema``, which gets ``name``, or ``name`` and a number, if it is new."""
        identity = _identity(name, schema)
        if identity not in self._known:
            found, number = name, 1
            while found in self.named:
                number += 1
                found = f"{name}.{number}" if "@" not in name else name.replace("@", f".{number}@")
            self.named[found] = schema
            self._known[identity] = found
        return {"$ref": f"#/$defs/{self._known[identity]}"}

    def document(self) -> Schema:
        """The file."""
        return {
            "$schema": DRAFT,
            "title": "Fields and config classes of PEFT, each as often as it changed",
            "$defs": dict(sorted(self.named.items(), key=lambda item: _definition_order(item[0]))),
        }


def _identity(name: str, schema: Schema) -> str:
    """What makes a definition the same: its name without number and release, and its content."""
    return f"{name.partition('@')[0].partition('.')[0]}\n{json.dumps(schema)}"


def _definition_order(name: str) -> tuple[bool, str, tuple[int, ...]]:
    base, _, release = name.partition("@")
    stem, _, number = base.partition(".")
    return bool(release), stem, (*release_key(release), int(number or 1))


def class_schema(
    release: str, owner: ConfigClass, extraction: Extraction, patches: Patches, definitions: Definitions
) -> Schema:
    """The schema of one config class, its fields by reference."""
    taken = ["peft_type", *patches.extra_keys(release, owner.peft_type)]  # the selection has looked at peft_type
    fields = [item for item in owner.fields.values() if item.name not in taken]
    properties: dict[str, Schema | bool] = {
        item.name: definitions.reference(item.name, field_schema(item, extraction.enums))
        for item in fields
        if item.init or not strict_keys(release)
    }
    properties.update(dict.fromkeys(taken, True))
    schema: Schema = {"properties": properties}
    required = [item.name for item in owner.fields.values() if item.required]
    if required:
        schema["required"] = required
    refused = refusals(release, owner, extraction, patches)
    if refused:
        schema["allOf"] = [definitions.reference("refused", item) for item in refused]
    if strict_keys(release):
        schema["additionalProperties"] = False
    return schema


def release_schema(release: str, extraction: Extraction, patches: Patches, definitions: Definitions) -> Schema:
    """``<release>.json``: the selection by peft_type. Classes and fields go into ``definitions``."""
    selections = []
    for peft_type, name in sorted(extraction.mapping.items()):
        owner = extraction.classes[name]
        schema = class_schema(release, owner, extraction, patches, definitions)
        target = definitions.reference(f"{name}@{release}", schema)
        selections.append(selection(peft_type, {"$ref": f"{DEFS_FILE}{target['$ref']}"}))
    return {
        "$schema": DRAFT,
        "title": f"adapter_config.json as PEFT {release} takes it",
        "type": "object",
        "required": ["peft_type"],
        "properties": {"peft_type": {"enum": sorted(extraction.mapping)}},
        "allOf": selections,
    }


def selection(peft_type: str, then: Schema) -> Schema:
    """``then`` for the configs of one peft_type."""
    chosen = {"properties": {"peft_type": {"const": peft_type}}, "required": ["peft_type"]}
    return {"if": chosen, "then": then}


def umbrella(release: str, extraction: Extraction, patches: Patches) -> Schema:
    """``adapter_config.schema.json`` for editors: one self-contained file, with PEFT's help texts as descriptions."""
    definitions = Definitions()
    for owner in extraction.classes.values():
        fields = [item for item in owner.fields.values() if item.name != "peft_type"]
        properties = {item.name: definitions.reference(item.name, _described(item, extraction)) for item in fields}
        definitions.named[owner.name] = {"type": "object", "properties": properties}
        refused = refusals(release, owner, extraction, patches) if owner.peft_type else []
        if refused:
            definitions.named[owner.name]["allOf"] = [{"not": schema["not"]} for schema in refused]
    types = sorted(extraction.mapping.items())
    return {
        "$schema": DRAFT,
        "title": "PEFT adapter config",
        "description": f"adapter_config.json of a PEFT adapter, as PEFT {release} takes it.",
        "type": "object",
        "required": ["peft_type"],
        "properties": {"peft_type": {"description": "The PEFT method.", "enum": [peft_type for peft_type, _ in types]}},
        "allOf": [selection(peft_type, {"$ref": f"#/$defs/{name}"}) for peft_type, name in types],
        "$defs": definitions.document()["$defs"],
    }


def _described(item: Field, extraction: Extraction) -> Schema:
    schema = field_schema(item, extraction.enums)
    nested = [kind.ref for kind in item.kinds if kind.name == "object"]
    if nested:
        others = tuple(kind for kind in item.kinds if kind.name not in ("object", "dict"))
        parts: list[Schema] = [{"$ref": f"#/$defs/{name}"} for name in nested]
        parts += [kinds_schema(others, extraction.enums)] if others else []
        schema = {"anyOf": parts, "default": item.default} if len(parts) > 1 else {**parts[0], "default": item.default}
    return {"description": item.help, **schema} if item.help else schema
