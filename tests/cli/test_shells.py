"""Completion in the shells themselves."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

CASES = [
    ("adapterlint basel", "baseline"),
    ("adapterlint check --extend-sel", "--extend-select"),
    ("adapterlint rule rank-mism", "rank-mismatch"),
    ("adapterlint check --select AL5,rank-mism", "AL5,rank-mismatch"),
    ("adapterlint check -o sari", "sarif"),
    ("adapterlint check --format junt", ""),
    ("adapterlint check --format juni", "junit"),
    ("adapterlint check --target pef", "peft"),
    ("adapterlint check adapt", "adapters"),
    ("adapterlint check --base adapt", "adapters"),
]


def run(command: list[str], where: Path, text: str = "") -> str:
    found = shutil.which(command[0])
    if found is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command, cwd=where, env=environment(where), input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(where: Path) -> dict[str, str]:
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(where), "TERM": "dumb", "LANG": "C.UTF-8", "PS1": "> "}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "adapters").mkdir()
    return tmp_path


@pytest.mark.parametrize(("line", "wanted"), CASES)
def test_fish(line: str, wanted: str, home: Path) -> None:
    program = f'adapterlint completion fish | source; complete -C "{line}"'
    offered = [item.split("\t")[0].rstrip("/") for item in run(["fish", "-c", program], home).splitlines()]
    assert wanted in offered if wanted else offered == []


def typed(shell: list[str], setup: str, line: str, home: Path) -> str:
    """What a terminal shows after the line and a tab were typed."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(home)
        os.execvpe(shell[0], shell, environment(home))
    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        until(terminal, "ready")
        os.write(terminal, f"{line}\t".encode())
        time.sleep(0.2)
        os.write(terminal, b" \x01: '\x05'; echo do''ne\n")  # the line itself becomes an argument of `:`
        return until(terminal, "\ndone")
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
        os.close(terminal)


def until(terminal: int, text: str) -> str:
    seen = ""
    limit = time.monotonic() + 30
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, limit - time.monotonic()))
        assert ready, seen
        seen += os.read(terminal, 65536).decode("utf-8", "replace").replace("\r", "")
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|.\x08", "", seen)


@pytest.mark.parametrize(("line", "wanted"), [case for case in CASES if case[1]])
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_bash_and_zsh(shell: str, line: str, wanted: str, home: Path) -> None:
    setups = {
        "bash": (["bash", "--norc", "-i"], 'eval "$(adapterlint completion bash)"'),
        "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u; eval "$(adapterlint completion zsh)"'),
    }
    command, setup = setups[shell]
    shown = typed(command, setup, line, home)
    before = line.rpartition(" ")[0]
    assert re.search(rf"{re.escape(before)} {re.escape(wanted)}", shown), shown
