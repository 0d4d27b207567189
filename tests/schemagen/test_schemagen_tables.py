"""The history as tables, its inverse, and adding a release on top."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from schemagen_util import SCHEMAS, fields_json, lora, tree

from adapterlint.schemagen import browse
from adapterlint.schemagen.build import Built, add, build_all, extract_all, write
from adapterlint.schemagen.extract import extract
from adapterlint.schemagen.patches import Patches
from adapterlint.schemagen.schema import Definitions
from adapterlint.schemagen.tables import dump, history, release_key, sort_releases, tables

RELEASES = {
    "0.5.0": tree(lora("r: int = 8\nold: bool = False"), "0.5.0"),
    "0.13.0": tree(
        lora("r: int = 8\nbias: Literal['none', 'all'] = 'none'", "if self.r <= 0:\n    raise ValueError()"), "0.13.0"
    ),
    "0.14.0": tree(lora("new: Optional[dict] = None\nr: float = 8\nbias: Literal['none', 'all'] = 'none'"), "0.14.0"),
    "0.15.0": tree(lora("r: float = 8.0\nold: bool = False"), "0.15.0"),
}


def build(*releases: str) -> Built:
    return build_all({release: extract(RELEASES[release]) for release in releases}, Patches())


def test_stretches() -> None:
    table = json.loads(build(*RELEASES).files["peft/fields.json"])
    fields = table["types"]["LORA"]["fields"]
    assert table["releases"] == list(RELEASES)
    assert fields["r"] == [
        {"since": "0.5.0", "before": "0.14.0", "default": 8, "kind": ["int"]},
        {"since": "0.14.0", "before": "0.15.0", "default": 8, "kind": ["float"]},
        {"since": "0.15.0", "before": None, "default": 8.0, "kind": ["float"]},
    ]
    assert [(item["since"], item["before"]) for item in fields["old"]] == [("0.5.0", "0.13.0"), ("0.15.0", None)]
    assert [(item["since"], item["before"]) for item in fields["new"]] == [("0.14.0", "0.15.0")]


def test_the_bundled_history_survives_being_taken_apart() -> None:
    assert history(tables(fields_json())) == fields_json()
    assert dump(fields_json()) == dump(history(tables(fields_json())))


def test_order_of_releases() -> None:
    assert sort_releases(["0.9.0", "0.22.0", "0.10.0", "0.22.0.dev0", "0.22.0rc1", "0.3.0"])[:3] == [
        "0.3.0",
        "0.9.0",
        "0.10.0",
    ]
    assert sort_releases(["0.22.0", "0.22.0.dev0"]) == ["0.22.0.dev0", "0.22.0"]
    assert release_key("0.22.0.dev0") == (0, 22, 0)


def checkout(folder: Path, release: str) -> Path:
    for name, text in RELEASES[release].items():
        (folder / release / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / release / name).write_text(text, encoding="utf-8")
    return folder / release


def test_adding_the_newest_release_gives_what_building_all_gives(tmp_path: Path) -> None:
    schemas = tmp_path / "schemas"
    write(build("0.5.0", "0.13.0", "0.14.0"), schemas)
    (schemas / "patches").mkdir()
    built = add(checkout(tmp_path, "0.15.0"), schemas)
    changed = {path.name for path in write(built, schemas)}
    assert changed == {"0.15.0.json", "defs.json", "fields.json", "adapter_config.schema.json"}
    for name, text in build(*RELEASES).files.items():
        assert (schemas / name).read_text(encoding="utf-8") == text, name
    assert not write(add(checkout(tmp_path, "0.15.0"), schemas), schemas), "adding it again changes nothing"


def test_adding_an_older_release_leaves_the_umbrella_and_keeps_the_others(tmp_path: Path) -> None:
    schemas = tmp_path / "schemas"
    write(build("0.5.0", "0.14.0", "0.15.0"), schemas)
    before = browse.load_tables(schemas)
    built = add(checkout(tmp_path, "0.13.0"), schemas)
    assert "adapter_config.schema.json" not in built.files
    write(built, schemas)
    after = browse.load_tables(schemas)
    assert list(after) == list(RELEASES)
    assert all(after[release] == table for release, table in before.items())


def test_a_refusal_that_nothing_expresses_is_remarked_upon(tmp_path: Path) -> None:
    sources = tree(lora("r: int = 8\ns: int = 8", "if self.r > self.s:\n    raise ValueError()"))
    built = build_all({"0.99.0": extract(sources)}, Patches())
    assert any("no schema expresses yet: self.r > self.s" in remark for remark in built.remarks)
    known = Patches(inexpressible=(("self.r > self.s", "compares fields"),))
    assert not any("no schema" in remark for remark in build_all({"0.99.0": extract(sources)}, known).remarks)


def test_diff_names_what_changed() -> None:
    found = tables(json.loads(build(*RELEASES).files["peft/fields.json"]))
    assert [str(change) for change in browse.diff(found["0.14.0"], found["0.15.0"])] == [
        "~ LORA.r default: 8 -> 8.0",
        "- LORA.bias",
        "- LORA.new",
        "+ LORA.old",
    ]
    assert not browse.diff(found["0.14.0"], found["0.14.0"])


def test_diff_of_bundled_releases() -> None:
    found = tables(fields_json())
    changes = {str(change) for change in browse.diff(found["0.8.2"], found["0.9.0"])}
    assert changes == {"+ LORA.use_dora", "+ ADALORA.use_dora"}
    types = [change for change in browse.diff(found["0.18.1"], found["0.19.0"]) if not change.field]
    assert {str(change) for change in types} >= {"- BONE", "+ LILY"}


def test_definitions_are_shared_and_restored() -> None:
    definitions = Definitions()
    first = definitions.reference("r", {"type": "integer"})
    assert first == definitions.reference("r", {"type": "integer"}) == {"$ref": "#/$defs/r"}
    assert definitions.reference("r", {"type": "number"}) == {"$ref": "#/$defs/r.2"}
    assert definitions.reference("A@0.1.0", {}) == definitions.reference("A@0.2.0", {}) == {"$ref": "#/$defs/A@0.1.0"}
    restored = Definitions.restored(definitions.named)
    assert restored.reference("r", {"type": "number"}) == {"$ref": "#/$defs/r.2"}
    assert restored.reference("A@0.3.0", {}) == {"$ref": "#/$defs/A@0.1.0"}
    assert restored.reference("r", {"type": "string"}) == {"$ref": "#/$defs/r.3"}


def test_extract_all_reads_paths(tmp_path: Path) -> None:
    assert list(extract_all([checkout(tmp_path, "0.14.0")])) == ["0.14.0"]


def test_looking_at_schemas_needs_no_parser() -> None:
    code = (
        "import sys, adapterlint.schemagen.browse; print(sorted({'libcst', 'jsonschema', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_releases_and_types_say_what_there_is() -> None:
    with pytest.raises(browse.UnknownReleaseError, match=r"no schema for PEFT 9\.9; there are 0\.3\.0"):
        browse.show(SCHEMAS, "9.9")
    with pytest.raises(browse.UnknownReleaseError, match="has no peft_type OFT; it has ADALORA"):
        browse.show(SCHEMAS, "0.3.0", "OFT")
