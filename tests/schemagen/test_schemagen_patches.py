"""Every correction has a reason, and every correction corrects something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemagen_util import SCHEMAS, fields_json, lora, tree

from adapterlint.schemagen.extract import Extraction, extract
from adapterlint.schemagen.kinds import Kind, parse_plain
from adapterlint.schemagen.patches import Patches, holds, load_patches
from adapterlint.schemagen.schema import refusals
from adapterlint.schemagen.tables import release_key

FILES = sorted((SCHEMAS / "patches").glob("*.json"))
LISTS = {"kinds", "refused", "keys", "guards", "inexpressible"}
ENTRIES = {
    "kinds": {"types", "fields", "since", "before", "where", "except", "add", "remove", "drop_literals", "kind"},
    "refused": {"types", "since", "before", "schema"},
    "keys": {"types", "since", "before", "key"},
    "guards": {"types", "since", "before", "guard", "reason", "schema"},
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_patch_says_why_and_is_about_something_that_exists(path: Path) -> None:
    patch = json.loads(path.read_text(encoding="utf-8"))
    assert all(len(patch[key]) > 15 for key in ("title", "reason", "evidence"))
    assert set(patch) <= {"title", "reason", "evidence"} | LISTS and LISTS & set(patch)
    types = fields_json()["types"]
    for name, allowed in ENTRIES.items():
        for entry in patch.get(name, ()):
            assert set(entry) <= allowed
            named = types if entry["types"] == "*" else entry["types"]
            assert set(named) <= set(types)
            for field in () if entry.get("fields", "*") == "*" else entry["fields"]:
                assert any(field in types[peft_type]["fields"] for peft_type in named), (field, entry)
            if "schema" in entry:
                Draft202012Validator.check_schema(entry["schema"])
                assert all(
                    name in types[peft_type]["fields"] for peft_type in named for name in entry["schema"]["required"]
                )


@pytest.mark.parametrize(
    "plain",
    [
        "int",
        "list[str]",
        "list[list[int]]",
        "dict[int|float]",
        "any",
        {"enum": ["a", 1]},
        {"enum": "TaskType"},
        {"pattern": "^a$"},
    ],
)
def test_the_compact_form_of_kinds_can_be_read_back(plain: Any) -> None:
    assert parse_plain(plain).plain() == plain


def test_what_is_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="not a kind: 'integer'"):
        parse_plain("integer")


def patched(entry: dict[str, Any], fields: str = "x: int = 1\ny: bool = False", release: str = "0.10.0") -> Extraction:
    return Patches(kinds=(entry,)).apply(release, extract(tree(lora(fields))))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"types": "*", "fields": ["x"], "add": ["float"]}, ["int", "float"]),
        ({"types": "*", "fields": ["x"], "add": ["null", "float"]}, ["int", "float", "null"]),
        ({"types": "*", "fields": ["x"], "remove": ["int"], "add": ["str"]}, ["str"]),
        ({"types": "*", "fields": ["x"], "kind": [{"pattern": "^a$"}]}, [{"pattern": "^a$"}]),
        ({"types": ["LORA"], "fields": "*", "where": ["int"], "add": ["float"]}, ["int", "float"]),
        ({"types": ["LORA"], "fields": "*", "where": ["bool"], "add": ["float"]}, ["int"]),
        ({"types": ["OTHER"], "fields": "*", "add": ["float"]}, ["int"]),
        ({"types": "*", "fields": "*", "except": ["LORA/x"], "add": ["float"]}, ["int"]),
        ({"types": "*", "fields": ["x"], "since": "0.10.0", "add": ["float"]}, ["int", "float"]),
        ({"types": "*", "fields": ["x"], "before": "0.10.0", "add": ["float"]}, ["int"]),
        ({"types": "*", "fields": ["x"], "since": "0.9.0", "before": "0.10.1", "add": ["float"]}, ["int", "float"]),
    ],
)
def test_corrections(entry: dict[str, Any], expected: list[Any]) -> None:
    field = patched(entry).classes["LoraConfig"].fields["x"]
    assert [kind.plain() for kind in field.kinds] == expected


def test_literals_are_dropped_from_their_enum() -> None:
    entry = {"types": "*", "fields": ["x"], "drop_literals": ["b"]}
    field = patched(entry, "x: Literal['a', 'b', 'c'] = 'a'").classes["LoraConfig"].fields["x"]
    assert field.kinds == (Kind("enum", values=("a", "c")),)


def test_a_refusal_may_be_put_right() -> None:
    guarded = extract(
        tree(lora("x: int = 1", "self.peft_type = PeftType.LORA\nif self.x < 0:\n    raise ValueError()"))
    )
    owner = guarded.classes["LoraConfig"]
    plain = refusals("0.10.0", owner, guarded, Patches())
    assert plain == [
        {
            "not": {"properties": {"x": {"type": "number", "exclusiveMaximum": 0}}, "required": ["x"]},
            "$comment": "ValueError if self.x < 0",
        }
    ]
    instead = {"types": ["LORA"], "guard": "self.x < 0", "since": "0.10.0", "schema": {"required": ["x"]}}
    right = Patches(guards=(instead,))
    assert refusals("0.10.0", owner, guarded, right)[0]["not"] == {"required": ["x"]}
    assert refusals("0.9.0", owner, guarded, right) == plain
    assert refusals("0.5.0", owner, guarded, right) == [], "values were set past all checks"


def test_bundled_patches_hold_where_they_say() -> None:
    patches = load_patches(SCHEMAS / "patches")
    assert patches.extra_keys("0.11.1", "LORA") == [] and patches.extra_keys("0.12.0", "IA3") == ["runtime_config"]
    assert not holds({"types": ["LORA"], "since": "0.6.0"}, "0.5.0", "LORA")
    newest = max(fields_json()["releases"], key=release_key)
    for entry in patches.kinds:
        assert any(
            holds(entry, release, peft_type)
            for release in fields_json()["releases"]
            for peft_type in fields_json()["types"]
        ), (entry, newest)
