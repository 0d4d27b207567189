"""Help that can be taken in at a glance, and what is said where something was mistyped."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from cli_util import run

from adapterlint.cli.app import COMMANDS, EXAMPLES, main
from adapterlint.cli.grouped import OTHER
from adapterlint.rules.registry import all_rules

FIXTURES = Path(__file__).parents[2] / "fixtures"


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        yield name, command


def examples() -> list[str]:
    found = [line for line, _ in EXAMPLES]
    return found + [line for _, command in commands() for line, _ in getattr(command, "examples", ())]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits(name: str) -> None:
    lines = run(*name.split(), "--help").stdout.splitlines()
    assert len(lines) <= 75
    assert all(len(line) <= 80 for line in lines)
    assert any("Examples:" in line for line in lines) or name == "schema"


def test_every_command_has_a_section() -> None:
    lines = run("--help").stdout.splitlines()
    for name, about in COMMANDS.items():
        assert any(line.startswith(f"  {name} ") and about in line for line in lines)
    for title in ("Check:", "Repair:", "Look:", "Set up:", "Examples:"):
        assert title in lines
    modules = {path.stem for path in Path(str(main.get_command.__code__.co_filename)).parent.glob("*.py")}
    assert {name.replace("-", "_") for name in COMMANDS} <= modules


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_option_is_explained_under_a_heading(name: str, command: Any) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"
            if name not in ("show", "rule", "config", "schema"):
                assert getattr(parameter, "group", OTHER) != OTHER, f"{name} {parameter.name}"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The adapters, the base and the home directory that the examples speak of."""
    root = tmp_path
    seed = FIXTURES / "sets" / "seed"
    shutil.copytree(seed, root / "adapters")
    for name in "abc":
        shutil.copytree(seed / name, root / name)
    shutil.copytree(seed / "d", root / "new")
    shutil.copytree(FIXTURES / "base" / "seed", root / "model")
    (root / "home" / ".config" / "fish" / "completions").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "adapterlint-baseline.txt").touch()
    return root


@pytest.mark.parametrize("line", [line for line in examples() if not line.startswith("verify ")])
def test_examples_run(line: str, scratch: Path) -> None:
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"adapterlint {line}"],
        cwd=scratch,
        env={**os.environ, "PATH": path, "HOME": str(scratch / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout or ">" in line or done.stderr


def test_examples_of_verify_are_understood(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scratch)
    lines = [line for line in examples() if line.startswith("verify ")]
    command = dict(commands())["verify"]
    for line in lines:
        assert command.make_context("verify", line.split()[1:]).params["base"] == "model"
    assert lines


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("chek adapters", "there is no command 'chek'; did you mean check?"),
        ("ruel", "there is no command 'ruel'; did you mean rule?"),
        ("schema shw 0.6.0", "there is no command 'shw'; did you mean show?"),
        ("frobnicate", "there is no command 'frobnicate'"),
        ("rule rank-mismach", "'rank-mismach' names no rule; did you mean rank-mismatch?"),
        ("rule al2007", "'al2007' names no rule; did you mean AL207?"),
        ("check a --select rank-mismach", "'rank-mismach' names no rule; did you mean rank-mismatch?"),
        ("check a --ignore AL0207", "'AL0207' names no rule; did you mean AL207?"),
        ("check a --target pefft", "unknown target 'pefft': this release knows peft only"),
        ("check a --target pefft", "; did you mean peft?"),
        ("check a --target peft==0.16.1", "no bundled release matches 'peft==0.16.1', the nearest: 0.16.0 and 0.17"),
        ("check a --formt json", "No such option"),
        ("check a --format jsn", "'jsn' is not one of 'full'"),
        ("check a -o jsn", "there is no format 'jsn'; the formats are full"),
        ("check a --fail-on errors", "'errors' is not one of"),
    ],
)
def test_what_was_probably_meant(arguments: str, meant: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scratch)
    result = run(*arguments.split())
    assert result.exit_code == 2 and result.stdout == ""
    assert meant in re.sub(r"\s+", " ", result.stderr)


def test_every_rule_can_be_meant() -> None:
    for rule in all_rules():
        assert f"did you mean {rule.name}?" in run("rule", f"{rule.name}s").stderr
