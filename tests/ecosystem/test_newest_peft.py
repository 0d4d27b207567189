"""The script of the scheduled workflow, in a real shell; pip and the tool are stand-ins where PyPI would decide."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".github" / "schemas" / "newest.sh"


def stand_in(directory: Path, name: str, text: str) -> None:
    directory.mkdir(exist_ok=True)
    file = directory / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def run(tmp_path: Path, wheel: str, *, real_tool: bool) -> tuple[subprocess.CompletedProcess[str], str]:
    bin_directory = tmp_path / "bin"
    stand_in(bin_directory, "python", f'while [ "$1" != --dest ]; do shift; done; touch "$2/{wheel}"')
    if not real_tool:
        said = 'echo "$@" >> "$LOG"; if [ "$2" = list ]; then printf "0.4.0 measured\\n0.21.2     measured\\n"; fi'
        stand_in(bin_directory, "adapterlint", said)
    path = os.pathsep.join([str(bin_directory), str(Path(sys.executable).parent), os.environ["PATH"]])
    summary, log = tmp_path / "summary", tmp_path / "log"
    environment = {**os.environ, "PATH": path, "GITHUB_STEP_SUMMARY": str(summary), "LOG": str(log)}
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False, env=environment)
    return done, summary.read_text() + log.read_text() if summary.exists() else ""


@pytest.mark.parametrize("wheel", ["peft-0.21.2-py3-none-any.whl", "peft-0.4.0.tar.gz"])
def test_a_bundled_release(tmp_path: Path, wheel: str) -> None:
    done, written = run(tmp_path, wheel, real_tool=True)
    assert done.returncode == 0, done.stderr
    assert "is bundled" in done.stdout and written == ""


def test_a_newer_release(tmp_path: Path) -> None:
    done, written = run(tmp_path, "peft-0.22.0-py3-none-any.whl", real_tool=False)
    assert done.returncode == 1
    assert "::error" in done.stdout and "PyPI has PEFT 0.22.0" in done.stdout
    assert "What changed from PEFT 0.21.2 to 0.22.0" in written
    assert "schema diff 0.21.2 0.22.0" in written and "peft-0.22.0-py3-none-any.whl" in written
