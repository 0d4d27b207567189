"""The extraction of the installed PEFT against its dataclasses and what its constructors refuse."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from schemagen_util import SCHEMAS, fields_json, validator

from adapterlint.schemagen.build import add, table
from adapterlint.schemagen.conditions import Scope, UntranslatableError, refused_by
from adapterlint.schemagen.extract import Extraction, extract
from adapterlint.schemagen.sources import load

peft = pytest.importorskip("peft")
PACKAGE = Path(peft.__file__).parent.parent
pytestmark = pytest.mark.peft


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    return extract(load(PACKAGE).tree)


@pytest.fixture(scope="module")
def mapping() -> dict[str, type]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(getattr(key, "value", key)): owner for key, owner in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def run_time_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return {"factory": field.default_factory.__name__}  # type: ignore[attr-defined]
    return field.default.value if isinstance(field.default, enum.Enum) else field.default


def test_classes_fields_and_defaults_are_those_of_the_dataclasses(
    extraction: Extraction, mapping: dict[str, type]
) -> None:
    found = table(extraction)
    assert found.classes == {peft_type: owner.__name__ for peft_type, owner in mapping.items()}
    for peft_type, owner in mapping.items():
        fields = dataclasses.fields(owner)
        assert list(found.fields[peft_type]) == [field.name for field in fields], peft_type
        signature = set(inspect.signature(owner).parameters)
        for field in fields:
            entry = found.fields[peft_type][field.name]
            assert json.dumps(entry["default"]) == json.dumps(run_time_default(field)), (peft_type, field.name)
            assert entry.get("init", True) == (field.name in signature), (peft_type, field.name)


def test_enums(extraction: Extraction) -> None:
    from peft.utils import PeftType, TaskType

    for owner in (PeftType, TaskType):
        assert extraction.enums[owner.__name__] == tuple(member.value for member in owner)


def test_peft_types_are_what_the_constructors_set(extraction: Extraction, mapping: dict[str, type]) -> None:
    for peft_type in ("LORA", "LOHA", "IA3", "VERA", "PROMPT_TUNING"):
        assert (
            mapping[peft_type]().peft_type == extraction.classes[extraction.mapping[peft_type]].peft_type == peft_type
        )


def test_help_is_the_metadata(extraction: Extraction, mapping: dict[str, type]) -> None:
    read = written = 0
    for peft_type, owner in mapping.items():
        for field in dataclasses.fields(owner):
            given = field.metadata.get("help", "")
            text = " ".join((" ".join(given) if isinstance(given, tuple) else given).split())
            written += bool(text)
            read += bool(text) and extraction.classes[extraction.mapping[peft_type]].fields[field.name].help == text
    assert read >= 0.99 * written and written > 500


POOL: list[Any] = [None, True, 0, 1, -1, 2, 0.5, 1.5, "x", "none", [], ["q"], {}, {"a": 1}]
HEALTHY: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 100},
    "OFT": {"oft_block_size": 4, "r": 0},
    "BOFT": {"boft_block_size": 4},
}
# The condition is known not to be expressible (it compares fields), and is met by values of the pool.
COMPARED = ("r should be divisible by gralora_k",)


def guarded_configs(extraction: Extraction, peft_type: str) -> list[dict[str, Any]]:
    """Configs that vary the fields which a translatable refusal is about, two at most."""
    owner = extraction.classes[extraction.mapping[peft_type]]
    base = {"peft_type": peft_type, "target_modules": ["q"], **HEALTHY.get(peft_type, {})}
    base = {key: value for key, value in base.items() if key in owner.fields}
    found: dict[str, dict[str, Any]] = {}
    for guard in owner.guards:
        try:
            scope = Scope(
                {item.name: item.default for item in owner.fields.values()}, extraction.enums, dict(guard.names)
            )
            refused_by(guard.conditions, scope)
        except UntranslatableError:
            continue
        names = [name for name in dict.fromkeys(re.findall(r"self\.(\w+)", guard.text)) if name in owner.fields][:2]
        literals = re.findall(r'"(\w+)"', " ".join([guard.text, *(text for _, text in guard.names)]))
        for values in itertools.product([*POOL, *literals], repeat=len(names)):
            config = {**base, **dict(zip(names, values, strict=True))}
            found[json.dumps(config, sort_keys=True)] = config
    return list(found.values())


def refuses(owner: Any, config: dict[str, Any]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            owner(**owner.check_kwargs(**config))
    except (ValueError, TypeError, AttributeError) as error:
        return str(error)
    except ImportError:
        return "a package is missing"
    return ""


def test_a_config_is_valid_exactly_if_the_constructor_takes_it(
    extraction: Extraction, mapping: dict[str, type]
) -> None:
    release = peft.__version__
    if release not in fields_json()["releases"]:
        pytest.skip(f"PEFT {release} is not bundled")
    injected = {"LORA"}  # an empty target_modules is refused later, when the model is looked at
    agreed = refused = 0
    for peft_type in mapping:
        for config in guarded_configs(extraction, peft_type):
            types_fit = types_only(release, config)
            if not types_fit or (peft_type in injected and config.get("target_modules") == []):
                continue
            error = refuses(mapping[peft_type], config)
            if error == "a package is missing" or error.startswith(COMPARED):
                continue
            assert validator(release).is_valid(config) == (not error), (config, error)
            agreed += 1
            refused += bool(error)
    assert agreed > 800 and refused > 200


def types_only(release: str, config: dict[str, Any]) -> bool:
    """Whether every value has its type: refusals are only about such configs."""
    from adapterlint.model.schema import config_type, fits

    found = config_type(config["peft_type"])
    assert found is not None
    return all(fits(value, found.fields[key][-1].kind) for key, value in config.items() if key != "peft_type")


def test_the_bundled_files_of_the_installed_release_are_what_its_sources_give() -> None:
    if peft.__version__ not in fields_json()["releases"]:
        pytest.skip(f"PEFT {peft.__version__} is not bundled")
    built = add(PACKAGE, SCHEMAS)
    for name, text in built.files.items():
        assert (SCHEMAS / name).read_text(encoding="utf-8") == text, name
    assert not [remark for remark in built.remarks if "no schema expresses" in remark]
