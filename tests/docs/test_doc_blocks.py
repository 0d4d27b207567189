"""Every command and every piece of Python in README.md and docs/ does what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from blocks import NEEDS_PEFT, PAGES, ROOT, Block, blocks, outputs, runnable, same, scratch, session, shell

FRONT_DOOR = "pip install . && "


def _pages() -> list[object]:
    found = []
    for page in PAGES:
        todo = runnable(page)
        peft = any(NEEDS_PEFT.search(block.text) for block in todo)
        marks = [pytest.mark.peft] if peft else []
        if todo:
            found.append(pytest.param(page, marks=marks, id=str(page.relative_to(ROOT))))
    return found


@pytest.mark.parametrize("page", _pages())
def test_blocks_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    todo = runnable(page)
    if any(NEEDS_PEFT.search(block.text) for block in todo):
        for library in ("torch", "transformers", "peft"):
            pytest.importorskip(library)
    where = scratch(tmp_path / "session")
    printed = outputs(page)
    for number, block in enumerate(todo):
        if block.file:
            (where / block.file).write_text(block.text)
        elif block.language == "python":
            _python(block, where, printed.get(block.line))
        elif block.text.startswith("$ "):
            for command, wanted in session(block.text):
                _, got = shell(command, where)
                assert same(wanted, got), f"{page.name}:{block.line}: $ {command}\n{got}"
        else:
            _listed(page, block, tmp_path / str(number))


def _python(block: Block, where: Path, wanted: str | None) -> None:
    (where / "block.py").write_text(block.text)
    code, got = shell("python block.py 2>errors.txt", where)
    assert code == 0, (where / "errors.txt").read_text()
    assert wanted is None or same(wanted.strip("\n"), got), got


def _listed(page: Path, block: Block, parent: Path) -> None:
    """Commands without output: each must be understood, and find something to work on."""
    for number, command in enumerate(block.text.splitlines()):
        if command.strip() and not command.startswith("#"):
            code, got = shell(command, scratch(parent / str(number)))
            assert code in (0, 1), f"{page.name}:{block.line}: {command}\n{got}"
            assert "Traceback" not in got


def test_what_is_not_run_says_why() -> None:
    reasons = [block.reason for page in PAGES for block in blocks(page) if block.reason is not None]
    assert reasons
    assert all(len(reason) > 10 for reason in reasons)


def test_the_first_command_of_the_readme(tmp_path: Path) -> None:
    first = next(blocks(ROOT / "README.md")).text.strip()
    assert first.startswith(FRONT_DOOR)
    code, got = shell(first.removeprefix(FRONT_DOOR), scratch(tmp_path / "scratch"))
    assert code == 1, got
    assert "AL501" in got
    assert "loads as is on peft>=0.18" in got


@pytest.mark.parametrize(
    ("wanted", "got", "equal"),
    [("a ... c", "a b c", True), ("a", "b", False), ("a\n...", "a\nb", True), ("a", "a\nb", False)],
)
def test_outputs_are_compared(wanted: str, got: str, equal: bool) -> None:
    assert same(wanted, got) is equal
