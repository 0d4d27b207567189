"""``adapterlint matrix``, ``check --against`` and ``schema``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from adapterlint.cli import main
from adapterlint.model.target import bundled

ROOT = Path(__file__).parents[2]
SEED = ROOT / "fixtures" / "sets" / "seed"
BASE = ["--base", str(ROOT / "fixtures" / "base" / "seed")]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_matrix_table() -> None:
    result = run("matrix", str(SEED), *BASE, "--target", "peft>=0.6")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].split() == ["0.6-0.10", "0.11-0.17", "0.18-0.21"]
    assert lines[5].split() == ["a", "+", "b", "+", "c", "+", "d", "raises", "[1]", "wrong", "[2]", "loads"]
    assert lines[7].startswith("[1] AL501: raises in set_adapter, first for adapter a: ValueError: Adapter a not found")
    assert all(line.split()[-3:] == ["loads"] * 3 for line in lines[1:5])


def test_matrix_json_has_the_reason_in_each_cell() -> None:
    result = run("matrix", str(SEED), *BASE, "--target", "peft>=0.6", "--format", "json")
    data = json.loads(result.output)
    assert [row["kind"] for row in data["rows"]] == ["adapter"] * 4 + ["set"]
    cells = data["rows"][-1]["cells"]
    assert list(cells) == data["targets"]
    for cell in cells.values():
        assert bool(cell["reason"]) == (cell["outcome"] != "loads")
    assert cells["peft==0.10.0"]["exception"].startswith("ValueError: Adapter a not found in dict_keys(")


def test_matrix_of_what_loads() -> None:
    result = run("matrix", str(SEED / "a"), *BASE, "--target", "peft")
    assert result.exit_code == 0, result.output
    assert "loads" in result.output


def test_matrix_of_nothing(tmp_path: Path) -> None:
    assert run("matrix", str(tmp_path)).exit_code == 3


def against(new: str, *served: str, target: str = "peft>=0.6") -> Result:
    options = [option for name in served for option in ("--against", str(SEED / name))]
    return run("check", str(SEED / new), *options, *BASE, "--target", target, "--format", "json")


def test_a_new_adapter_that_fits() -> None:
    data = json.loads(against("b", "a").output)
    assert [finding for finding in data["findings"] if finding["severity"] != "note"] == []
    assert [adapter["name"] for adapter in data["adapters"]] == ["b"]
    assert {verdict["outcome"] for verdict in data["sets"][0]["verdicts"].values()} == {"loads"}


def test_a_new_adapter_that_does_not() -> None:
    result = against("c", "a", "b")
    data = json.loads(result.output)
    assert result.exit_code == 1
    assert [finding["rule"] for finding in data["findings"] if finding["severity"] != "note"] == ["AL501"]
    outcomes = {target: verdict["outcome"] for target, verdict in data["sets"][0]["verdicts"].items()}
    assert outcomes["peft==0.10.0"] == "raises"
    assert outcomes["peft==0.14.0"] == "wrong"
    assert outcomes["peft==0.21.2"] == "loads"


def test_what_the_served_ones_do_among_themselves_is_not_reported() -> None:
    """a and c differ already, on the very releases on which b, which is like a, would be reported."""
    data = json.loads(against("b", "a", "c").output)
    assert [finding for finding in data["findings"] if finding["severity"] == "error"] == []
    assert {verdict["outcome"] for verdict in data["sets"][0]["verdicts"].values()} == {"loads"}


def test_against_nothing(tmp_path: Path) -> None:
    result = run("check", str(SEED / "a"), "--against", str(tmp_path))
    assert result.exit_code == 2
    assert "no adapter here to check against" in result.output


def test_schema_list_has_every_release() -> None:
    result = run("schema", "list")
    assert [line.split()[0] for line in result.output.splitlines()] == [target.version for target in bundled()]
    assert result.output.splitlines()[0].startswith("0.3.0")


def test_schema_show_and_diff() -> None:
    schema = json.loads(run("schema", "show", "0.21.2", "LORA").output)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "+ LORA.use_dora" in run("schema", "diff", "0.8.2", "0.9.0").output.splitlines()


@pytest.mark.parametrize(
    "arguments", [["show", "9.9"], ["show", "0.21.2", "NOPE"], ["diff", "0.8.2", "9.9"], ["add", "/nowhere"]]
)
def test_schema_of_what_is_not_there(arguments: list[str]) -> None:
    result = run("schema", *arguments)
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert isinstance(result.exception, SystemExit)
