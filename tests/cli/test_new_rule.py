"""The package that ``new-rule`` writes, under the pytest that runs this."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_util import run


def under_pytest(package: Path) -> tuple[int, str]:
    """Exit code and output of the package's own tests."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["dropout-left", "3-is-too-many"])
def test_what_is_written_passes_but_for_the_words(name: str, tmp_path: Path) -> None:
    package = tmp_path / "rules"
    assert run("new-rule", "ACME001", name, "--package", str(package)).exit_code == 0
    code, out = under_pytest(package)
    assert code == 1 and "1 failed, 3 passed" in out
    assert "ACME001: its docstring is not finished" in out
    module = package / "acme_rules.py"
    module.write_text(module.read_text().replace("TODO: ", ""))
    code, out = under_pytest(package)
    assert code == 0 and "4 passed" in out, out
    module.write_text(module.read_text().replace('config.get("lora_dropout")', 'config.get("r")'))
    code, out = under_pytest(package)
    assert code == 1 and "reports on the valid example 'no dropout'" in out


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme-rules" / "tests").mkdir(parents=True)
    mine = tmp_path / "acme-rules" / "tests" / "test_acme_rules.py"
    mine.write_text("mine")
    result = run("new-rule", "ACME001", "dropout-left")
    assert result.exit_code == 2 and "test_acme_rules.py exists; nothing was written" in result.stderr
    assert mine.read_text() == "mine" and not (tmp_path / "acme-rules" / "pyproject.toml").exists()
    (tmp_path / "file").touch()
    result = run("new-rule", "ACME001", "dropout-left", "--package", "file")
    assert result.exit_code == 2 and "file" in result.stderr and "cannot be written" in result.stderr


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("AL999", "mine", "codes that begin with AL are reserved"),
        ("acme1", "mine", "it needs a code such as ACME001"),
        ("ACME001", "My_Rule", "and a kebab-case name, not 'ACME001' and 'My_Rule'"),
        ("ACME001", "rank-mismatch", "there is a rule ACME001 or rank-mismatch already"),
        ("ACME001", "../up", "kebab-case"),
    ],
)
def test_codes_and_names(code: str, name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("new-rule", code, name)
    assert result.exit_code == 2 and message in result.stderr and list(tmp_path.iterdir()) == []
