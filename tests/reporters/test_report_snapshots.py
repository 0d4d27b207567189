"""Whole reports, held against the files in snapshots/. ``ADAPTERLINT_SNAPSHOTS=1 pytest`` writes them anew."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from reports_util import MACHINE_FORMATS, TEXT_FORMATS, report_of

from adapterlint.cli.reports import FORMATS
from adapterlint.report import Report
from adapterlint.rules.examples import (
    Example,
    bert_base,
    bert_config,
    bert_tensors,
    llama_base,
    llama_tensors,
    lora_config,
    renamed,
)
from adapterlint.suppress import Selection

SNAPSHOTS = Path(__file__).parent / "snapshots"
WRITE = bool(os.environ.get("ADAPTERLINT_SNAPSHOTS"))

HEAD = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}


def clean() -> Report:
    """Two sound adapters that are one set."""
    fine = Example("fine", lora_config(), llama_tensors())
    other = Example("of another rank", lora_config(r=2), llama_tensors(2))
    return report_of({"one": fine, "two": other}, llama_base())


def rank() -> Report:
    """A config against a tensor, no base, one release."""
    return report_of({"adapter": Example("rank", lora_config(r=8), llama_tensors(4))}, selection=only("AL207"))


def heads(*operations: str) -> Report:
    """A set whose members save different modules, on many releases."""
    members = {
        "cola": Example("head", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **HEAD}),
        "sst2": Example("none", bert_config(), bert_tensors()),
    }
    selection = only("AL501", "AL507")
    return report_of(members, bert_base(), ["peft>=0.6"], operations=frozenset(operations), selection=selection)


def merging() -> Report:
    """The same, with an operation asked for."""
    return heads("merge")


def prefixes() -> Report:
    """A safe fix, a finding on a tensor, and a base."""
    bare = renamed(llama_tensors(), lambda name: name.removeprefix("base_model.model."))
    example = Example("bare names", lora_config(), bare)
    return report_of({"adapter": example}, llama_base(), ["peft==0.13.2"], selection=only("AL201"))


def broken() -> Report:
    """Files that cannot be read, beside a sound adapter."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3163320\n"
    adapters = {
        "cut": Example("cut", '{\n  "peft_type": "LORA",\n  "r": 8', llama_tensors()),
        "pointer": Example("pointer", lora_config(), files={"adapter_model.safetensors": pointer}),
        "bare": Example("no weights", lora_config()),
        "sound": Example("sound", lora_config(), llama_tensors()),
    }
    return report_of(adapters, grouping="none", selection=only("AL002", "AL004", "AL101", "AL207"))


def names() -> Report:
    """Names that would act on a terminal or a log."""
    hostile = "evil\n::error::x\x1b[31m\u202ered.lora_A.weight"
    tensors = {**llama_tensors(), hostile: ("F32", (4, 16))}
    config = lora_config(r=8, base_model_name_or_path="日本語\x07")
    return report_of({"a,b:c%\n\x1b[7m": Example("hostile", config, tensors)}, selection=only("AL201", "AL207"))


def nothing() -> Report:
    """A directory without adapters."""
    Path("empty").mkdir()
    return report_of({})


def only(*codes: str) -> Selection:
    """So that new rules leave the snapshots alone."""
    return Selection(select=codes)


CASES: tuple[Callable[[], Report], ...] = (clean, rank, heads, merging, prefixes, broken, names, nothing)


@pytest.mark.parametrize("format_", [*TEXT_FORMATS, *MACHINE_FORMATS, "json"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_snapshot(case: Callable[[], Report], format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    report = case()
    if format_ == "json":
        report = report._replace(skipped=())  # one entry a rule: it would change with every new one
    text = importlib.import_module(f"adapterlint.reporters.{format_}").render(report) + "\n"
    if format_ != "json":
        text = stable(text)
    path = SNAPSHOTS / f"{case.__name__}.{'json' if format_ == 'json' else format_ + '.txt'}"
    if WRITE:
        path.write_text(text)
    assert text == path.read_text(), "ADAPTERLINT_SNAPSHOTS=1 writes the snapshots anew"


def stable(text: str) -> str:
    """The text less the number of skipped checks, which grows with the rules."""
    import re

    return re.sub(r"\b\d+ checks? needs?", "N checks need", text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_again(case: Callable[[], Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    texts = []
    for place in ("first", "second"):
        monkeypatch.chdir(tmp_path / place)
        report = case()
        texts.append([importlib.import_module(f"adapterlint.reporters.{name}").render(report) for name in FORMATS])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("format_", TEXT_FORMATS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_acts_on_a_terminal(
    case: Callable[[], Report], format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = importlib.import_module(f"adapterlint.reporters.{format_}").render(case())
    assert all(line.isprintable() for line in text.split("\n"))
    assert [line for line in text.split("\n") if line != line.rstrip()] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_colour_adds_nothing_but_colour(
    case: Callable[[], Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click import unstyle

    from adapterlint.reporters import concise, full, github

    monkeypatch.chdir(tmp_path)
    report = case()
    for reporter in (full, concise):
        coloured = reporter.render(report, color=True)
        assert unstyle(coloured) == reporter.render(report)
        assert "\x1b[" in coloured or not report.adapters
    assert github.render(report, color=True) == github.render(report)


def test_json_is_ascii_and_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapterlint.reporters import json as reporter

    monkeypatch.chdir(tmp_path)
    report = names()
    text = reporter.render(report)
    assert text.isascii() and "\x1b" not in text
    assert json.loads(text) == reporter.as_dict(report)
