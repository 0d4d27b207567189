"""Git itself is the judge of which files a checkout keeps in LFS."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from adapterlint.reading.gitattributes import matches, tracked_by

PATTERNS = (
    "*.safetensors", "*", "*.bin", "/a/*.bin", "a/**", "**/a/*", "a/**/x.bin", "x.?in", "[xy].bin", "[!x].bin",
    '"x.bin"', "a/x.bin", "/x.bin", "b", "a/", "**", "adapter_model.*", "\\x.bin", "a/b/**", "*/x.bin", "x.*n",
    "[a", "**/x.bin", "[^x].bin", "[x-z].bin", "x**n", "***.bin",
)  # fmt: skip
ATTRIBUTES = (
    "filter=lfs diff=lfs merge=lfs -text",
    "-filter",
    "!filter",
    "filter=other",
    "text",
    "filter",
    "filter=lfs",
)
PATHS = ("x.bin", "a/x.bin", "a/b/x.bin", "b/a/y.bin", "a/adapter_model.safetensors", "y.safetensors")
FOLDERS = ("", "a", "a/b", "b", "b/a")


def _line(dice: random.Random) -> str:
    return dice.choice(("# note", "", f"{dice.choice(PATTERNS)} {dice.choice(ATTRIBUTES)}"))


@pytest.mark.skipif(shutil.which("git") is None, reason="git decides")
@pytest.mark.parametrize("seed", range(60))
def test_as_git(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(exist_ok=True)
        if dice.random() < 0.6:
            lines = "\n".join(_line(dice) for _ in range(4))
            (tmp_path / folder / ".gitattributes").write_text(lines + "\n")
    command = ["git", "-C", str(tmp_path), "check-attr", "filter", "--", *PATHS]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    for path, line in zip(PATHS, said, strict=True):
        place = tmp_path / path
        found = tracked_by(str(place.parent), place.name)
        assert (found is not None) == line.endswith(": lfs"), (line, found)


def test_outside_a_checkout(tmp_path: Path) -> None:
    (tmp_path / ".gitattributes").write_text("* filter=lfs\n")
    assert tracked_by(str(tmp_path), "x.bin") is None


def test_names_the_file_that_decides(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / ".gitattributes").write_text("*.bin filter=lfs\n")
    (tmp_path / "a" / ".gitattributes").write_text("*.pt filter=lfs\n")
    assert tracked_by(str(tmp_path / "a"), "x.bin") == str(tmp_path / ".gitattributes")
    assert tracked_by(str(tmp_path / "a"), "x.pt") == str(tmp_path / "a" / ".gitattributes")


def test_patterns_that_are_no_expressions() -> None:
    assert not matches("[z-a].bin", "x.bin")
    assert not matches("*" * 200 + "y", "x" * 200)
