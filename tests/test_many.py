"""Many adapters at once: further processes, open files, loading orders of large sets."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from adapterlint import checking, run, sets, sharing
from adapterlint.model.subject import SetSubject
from adapterlint.model.target import bundled
from adapterlint.reporters import json as json_reporter
from adapterlint.rules.examples import bert_config, bert_tensors, llama_tensors, lora_config, safetensors_bytes
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


@pytest.mark.parametrize("after", [0, 12])
def test_a_killed_process_is_no_loss(many: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Neither before it has sent anything, nor with some of its results sent."""
    alone, parent = report(many), os.getpid()
    original, asked = checking._check_one, 0

    def dies(*arguments: object) -> object:
        nonlocal asked
        if os.getpid() != parent:
            asked += 1
            if asked > after:
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            time.sleep(0.002)  # so that the other one has its turn
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checking, "ENOUGH", 10)
    monkeypatch.setattr(checking, "_CHUNK", 2)
    monkeypatch.setattr(sharing, "_BATCH", 2)
    monkeypatch.setattr(checking, "_processes", lambda adapters: 2)
    monkeypatch.setattr(checking, "_check_one", dies)
    assert report(many) == alone
    assert asked == 0  # in this process


def test_an_error_reaches_the_caller_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    fork = os.fork

    def spy() -> int:
        started.append(fork())
        return started[-1]

    def fails(number: int) -> int:
        time.sleep(0.01)
        if number == 7:
            raise ValueError("seven")
        return number

    monkeypatch.setattr(os, "fork", spy)
    with pytest.raises(ValueError, match="seven"):
        sharing.share(list(range(20)), fails, lambda item: item, 3)
    assert len(started) == 2
    for process in started:
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


def test_results_come_in_order_and_the_work_is_shared() -> None:
    def work(number: int) -> tuple[int, int]:
        time.sleep(0.005)
        return number, os.getpid()

    found = sharing.share(list(range(40)), work, lambda item: item, 3)
    assert [number for number, _ in found] == list(range(40))
    assert len({process for _, process in found}) == 3
    assert len(sharing.chunks(range(2_000_000), 50)[0]) == 1954  # few enough for a pipe


def test_members_from_other_processes_share_their_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path(__file__).parents[1] / "fixtures" / "base" / "llama"
    for number in range(30):
        config = lora_config(base_model_name_or_path=str(base), r=2 + number % 2)
        write(tmp_path / f"adapter-{number:02}", config, dict(llama_tensors()))
    request = Request([str(tmp_path)], payload="none")
    alone = examine(request)
    monkeypatch.setattr(checking, "_CHUNK", 3)
    monkeypatch.setattr(checking, "_processes", lambda adapters: 3)
    shared = examine(request)
    assert len({id(checked.subject.base) for checked in shared.adapters}) == 1
    assert shared.sets[0].subject.base is not None
    assert [item.findings for item in shared.adapters] == [item.findings for item in alone.adapters]
    assert shared.sets[0].findings == alone.sets[0].findings


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
            run._run_set(members, bundled(), [], False)
        finally:
            sys.setprofile(None)
        return asked

    few, twice = calls(40), calls(80)
    assert twice < 2.6 * few
    assert twice - few < 40 * 240  # one more that is like the others asks little
