"""What ``check`` imports, as ``python -X importtime`` tells it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adapterlint.cli.reports import FORMATS
from adapterlint.rules.examples import Example, llama_base, llama_tensors, lora_config, write, write_base

HEAVY = {
    "importlib.metadata",
    "jsonschema",
    "libcst",
    "numpy",
    "packaging",
    "peft",
    "safetensors",
    "torch",
    "transformers",
}


# Modules that importlib.import_module fetches are not timed; those are found in sys.modules.
_RUN = """
import sys
from adapterlint.cli import main
try:
    main(sys.argv[1:])
finally:
    print("\\nimported:", *sys.modules, file=sys.stderr)
"""


def adapterlint(*arguments: str) -> set[str]:
    """Names of the modules that a command imports."""
    return imported("-c", _RUN, *arguments)


def imported(*arguments: str) -> set[str]:
    """Names of the modules that a Python process imports."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.split("\n")
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    return names.union(*(line.split()[1:] for line in lines if line.startswith("imported:")))


def heavy(names: set[str]) -> set[str]:
    """Those that the check path must do without."""
    return {name for name in names if any(name == each or name.startswith(f"{each}.") for each in HEAVY)}


def at_start() -> set[str]:
    """What an interpreter imports before it runs anything: ``.pth`` files of the environment may do that."""
    return heavy(imported("-c", ""))


def test_the_measure_measures() -> None:
    assert {"jsonschema", "importlib.metadata"} <= heavy(imported("-c", "import jsonschema, importlib.metadata"))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("target", ["peft", "peft>=0.6,<0.14"])
def test_check_imports_nothing_heavy(format_: str, target: str, tmp_path: Path) -> None:
    adapters = [
        write(Example("fine", lora_config(), llama_tensors()), tmp_path / "fine"),
        write(Example("rank", lora_config(r=8, no_such_key=1), llama_tensors(4)), tmp_path / "rank"),
        write(Example("broken", '{"r": ', files={"adapter_model.safetensors": b"?"}), tmp_path / "broken"),
    ]
    base = write_base(llama_base(), tmp_path / "base")
    arguments = ["--format", format_, "--target", target, "--base", str(base)]
    names = adapterlint("check", *map(str, adapters), *arguments)
    assert "adapterlint.run" in names and f"adapterlint.reporters.{format_}" in names
    assert heavy(names) <= at_start()
    assert not {name for name in names if name.startswith("adapterlint.fixing")}


def test_the_function_that_checks_imports_nothing_of_the_one_that_fixes(tmp_path: Path) -> None:
    fine = write(Example("fine", lora_config(), llama_tensors()), tmp_path / "fine")
    names = imported("-c", f"import adapterlint; adapterlint.check({str(fine)!r})")
    assert "adapterlint.run" in names and heavy(names) <= at_start()
    assert not {name for name in names if name.startswith("adapterlint.fixing")}


NEEDED_SOMETIMES = {
    "adapterlint.baseline",
    "adapterlint.cli.complete",
    "adapterlint.cli.progress",
    "adapterlint.cli.statistics",
    "adapterlint.cli.timing",
    "adapterlint.cli.watch",
    "adapterlint.config.errors",
    "adapterlint.config.files",
    "adapterlint.config.positions",
    "adapterlint.config.values",
    "adapterlint.ignores",
    "adapterlint.remains",
    "adapterlint.rules.plugins",
    "adapterlint.rules.internal",
    "adapterlint.testing",
    "difflib",
    "tomli",
    "tomllib",
}


def sometimes(directory: Path, *arguments: str) -> set[str]:
    """What of the modules that only some runs need a check from this directory imports."""
    names = imported("-c", f"import os; os.chdir({str(directory)!r}){_RUN}", "check", "adapter", *arguments)
    return {name for name in NEEDED_SOMETIMES if name in names}


def test_what_only_some_runs_need_is_not_imported_by_others(tmp_path: Path) -> None:
    write(Example("fine", lora_config(), llama_tensors()), tmp_path / "adapter")
    (tmp_path / ".git").mkdir()
    assert sometimes(tmp_path) == set()
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['adapterlint==0.1.0']\n")
    assert sometimes(tmp_path) == set()
    toml, reader = {"tomllib", "tomli"}, {f"adapterlint.config.{name}" for name in ("errors", "files", "values")}
    (tmp_path / "adapterlint.toml").write_text("fail-on = 'never'\n")
    assert sometimes(tmp_path) - toml - {"adapterlint.config.positions"} == {*reader, "adapterlint.ignores"}
    assert "adapterlint.cli.statistics" in sometimes(tmp_path, "--isolated", "--statistics")


@pytest.mark.parametrize("command", [("--help",), ("--version",), ("show",), ("rule", "AL207")])
def test_other_commands_import_nothing_heavy(command: tuple[str, ...], tmp_path: Path) -> None:
    if command == ("show",):
        command = ("show", str(write(Example("fine", lora_config(), llama_tensors()), tmp_path / "fine")))
    names = adapterlint(*command)
    assert heavy(names) <= at_start()
    assert ("adapterlint.run" in names) == (command[0] == "rule")


def test_only_the_reporter_asked_for_is_imported(tmp_path: Path) -> None:
    fine = write(Example("fine", lora_config(), llama_tensors()), tmp_path / "fine")
    names = adapterlint("check", str(fine), "--format", "json")
    assert "adapterlint.reporters.json" in names
    assert not names & {"adapterlint.reporters.full", "adapterlint.reporters.github"}


@pytest.mark.parametrize("format_", FORMATS)
def test_two_reports_import_two_reporters(format_: str, tmp_path: Path) -> None:
    fine = write(Example("fine", lora_config(), llama_tensors()), tmp_path / "fine")
    names = adapterlint("check", str(fine), "-o", f"{format_}={tmp_path / 'out'}", "--format", "json")
    chosen = {f"adapterlint.reporters.{name}" for name in (format_, "json")}
    parts = {f"adapterlint.reporters.{name}" for name in ("full", "matrix", "json")}  # that others are made of
    assert chosen <= names
    assert names & {f"adapterlint.reporters.{name}" for name in FORMATS} <= chosen | parts


def test_a_rename_imports_what_a_rename_needs(tmp_path: Path) -> None:
    """Neither the reader of torch files, nor forms and foreign formats, nor what only a displayed plan needs."""
    infixed = {name.replace(".weight", ".default.weight"): entry for name, entry in llama_tensors().items()}
    adapter = write(Example("infixed", lora_config(), infixed), tmp_path / "infixed")
    names = adapterlint("fix", "--inplace", str(adapter))
    assert "adapterlint.fixing.prove" in names
    assert heavy(names) <= at_start()
    spared = {"conversion", "meaning", "forms.lowrank", "forms.union", "forms.portable", "foreign.layers"}
    unneeded = {f"adapterlint.fixing.{name}" for name in spared} | {"adapterlint.reading.pickled", "difflib", "secrets"}
    assert not names & unneeded
    assert "concurrent.futures" not in names
