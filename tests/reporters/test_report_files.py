"""``-o FORMAT[=FILE]``: several reports of one run, their files, and what cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from adapterlint.cli import main
from adapterlint.cli.reports import FORMATS
from adapterlint.rules.examples import Example, llama_tensors, lora_config, write


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_WORKSPACE", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("b", "a"):
        write(Example("rank", lora_config(r=8), llama_tensors(4)), tmp_path / "adapters" / name)
    write(Example("fine", lora_config(), llama_tensors()), tmp_path / "fine")


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def timeless(text: str) -> str:
    import re

    text = re.sub(r'"seconds": [0-9.e-]+', '"seconds": 0', text)
    return re.sub(r'\b[0-9]+\.[0-9]+ s\b|time="[0-9.]+"', "TIME", text)


def test_all_formats_of_one_run() -> None:
    done = check("adapters", *(part for name in FORMATS for part in ("-o", f"{name}=out.{name}")), "-o", "concise")
    assert done.exit_code == 1, done.output
    assert "AL207" in done.output
    for name in FORMATS:
        text = Path(f"out.{name}").read_text()
        assert "AL207" in text, name
        assert timeless(check("adapters", "-o", name).output) == timeless(text), name
        assert timeless(check("adapters", "--format", name).output) == timeless(text), name
    assert sorted(os.listdir()) == sorted([*(f"out.{name}" for name in FORMATS), "adapters", "fine"])


def test_without_a_report_to_the_standard_output_nothing_is_printed() -> None:
    done = check("fine", "-o", "json=out.json")
    assert (done.exit_code, done.output) == (0, "")
    assert json.loads(Path("out.json").read_text())["summary"]["adapters"] == 1


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("path", "code"), [("adapters", 1), ("fine", 0)])
def test_exit_codes_do_not_depend_on_formats(format_: str, path: str, code: int) -> None:
    assert check(path, "-o", format_).exit_code == code
    assert check(path, "-o", f"{format_}=out").exit_code == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "full", "-o", "json"], "only one report can go to the standard output, not full and json; give"),
        (["--format", "full", "-o", "json"], "only one report can go to the standard output"),
        (["-o", "full", "-o", "json=-"], "only one report can go to the standard output"),
        (["-o", "json=x", "-o", "sarif=./x"], "two reports cannot go to one file"),
        (["-o", "yaml"], "there is no format 'yaml'; the formats are full, concise, json, jsonl, sarif,"),
        (["-o", "json="], "the name of the file is missing"),
        (["-o", "json=no/such/x"], "there is no directory"),
        (["-o", "json=fine"], "is a directory"),
    ],
)
def test_what_cannot_be_meant(arguments: list[str], message: str) -> None:
    done = check("fine", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split()), done.output
    assert sorted(os.listdir()) == ["adapters", "fine"]


def test_a_full_disk_is_one_line() -> None:
    done = check("fine", "-o", "json=/dev/full")
    assert done.exit_code == 2
    assert done.output == "Error: /dev/full: cannot write the report: No space left on device\n"


def test_a_file_that_cannot_be_replaced_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.json").write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    done = check("fine", "-o", "json=out.json")
    assert done.exit_code == 2
    assert done.output == "Error: out.json: cannot write the report: Permission denied\n"
    assert Path("out.json").read_text() == "old"
    assert sorted(os.listdir()) == ["adapters", "fine", "out.json"]


def test_links_and_modes_stay() -> None:
    Path("real.json").write_text("old")
    Path("real.json").chmod(0o640)
    Path("link.json").symlink_to("real.json")
    assert check("fine", "-o", "json=link.json").exit_code == 0
    assert Path("link.json").is_symlink()
    assert Path("real.json").stat().st_mode & 0o777 == 0o640
    assert json.loads(Path("real.json").read_text())["version"] == 1


def test_a_pipe_is_written_to() -> None:
    command = [sys.executable, "-m", "adapterlint", "check", "fine", "-o", "json=/dev/stdout"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["version"] == 1


@pytest.mark.parametrize("format_", FORMATS)
def test_the_order_of_a_directory_means_nothing(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the order of PATHS does."""
    plain, listdir, scandir = timeless(check("adapters", "-o", format_).output), os.listdir, os.scandir

    class Backwards:
        def __init__(self, path: str = ".") -> None:
            with scandir(path) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self._entries)

        def __next__(self) -> os.DirEntry[str]:
            if not self._entries:
                raise StopIteration
            return self._entries.pop(0)

        def __enter__(self) -> Backwards:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "listdir", lambda *path: sorted(listdir(*path), reverse=True))
    monkeypatch.setattr(os, "scandir", Backwards)
    assert timeless(check("adapters", "-o", format_).output) == plain
    monkeypatch.undo()
    one, other = ("adapters/a", "adapters/b"), ("adapters/b", "adapters/a")
    assert timeless(check(*one, "-o", format_).output) != timeless(check(*other, "-o", format_).output)


def test_the_rest_of_the_annotations_is_in_the_job_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(15):
        write(Example("rank", lora_config(r=8), llama_tensors(4)), Path(f"many/m{number:02}"))
    Path("summary").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary")
    done = check("many", "-o", "github", "--no-sets")
    assert done.output.count("::error ") == 10
    assert "left out: 5 more errors (GitHub shows 10 of a kind); the job summary has all" in done.output
    text = Path("summary").read_text()
    assert text.startswith("before\n## adapterlint\n")
    assert all(f"`many/m{number:02}/adapter_config.json:" in text for number in range(15))
    assert check("many", "-o", "full").exit_code == 1
    assert Path("summary").read_text() == text  # only the github format writes it


def test_the_job_summary_stays_below_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapterlint.cli.reports._SUMMARY_LIMIT", 6_000)
    for number in range(15):
        write(Example("rank", lora_config(r=8), llama_tensors(4)), Path(f"many/m{number:02}"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary")
    for _ in range(3):
        check("many", "-o", "github")
    text = Path("summary").read_text()
    assert len(text.encode()) <= 6_000
    assert "left out: findings." in text


def test_github_without_a_summary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "no/such/file")
    assert check("fine", "-o", "github").exit_code == 0
