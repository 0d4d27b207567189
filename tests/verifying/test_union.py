"""The seed set before and after `adapterlint fix`, in whatever PEFT is installed.

Run it in one environment per release: with PEFT 0.14.0 and 0.17.1 the set fails as it is, since unmodified PEFT mixes
up adapters whose modules_to_save differ; after the fix every adapter answers as trained, in all orders.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from verifying_util import PROJECT, SEED_BASE, SEED_SET, installed_peft, seed_recipes

from adapterlint.verifying import Step, VerifyReport, verify

for _library in ("torch", "transformers", "peft"):
    pytest.importorskip(_library)

pytestmark = pytest.mark.peft


def steps(report: VerifyReport, adapter: str | None = None, stage: str | None = None) -> list[Step]:
    return [
        step
        for order in report.orders
        for step in order.steps
        if adapter in (None, step.adapter) and stage in (None, step.stage)
    ]


@pytest.fixture(scope="module")
def before() -> VerifyReport:
    return verify(seed_recipes(), str(SEED_BASE), device="cpu")


def test_the_seed_set_as_it_is(before: VerifyReport) -> None:
    assert len(before.orders) == 24
    if installed_peft() >= (0, 18, 1):
        assert before.ok
        return
    assert [order.outcome for order in before.orders if order.outcome == "ok"] == []


@pytest.mark.skipif(not (0, 15) <= installed_peft() < (0, 18), reason="PEFT 0.15 to 0.17")
def test_right_after_loading_the_last_adapter_speaks(before: VerifyReport) -> None:
    assert {step.outcome for step in steps(before, stage="after_load")} == {"wrong"}
    assert min(step.difference or 0 for step in steps(before, stage="after_load")) > 0.1
    assert {step.outcome for step in steps(before, stage="after_switch")} == {"ok"}


@pytest.mark.skipif(not (0, 11) <= installed_peft() < (0, 15), reason="PEFT 0.11 to 0.14")
def test_switching_does_not_bring_the_heads_back(before: VerifyReport) -> None:
    assert {step.outcome for step in steps(before, stage="after_load")} == {"wrong"}
    last_switches = [step for order in before.orders for step in order.steps[-4:]]
    assert {step.outcome for step in last_switches if step.adapter != "d"} == {"wrong"}
    assert {step.outcome for step in last_switches if step.adapter == "d"} == {"ok"}


@pytest.mark.skipif(not (0, 6) <= installed_peft() < (0, 11), reason="PEFT 0.6 to 0.10")
def test_switching_raises(before: VerifyReport) -> None:
    texts = {step.exception or "" for step in steps(before, stage="switch")}
    assert texts
    assert all(text.startswith("ValueError: Adapter ") and " not found in dict_keys(" in text for text in texts)


@pytest.mark.skipif(importlib.util.find_spec("adapterlint.cli.fix") is None, reason="there is no fix command yet")
def test_the_fixed_set_answers_as_trained_in_all_orders(tmp_path: Path) -> None:
    copies = [tmp_path / name for name in "abcd"]
    for copy in copies:
        shutil.copytree(SEED_SET / copy.name, copy)
    command = [sys.executable, "-m", "adapterlint", "fix", "--inplace", "--base", "fixtures/base/seed"]
    command += ["--target", "peft>=0.6", *map(str, copies)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for copy in copies:
        kept = load_file(copy / "adapter_model.safetensors")
        for name, tensor in load_file(SEED_SET / copy.name / "adapter_model.safetensors").items():
            assert kept[name].tobytes() == tensor.tobytes(), name
    report = verify(seed_recipes(tmp_path), str(SEED_BASE), device="cpu")
    assert report.ok, report.outcomes
    assert len(report.orders) == 24
