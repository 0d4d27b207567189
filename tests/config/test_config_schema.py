"""``schemas/config.json``: generated, and as strict as the reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from config_util import shell

from adapterlint.cli import main
from adapterlint.config.keys import KEYS
from adapterlint.rules.registry import all_rules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "config.json"


@pytest.fixture(scope="module")
def schema() -> Any:
    return json.loads(SCHEMA.read_text())


def test_the_schema_is_what_is_generated(tmp_path: Path) -> None:
    done = shell("adapterlint config --schema", tmp_path)
    assert done.stdout == SCHEMA.read_text(), "adapterlint config --schema > schemas/config.json"


def test_the_schema_is_a_schema_of_every_key(schema: Any) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    assert list(schema["properties"]) == [key.name for key in KEYS]
    text = json.dumps(schema)
    assert all(f'"{rule.code}"' in text and f'"{rule.name}"' in text for rule in all_rules())


GOOD = [
    "",
    'extend = "../adapterlint.toml"\nselect = ["AL2", "rank-mismatch", "ALL"]\nextend-select = ["AL503"]',
    'ignore = ["AL207"]\nextend-ignore = []\n[per-path-ignores]\n"*" = ["AL5"]',
    '[[ignores]]\nrule = "AL207"\nreason = "so"\n[[ignores]]\nrule = ["AL2", "AL3"]\npath = ["a", "b"]\nreason = "so"',
    '[[ignores]]\npointer = "/r"\nuntil = 2027-01-31\nreason = "so"\n[[ignores]]\ntensor = "*"\nreason = "so"',
    'baseline = "b.txt"\ntargets = ["peft>=0.13"]\nbase = "m"\nsets = "one"\noperations = ["merge", "all"]',
    'targets = ["peft>=0.15,transformers==5.23"]',
    'payload = "full"\nfail-on = "never"\nplugins = []',
]
BAD = [
    "unknown = 1",
    'select = "AL207"',
    'ignore = ["AL777"]',
    "base = 1",
    'sets = "two"',
    "sets = [[]]",
    'operations = ["merging"]',
    'fail-on = "errors"',
    'payload = ["full"]',
    '[per-path-ignores]\n"*" = "AL5"',
    '[[ignores]]\nrule = "AL207"',
    '[[ignores]]\nreason = "so"',
    '[[ignores]]\npointer = "/r"\ntensor = "x"\nreason = "so"',
    '[[ignores]]\npointer = "r"\nreason = "so"',
    '[[ignores]]\nrule = "AL207"\nreason = "so"\nlines = 3',
    '[[ignores]]\nrule = "AL207"\nreason = ""',
]


@pytest.mark.parametrize("text", [*GOOD, *BAD])
def test_reader_and_schema_agree(text: str, schema: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("adapterlint.toml").touch()
    Path("below").mkdir()
    Path("below/adapterlint.toml").write_text(text)
    result = CliRunner().invoke(main, ["config", "below"])
    data = json.loads(json.dumps(tomllib.loads(text), default=str))
    assert (result.exit_code == 0) is (text in GOOD), result.output
    assert jsonschema.Draft7Validator(schema).is_valid(data) is (text in GOOD)
    if text in BAD:
        assert result.stderr.startswith("Error: below/adapterlint.toml:") and result.stderr.count("\n") == 1
