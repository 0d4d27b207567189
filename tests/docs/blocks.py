"""Reads the blocks of a Markdown page and runs them in a scratch directory, in a real shell and a real Python.

A ``console`` block with ``$ `` prompts shows commands and what they print. One without prompts is a list of commands, each
of which must run on its own, with or without findings. A ``python`` block is run; a ``text`` block right after it is what it
prints. ``...`` stands for anything. A block under ``<!-- not run: REASON -->`` is not run.
A block under ``<!-- file: NAME -->`` is what the file of that name holds from there on.
"""

from __future__ import annotations

import doctest
import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- (?:not run: *(?P<reason>[^>]*?)|file: *(?P<file>\S+)) *-->\n\n?)?^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
NEEDS_PEFT = re.compile(r"^\$? ?adapterlint verify |^(?:import|from) (?:peft|torch|transformers)\b", re.M)


class Block(NamedTuple):
    """A fenced block; ``reason`` says why it is not run, and ``file`` is the file that holds it."""

    language: str
    text: str
    line: int
    reason: str | None
    file: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        line = text[: match.start()].count("\n") + 1
        yield Block(match["language"], textwrap.dedent(match["text"]), line, match["reason"], match["file"])


def runnable(page: Path) -> list[Block]:
    return [
        block
        for block in blocks(page)
        if block.file or (block.language in ("console", "python") and block.reason is None)
    ]


def outputs(page: Path) -> dict[int, str]:
    """What the Python blocks print, by their lines: the text blocks that follow them."""
    found = list(blocks(page))
    return {
        one.line: two.text
        for one, two in itertools.pairwise(found)
        if one.language == "python" and two.language == "text"
    }


def session(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a block with prompts, with what each prints."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, output = part.partition("\n")
        yield command, output.strip("\n")


def scratch(directory: Path) -> Path:
    """A copy of the example set and its base, also under the names that the pages use for a reader's own."""
    base, seed = ROOT / "fixtures" / "base" / "seed", ROOT / "fixtures" / "sets" / "seed"
    for copy in ("fixtures/base/seed", "path/to/base"):
        shutil.copytree(base, directory / copy)
    for copy in ("fixtures/sets/seed", "path/to/adapters", "adapters"):
        shutil.copytree(seed, directory / copy)
    for name in "abcd":
        shutil.copytree(seed / name, directory / name)
    shutil.copytree(seed / "d", directory / "NEW")
    return directory


def shell(command: str, where: Path) -> tuple[int, str]:
    home = where / ".home"
    home.mkdir(exist_ok=True)
    inherited = {key: os.environ[key] for key in ("LANG", "TMPDIR") if key in os.environ}
    environment = {**inherited, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home),
                   "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command], cwd=where, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout.strip("\n")


def same(wanted: str, got: str) -> bool:
    return doctest.OutputChecker().check_output(wanted + "\n", got + "\n", doctest.ELLIPSIS)
