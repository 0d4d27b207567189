"""The hooks, tried by pre-commit itself on a scratch repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = ROOT / "fixtures" / "sets" / "seed"
PRE_COMMIT = shutil.which("pre-commit", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


def git(*arguments: str, cwd: Path) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a repository of its own: its present files, committed."""
    directory = tmp_path_factory.mktemp("source")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    for name in files.stdout.decode().splitlines():
        if name.startswith(("src/", "schemas/")) or "/" not in name:
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    git("init", "-q", "-b", "main", cwd=directory)
    git("add", "-A", cwd=directory)
    git("commit", "-qm", "all", cwd=directory)
    return directory


def adapters(directory: Path, *names: str) -> Path:
    directory.mkdir()
    git("init", "-q", "-b", "main", cwd=directory)
    for name in names:
        shutil.copytree(SEED / name, directory / "adapters" / name)
    git("add", "-A", cwd=directory)
    return directory


def try_hook(source: Path, directory: Path, hook: str) -> tuple[int, str]:
    assert PRE_COMMIT is not None
    command = [PRE_COMMIT, "try-repo", str(source), hook, "--all-files", "--verbose"]
    environment = {**os.environ, "PRE_COMMIT_HOME": str(source.parent / "pre-commit-home")}
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, env=environment, check=False, timeout=500
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(PRE_COMMIT is None, reason="pre-commit is not installed")
def test_hooks(source: Path, tmp_path: Path) -> None:
    fine = adapters(tmp_path / "fine", "a", "b")
    status, text = try_hook(source, fine, "adapterlint")
    assert status == 0, text
    assert "No problems found in 2 adapters" in text

    broken = adapters(tmp_path / "broken", "a")
    weights = broken / "adapters" / "a" / "adapter_config.json"
    weights.write_text("\ufeff" + weights.read_text())
    git("add", "-A", cwd=broken)
    status, text = try_hook(source, broken, "adapterlint")
    assert status == 1, text
    assert "AL101" in text

    status, text = try_hook(source, broken, "adapterlint-fix")
    assert status == 1, text
    assert "files were modified by this hook" in text
    assert not weights.read_text().startswith("\ufeff")
    status, text = try_hook(source, broken, "adapterlint-fix")
    assert status == 0, text


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("adapter_config.json", True),
        ("adapters/a/adapter_model.safetensors", True),
        ("adapters/a/adapter_model.bin", True),
        ("adapters/a/adapter_model.safetensors.index.json", True),
        ("adapters/a/my_adapter_config.json", False),
        ("config.json", False),
        ("model.safetensors", False),
    ],
)
def test_file_pattern(path: str, wanted: bool) -> None:
    text = (ROOT / ".pre-commit-hooks.yaml").read_text()
    patterns = set(re.findall(r"^  files: (.*)$", text, re.MULTILINE))
    assert len(patterns) == 1
    assert bool(re.search(patterns.pop(), path)) == wanted


def test_files_of_one_adapter_are_one_adapter(tmp_path: Path) -> None:
    from adapterlint.discover import discover

    directory = adapters(tmp_path / "x", "a", "b") / "adapters"
    files = [str(path) for path in sorted(directory.rglob("adapter_*"))]
    assert len(files) == 4
    found = discover(files)
    assert [Path(item.path).name for item in found] == ["a", "b"]
    assert not any(item.explicit for item in found)
