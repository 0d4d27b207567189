"""The JSON schema of the configuration file, from the table of settings and the rules that there are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from adapterlint.config.keys import IGNORE_FIELDS, KEYS, Field, Key

ID = "https://adapterlint.readthedocs.io/schemas/config.json"
Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_RULE: Schema = {"$ref": "#/$defs/rule"}


def render(rules: Iterable[tuple[str, str]]) -> str:
    """The schema as the text of ``schemas/config.json``; rules are (code, name) pairs."""
    return json.dumps(schema(list(rules)), indent=1) + "\n"


def schema(rules: list[tuple[str, str]]) -> Schema:
    """The schema."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": ID,
        "title": "Configuration of adapterlint",
        "description": "Settings of adapterlint: adapterlint.toml, or the table [tool.adapterlint] of pyproject.toml.",
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: {"description": key.about, **_key(key)} for key in KEYS},
        "$defs": {"rule": _rule(rules), "ignore": _ignore()},
    }


def _rule(rules: list[tuple[str, str]]) -> Schema:
    """A selector: editors offer what the enum holds; the pattern admits prefixes and rules of plugins."""
    return {
        "description": "Code, beginning of a code, or name of a rule; ALL.",
        "anyOf": [
            {"enum": ["ALL", *(code for code, _ in rules), *(name for _, name in rules)]},
            {"type": "string", "pattern": r"^((?!AL\d{3})[A-Z]{1,8}\d{0,4}|[a-z0-9]+(-[a-z0-9]+)*)$"},
        ],
    }


def _key(key: Key) -> Schema:
    choice: Schema = {"enum": list(key.choices)}
    kinds: dict[str, Schema] = {
        "text": _TEXT,
        "path": _TEXT,
        "texts": _TEXTS,
        "codes": {"type": "array", "items": _RULE},
        "choice": choice,
        "choices": {"type": "array", "items": choice},
        "sets": {"anyOf": [choice, {"type": "array", "minItems": 1, "items": {**_TEXTS, "minItems": 1}}]},
        "path-ignores": {"type": "object", "additionalProperties": {"type": "array", "items": _RULE}},
        "ignores": {"type": "array", "items": {"$ref": "#/$defs/ignore"}},
    }
    found = kinds[key.kind]
    return {**found, "default": key.default} if isinstance(key.default, str) else found


def _ignore() -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["reason"],
        "anyOf": [{"required": [name]} for name in ("rule", "path", "pointer", "tensor")],
        "not": {"required": ["pointer", "tensor"]},
        "properties": {field.name: {"description": field.about, **_field(field)} for field in IGNORE_FIELDS},
    }


def _field(field: Field) -> Schema:
    if field.kind == "codes":
        return {"anyOf": [_RULE, {"type": "array", "items": _RULE}]}
    if field.kind == "texts":
        return {"anyOf": [_TEXT, _TEXTS]}
    if field.kind == "date":
        return {"type": "string", "format": "date"}
    return {**_TEXT, "pattern": r"^[/*]"} if field.name == "pointer" else _TEXT
