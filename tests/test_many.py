"""Many adapters at once: further processes, open files, loading orders of large sets."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from adapterlint import checking, run, sets
from adapterlint.model.subject import SetSubject
from adapterlint.reporters import json as json_reporter
from adapterlint.rules.examples import bert_config, bert_tensors, safetensors_bytes
from adapterlint.run import Request, check, check_set, examine

HEAD = {"base_model.model.classifier.weight": ("F32", (3, 32)), "base_model.model.classifier.bias": ("F32", (3,))}


def write(directory: Path, config: dict[str, object], tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "b", **config}))
    (directory / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors, seed=len(directory.name)))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Adapters of several kinds, some of them broken."""
    for number in range(60):
        config, tensors = bert_config(), dict(bert_tensors())
        if number % 7 == 0:
            config, tensors = bert_config(modules_to_save=["classifier"]), {**tensors, **HEAD}
        if number % 11 == 0:
            config["r"] = 16
        write(tmp_path / "all" / f"adapter-{number:02}", config, tensors)
    (tmp_path / "all" / "adapter-05" / "adapter_config.json").write_text("{")
    return tmp_path / "all"


def report(path: Path) -> str:
    found = check(Request([str(path)]))
    return json_reporter.render(found._replace(summary=found.summary._replace(seconds=0.0)))


def test_further_processes_say_the_same(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = report(many)
    used: list[int] = []
    original = checking._in_processes

    def spy(*arguments: object) -> object:
        used.append(1)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checking, "ENOUGH", 10)
    monkeypatch.setattr(checking, "_CHUNK", 7)
    monkeypatch.setattr(checking, "_processes", lambda adapters: 2)
    monkeypatch.setattr(checking, "_in_processes", spy)
    assert report(many) == alone and used


def test_a_killed_process_is_no_loss(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, parent = report(many), os.getpid()
    original = checking._check_one

    def dies(*arguments: object) -> object:
        if os.getpid() != parent:
            os._exit(9)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checking, "_processes", lambda adapters: 2)
    monkeypatch.setattr(checking, "_check_one", dies)
    assert report(many) == alone


@pytest.fixture
def few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_files_do_not_stay_open(tmp_path: Path, few_files: None) -> None:
    wide = {name: ("F32", (shape[0] * 400, *shape[1:])) for name, shape in _shapes().items()}  # more than a block
    for number in range(60):
        directory = tmp_path / "all" / f"adapter-{number:02}"
        write(directory, bert_config(), wide if number % 2 else dict(bert_tensors()))
        file = directory / "adapter_model.safetensors"
        data = bytearray(file.read_bytes())
        data[-4:] = b"\x00\x00\xc0\x7f"
        file.write_bytes(data)
    found = check(Request([str(tmp_path / "all")]))
    assert len([item for item in found.findings if item.finding.rule == "AL301"]) == 60


def _shapes() -> dict[str, tuple[int, ...]]:
    return {name: shape for name, (_, shape) in bert_tensors().items()}


def test_one_order_stands_for_all_that_are_alike(tmp_path: Path) -> None:
    """Of six members of two kinds all 720 orders say, of some release, no more than the few that are tried."""
    kinds = [(bert_config(), bert_tensors()), (bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **HEAD})]
    for name, kind in zip("abcdef", (1, 0, 1, 0, 1, 1), strict=True):
        config, tensors = kinds[kind]
        write(tmp_path / name, {**config, "lora_dropout": len(name) / 10}, dict(tensors))
    subject = examine(Request([str(tmp_path)], payload="none")).sets[0].subject
    tried = sets.orders(subject)
    assert len(tried) == 4  # one of each kind first and last; the given order is one of those

    def said(orders: list[SetSubject]) -> set[tuple[str, str]]:
        return {
            (effect.targets, effect.outcome.value)
            for order in orders
            for finding in check_set(order).findings
            for effect in finding.effects
            if effect.operation == "load"
        }

    every = [SetSubject(members) for members in permutations(subject.members)]
    assert said(every) == said(tried)
    assert said(tried) > said(tried[:1])


def test_a_large_set_takes_linear_time(tmp_path: Path) -> None:
    """Twice as many members ask twice as many questions, not four times."""

    def calls(count: int) -> int:
        root = tmp_path / str(count)
        for number in range(count):
            write(root / f"adapter-{number:03}", bert_config(lora_dropout=number / 1000), dict(bert_tensors()))
        asked = 0

        members = examine(Request([str(root)], payload="none", grouping="none")).adapters

        def count_calls(frame: object, event: str, argument: object) -> None:
            nonlocal asked
            asked += event == "call"

        sys.setprofile(count_calls)
        try:
            run._run_set(members, [], False)
        finally:
            sys.setprofile(None)
        return asked

    few, twice = calls(40), calls(80)
    assert twice < 2.6 * few
    assert twice - few < 40 * 220  # one more that is like the others asks little
