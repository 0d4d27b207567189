"""A second fix does nothing: over every example of every rule, and every fixture."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from adapterlint.cli import main
from adapterlint.findings import Fix, Safety, SetConfig
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule, SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, llama_tensors, lora_config, write, write_any
from adapterlint.rules.registry import all_rules
from adapterlint.rules.tensors import rank_mismatch

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
MODES = pytest.mark.parametrize("flags", [(), ("--unsafe-fixes",)], ids=["safe", "unsafe"])


def fix(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["fix", *map(str, arguments), "--target", "peft>=0.3", "--inplace"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert "internal error" not in result.output, result.output
    return result


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def settles(root: Path, *arguments: object) -> None:
    first = fix(*arguments)
    before = files_of(root)
    again = fix(*arguments)
    assert files_of(root) == before, first.output + again.output
    assert again.exit_code == first.exit_code, first.output + again.output
    assert "proved" not in again.output


@MODES
@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)
def test_examples(rule: Rule | SetRule, flags: tuple[str, ...], tmp_path: Path) -> None:
    for number, example in enumerate([*rule.valid(), *rule.invalid()]):
        root = tmp_path / str(number)
        paths, base = write_any(example, root)
        grouping = "--set" if isinstance(example, SetExample) else "--no-sets"
        settles(root, *paths, *(["--base", base] if base else []), grouping, *flags)


@MODES
@pytest.mark.parametrize("folder", ["ok", "hostile", "sets/seed"])
def test_fixtures(folder: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    copy = tmp_path / "all"
    shutil.copytree(FIXTURES / folder, copy, symlinks=True)
    if folder == "sets/seed":
        settles(copy, copy, "--base", FIXTURES / "base" / "seed", *flags)
        return
    for directory in sorted(path for path in copy.iterdir() if path.is_dir()):
        settles(directory, directory, "--base", FIXTURES / "base" / "seed", *flags)


def _next_rank(values: tuple[int, ...]) -> Callable[[Subject], Fix]:
    """A fix that sets another wrong rank, whatever it is."""

    def fix_of(subject: Subject) -> Fix:
        now = subject.adapter.get("r")
        other = values[(values.index(now) + 1) % len(values)]
        return Fix(f"Set r to {other}", Safety.SAFE, (SetConfig("/r", other),))

    return fix_of


@pytest.mark.parametrize("values", [(3, 5), tuple(range(20, 60))], ids=["back and forth", "for ever"])
def test_fixes_that_undo_one_another_are_an_internal_error(
    values: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example: AnyExample = Example("rank", lora_config(r=values[0]), llama_tensors(4))
    path = write(example, tmp_path / "adapter")
    before = files_of(path)
    monkeypatch.setattr(rank_mismatch, "rank_fix", _next_rank(values))
    result = CliRunner().invoke(main, ["fix", str(path), "--unsafe-fixes", "--inplace"])
    assert result.exit_code == 2
    assert "internal error" in result.output and "nothing was written" in result.output
    assert files_of(path) == before
