"""Bad input of every kind: each file of fixtures/hostile, in every command and format."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_util import HOSTILE, MEMORY, SEED_BASE, assert_clean, invoke, shell, time_limit
from safetensors import SafetensorError, safe_open

from adapterlint import assemble
from adapterlint.checking import load_base
from adapterlint.discover import Found
from adapterlint.recipes import recipe

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = ("--base", SEED_BASE)
DOCUMENTED = (0, 1, 2, 3)
# Git keeps no empty directory and these are none, so the table is the list.
_ROWS = [line.split("|")[1:4] for line in (HOSTILE / "README.md").read_text().splitlines() if line.startswith("| ")][2:]
CASES = {name.strip(): frozenset(re.findall(r"AL\d+", rules)) for name, _, rules in _ROWS}

each_case = pytest.mark.parametrize("case", CASES)


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def report_of(case: str, *options: object) -> dict[str, Any]:
    result = invoke("check", HOSTILE / case, *options, "--format", "json")
    assert result.exit_code in (0, 1), result.output
    assert result.stderr == ""
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def codes(report: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in report["findings"]}


def test_the_table_lists_what_is_there() -> None:
    assert sorted(CASES) == sorted(path.name for path in HOSTILE.iterdir() if path.is_dir())
    assert sum(path.stat().st_size for path in HOSTILE.rglob("*") if path.is_file()) < 200_000


@each_case
def test_check_reports_it(case: str) -> None:
    for options in ((), BASE, (*BASE, "--target", "peft>=0.4", "--operation", "all")):
        report = report_of(case, *options)
        assert "AL999" not in codes(report)
        assert len(report["adapters"]) == 1
        if options == BASE and CASES[case]:
            assert codes(report) & CASES[case], codes(report)


@each_case
@pytest.mark.parametrize("format_", ["full", "concise", "github"])
def test_other_formats_say_it_in_plain_text(case: str, format_: str) -> None:
    result = invoke("check", HOSTILE / case, *BASE, "--format", format_)
    errors = report_of(case, *BASE)["summary"]["errors"]
    assert result.exit_code == (1 if errors else 0)
    assert result.output.strip()
    assert_clean(result.output)
    if format_ == "github":
        commands = [line for line in result.output.splitlines() if line.lstrip().startswith("::")]
        assert all(
            re.match(r"::(error|warning|notice) file=[^ ]+title=AL\d{3} [a-z0-9-]+::", line) for line in commands
        )


@each_case
def test_fix_plans_or_refuses(case: str) -> None:
    before = files_of(HOSTILE / case)
    for options in ((), ("--unsafe-fixes",), ("--unsafe-fixes", "--verbose", "--format", "json")):
        result = invoke("fix", HOSTILE / case, *BASE, *options)
        assert result.exit_code in DOCUMENTED
        assert "internal error" not in result.output
        assert_clean(result.output)
    assert files_of(HOSTILE / case) == before


@each_case
def test_fix_in_place_leaves_all_or_mends(case: str, tmp_path: Path) -> None:
    shutil.copytree(HOSTILE / case, tmp_path / case)
    before = files_of(tmp_path / case)
    result = invoke("fix", tmp_path / case, *BASE, "--unsafe-fixes", "--inplace")
    assert result.exit_code in DOCUMENTED
    assert_clean(result.output)
    if result.exit_code == 2:
        assert files_of(tmp_path / case) == before
        assert len(result.stderr.splitlines()) <= 2, result.stderr
    assert not [path for path in tmp_path.rglob("*") if "adapterlint" in path.name]


@each_case
def test_show_shows_what_can_be_read(case: str) -> None:
    result = invoke("show", HOSTILE / case)
    assert result.exit_code in DOCUMENTED
    assert result.output.strip()
    assert_clean(result.output)


@each_case
def test_matrix_and_recipe_end(case: str) -> None:
    result = invoke("matrix", HOSTILE / case, *BASE, "--target", "peft>=0.4")
    assert result.exit_code in DOCUMENTED
    assert_clean(result.output)
    base = load_base(str(SEED_BASE))
    with time_limit():
        recipe(assemble.subject(assemble.read_adapter(Found(str(HOSTILE / case), True), base), base))


def _of(kind: str) -> list[str]:
    return [case for case in CASES if case.startswith(kind)]


@pytest.mark.parametrize("case", [*_of("weights-"), *_of("name-")])
def test_the_safetensors_library_agrees(case: str) -> None:
    path = HOSTILE / case / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
        refused = False
    except (SafetensorError, OSError, ValueError):
        refused = True
    assert bool(codes(report_of(case)) & {"AL004", "AL005"}) is refused


@pytest.mark.parametrize("case", _of("config-"))
def test_the_json_library_agrees(case: str) -> None:
    try:
        # as PEFT reads it: in text mode, on a system whose texts are UTF-8
        refused = not isinstance(json.loads((HOSTILE / case / CONFIG).read_bytes().decode("utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        refused = True
    assert bool(codes(report_of(case)) & {"AL001", "AL004", "AL101"}) is refused


# -- in a process of its own ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["json", "full", "concise", "github"])
def test_all_at_once_in_bounded_memory(format_: str) -> None:
    done = shell("check", HOSTILE, *BASE, "--no-sets", "--format", format_, limit=30)
    assert done.code == 1, done.stderr
    assert done.stderr == ""
    assert done.memory < MEMORY
    if format_ == "json":
        assert len(json.loads(done.stdout)["adapters"]) == len(CASES)
    else:
        assert_clean(done.stdout)


@pytest.mark.parametrize("command", ["check", "show", "fix"])
def test_a_terminal_that_knows_only_ascii(command: str) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    for case in ("config-right-to-left", "config-lone-surrogate", "bin-escape-names"):
        done = shell(command, HOSTILE / case, env=plain)
        assert done.code in DOCUMENTED
        assert_clean(done.stdout + done.stderr)
        assert (done.stdout + done.stderr).isascii()


def test_a_reader_that_goes_away() -> None:
    command = [sys.executable, "-m", "adapterlint", "check", str(HOSTILE), "--no-sets", "--format", "concise"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
        process.wait(timeout=60)
    assert "Traceback" not in said
    assert process.returncode in DOCUMENTED


def test_nothing_was_run(tmp_path: Path) -> None:
    """The commands in the pickles echo; a shell that shouts in place of sh must stay silent."""
    canary = tmp_path / "canary"
    (tmp_path / "echo").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (tmp_path / "echo").chmod(0o755)
    names = [HOSTILE / case for case in _of("bin-")]
    for command in (("check", "--no-sets"), ("fix", "--unsafe-fixes", "--no-sets"), ("show",)):
        done = shell(*command, *names, limit=30, env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
        assert "code was run" not in done.stdout + done.stderr
    assert not canary.exists()
