"""The bundled schemas: well-formed, resolvable, right about healthy configs, and of one mind with the tables."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemagen_util import GENERATED, PEFT, SCHEMAS, SHARED, fields_json, validator

from adapterlint.model.schema import config_type, fits, known_types
from adapterlint.schemagen import browse
from adapterlint.schemagen.tables import Table, release_key, tables

RELEASES: list[str] = fields_json()["releases"]
TABLES = tables(fields_json())
STRICT = [release for release in RELEASES if (0, 6) <= release_key(release) < (0, 14)]
UMBRELLA = json.loads((SCHEMAS / "adapter_config.schema.json").read_text(encoding="utf-8"))

# The keys that PEFT of the time wrote for a plain LoRA, by the release that first wrote them.
PLAIN = {
    "0.3.0": {
        "base_model_name_or_path": "some/base",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 8,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    },
    "0.4.0": {"auto_mapping": None, "layers_pattern": None, "layers_to_transform": None, "revision": None},
    "0.6.0": {"alpha_pattern": {}, "rank_pattern": {"q_proj": 4}},
    "0.7.0": {"loftq_config": {}, "megatron_config": None, "megatron_core": "megatron.core"},
    "0.8.0": {"use_rslora": True},
    "0.9.0": {"use_dora": False},
    "0.10.0": {"layer_replication": None},
    "0.14.0": {"eva_config": None, "exclude_modules": None, "lora_bias": False},
    "0.18.0": {"peft_version": "0.18.2.dev0@UNKNOWN"},
}


def plain(release: str) -> dict[str, Any]:
    """A plain LoRA config as ``release`` writes it."""
    written: dict[str, Any] = {}
    for since, keys in PLAIN.items():
        if release_key(since) <= release_key(release):
            written |= keys
    return written


@pytest.mark.parametrize("path", sorted(PEFT.glob("*.json")), ids=lambda path: path.name)
def test_every_schema_is_draft_2020_12(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    if path.name not in ("fields.json", "index.json"):
        assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        Draft202012Validator.check_schema(document)


def test_there_is_a_schema_for_every_release_and_nothing_else() -> None:
    assert {path.stem for path in PEFT.glob("[0-9]*.json")} == set(RELEASES)
    assert all((PEFT / name).is_file() for name in GENERATED)


def test_the_folder_is_small() -> None:
    assert (PEFT / "fields.json").stat().st_size < 150_000
    assert sum(path.stat().st_size for path in PEFT.glob("*.json")) < 700_000


def test_every_definition_is_used_and_every_reference_resolves() -> None:
    named = json.loads((PEFT / "defs.json").read_text(encoding="utf-8"))["$defs"]
    used = {name for release in RELEASES for name in browse.show(SCHEMAS, release)["$defs"]}
    assert used == set(named)


@pytest.mark.parametrize("release", RELEASES)
def test_a_plain_lora_of_its_time_is_valid(release: str) -> None:
    assert not list(validator(release).iter_errors(plain(release)))


@pytest.mark.parametrize("writer", PLAIN)
@pytest.mark.parametrize("reader", RELEASES)
def test_newer_keys_are_errors_from_0_6_to_0_13_only(writer: str, reader: str) -> None:
    unknown = set(plain(writer)) - set(TABLES[reader].fields["LORA"])
    assert validator(reader).is_valid(plain(writer)) == (not unknown or reader not in STRICT)


@pytest.mark.parametrize("release", STRICT)
@pytest.mark.parametrize("peft_type", ["LORA", "IA3", "PROMPT_TUNING"])
def test_runtime_config_is_taken_out_from_0_12_on(release: str, peft_type: str) -> None:
    config = {"peft_type": peft_type, "runtime_config": "anything"}
    assert validator(release).is_valid(config) == (release_key(release) >= (0, 12))


def test_peft_type_decides() -> None:
    for release in RELEASES:
        check = validator(release)
        assert not check.is_valid({"r": 8}), "KeyError: 'peft_type'"
        assert not check.is_valid({"peft_type": "lora"})
        for peft_type in known_types():
            known = peft_type in TABLES[release].classes
            assert known or not check.is_valid({"peft_type": peft_type}), (release, peft_type)


# Defaults that PEFT itself refuses: what a file of this type must say, and since when.
NEEDS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "ADALORA": ((0, 15), {"total_step": 100}),
    "OFT": ((0, 14), {"oft_block_size": 32, "r": 0}),
    "CPT": ((0, 18), {"task_type": "CAUSAL_LM"}),
}


def written_defaults(release: str, peft_type: str, table: Table) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, entry in table.fields[peft_type].items():
        default = entry["default"]
        if isinstance(default, dict):
            default = {"list": []}.get(default["factory"], {})
        config[name] = default
    since, needed = NEEDS.get(peft_type, ((99,), {}))
    return {**config, **(needed if release_key(release) >= since else {}), "peft_type": peft_type}


@pytest.mark.parametrize("release", RELEASES)
def test_a_config_of_defaults_is_valid_for_every_type(release: str) -> None:
    refused = {
        peft_type: [error.message for error in validator(release).iter_errors(config)]
        for peft_type in TABLES[release].classes
        if not validator(release).is_valid(config := written_defaults(release, peft_type, TABLES[release]))
    }
    # These need a number of tokens, a size or a frequency that has no default.
    assert set(refused) <= {"BOFT", "CARTRIDGE", "CPT"}, refused


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 8, 0.5, "", "none", "all", "gaussian", "pissa_niter_4", "pissa_niter_x", "OLoRA"),
    *(
        "CAUSAL_LM",
        "foo",
        "lora_only",
        [],
        ["q"],
        [1],
        [[1, 2]],
        [["q"]],
        {},
        {"q": 1},
        {"q": 1.5},
        {"q": "x"},
        {"q": [1]},
    ),
]


def samples(release: str) -> Iterator[tuple[str, str, Any]]:
    generator = random.Random(release)
    for peft_type, fields in TABLES[release].fields.items():
        for name in fields:
            if name not in ("peft_type", "runtime_config"):  # looked at before the class, and taken out before it
                yield from ((peft_type, name, value) for value in generator.sample(VALUES, 9))


@pytest.mark.parametrize("release", ["0.3.0", "0.5.0", "0.8.2", "0.13.2", "0.14.0", "0.18.1", RELEASES[-1]])
def test_schemas_and_tables_agree_about_every_field(release: str) -> None:
    """``check`` reads the tables, editors the schemas. (8.0 is left out: JSON Schema takes it for an integer.)"""
    kinds: dict[tuple[str, str], Any] = {}
    checks: dict[tuple[str, str], Draft202012Validator] = {}
    for peft_type, name, value in samples(release):
        if (peft_type, name) not in kinds:
            kinds[peft_type, name] = kinds_at(release, peft_type, name)
            checks[peft_type, name] = field_check(release, peft_type, name)
        agreed = fits(value, kinds[peft_type, name]) == checks[peft_type, name].is_valid(value)
        assert agreed, (peft_type, name, value, kinds[peft_type, name])


def kinds_at(release: str, peft_type: str, name: str) -> tuple[Any, ...]:
    found = config_type(peft_type)
    assert found is not None
    for stretch in found.fields[name]:
        if stretch.before is None or release_key(release) < release_key(stretch.before):
            return enums_at(release, stretch.kind)
    raise AssertionError((release, peft_type, name))


def enums_at(release: str, kind: tuple[Any, ...]) -> tuple[Any, ...]:
    """``kind`` with the members that an enum has in this release."""
    named = [(("enum", tuple(TABLES[release].enums[item[0][1]])),) for item in kind if _is_named(item)]
    return (*(item for item in kind if not _is_named(item)), *named)


def _is_named(item: Any) -> bool:
    return isinstance(item, tuple) and isinstance(item[0][1], str) and item[0][0] == "enum"


SHOWN: dict[tuple[str, str], dict[str, Any]] = {}


def field_check(release: str, peft_type: str, name: str) -> Draft202012Validator:
    schema = SHOWN.setdefault((release, peft_type), browse.show(SCHEMAS, release, peft_type))
    owner = schema["$defs"][schema["allOf"][0]["$ref"].removeprefix("#/$defs/")]
    return Draft202012Validator({**owner["properties"][name], "$defs": schema["$defs"]})


@pytest.mark.parametrize("peft_type", [None, "LORA"])
def test_show_stands_alone(peft_type: str | None) -> None:
    check = Draft202012Validator(browse.show(SCHEMAS, "0.13.2", peft_type))
    assert check.is_valid(plain("0.13.2"))
    assert not check.is_valid({**plain("0.13.2"), "lora_bias": False})
    assert check.is_valid({"peft_type": "IA3"}) == (peft_type is None)


def test_the_umbrella_is_for_the_newest_release_and_explains_the_fields() -> None:
    check = Draft202012Validator(UMBRELLA)
    check.check_schema(UMBRELLA)
    newest = RELEASES[-1]
    assert UMBRELLA["properties"]["peft_type"]["enum"] == sorted(TABLES[newest].classes)
    assert check.is_valid(plain(newest)) and not check.is_valid({**plain(newest), "r": 0})
    described = [item for name, item in UMBRELLA["$defs"].items() if "properties" not in item]
    assert sum("description" in item for item in described) > 0.95 * len(described)
    assert not check.is_valid({**plain(newest), "eva_config": {"rho": "x"}}), "nested configs are known as well"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the measured cases are not here")
def test_no_config_that_loads_is_refused() -> None:
    cases = SHARED / "oracle" / "dev"
    truth = json.loads((cases / "truth.json").read_text(encoding="utf-8"))
    checked = caught = 0
    for case, results in truth.items():
        configs = [path.read_bytes() for path in (cases / "cases" / case).glob("*/adapter_config.json")]
        try:
            parsed = [json.loads(config.decode("utf-8")) for config in configs]
        except json.JSONDecodeError:
            continue
        for release, result in results.items():
            valid = all(validator(release).is_valid(config) for config in parsed)
            checked += 1
            caught += not valid
            assert valid or result["outcome"] != "loads", (case, release)
            unexpected = "unexpected keyword argument" in result.get("error", "") and "__init__" in result["error"]
            assert not (valid and unexpected), (case, release)
    assert checked > 3000 and caught > 400
