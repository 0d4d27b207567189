"""The seed set before and after `adapterlint fix`, in whatever PEFT is installed.

Run it in one environment per release: with PEFT 0.14.0 and 0.17.1 the set fails as it is, since unmodified PEFT mixes
up adapters whose modules_to_save differ; after the fix every adapter answers as trained, in all orders.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seed set, repaired by the command."""
    directory = tmp_path_factory.mktemp("fixed")
    copies = [directory / name for name in "abcd"]
    for copy in copies:
        shutil.copytree(SEED_SET / copy.name, copy)
    command = [sys.executable, "-m", "adapterlint", "fix", "--inplace", "--base", "fixtures/base/seed"]
    command += ["--target", "peft>=0.6", *map(str, copies)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_the_fixed_set_answers_as_trained_in_all_orders(fixed: Path) -> None:
    for name in "abcd":
        kept = load_file(fixed / name / "adapter_model.safetensors")
        for tensor_name, tensor in load_file(SEED_SET / name / "adapter_model.safetensors").items():
            assert kept[tensor_name].tobytes() == tensor.tobytes(), tensor_name
    report = verify(seed_recipes(fixed), str(SEED_BASE), device="cpu")
    assert report.ok, report.outcomes
    assert len(report.orders) == 24


def test_outputs_are_those_of_the_untouched_adapters_bit_for_bit(fixed: Path) -> None:
    """Every adapter of the fixed set, switched to, against the adapter as it was, loaded alone in the same PEFT."""
    import torch
    import transformers
    from peft import PeftModel

    def base() -> Any:
        return transformers.BertForSequenceClassification.from_pretrained(SEED_BASE, attn_implementation="eager").eval()

    tokens = torch.tensor([[2, 3, 5, 7, 11, 13], [4, 6, 8, 9, 10, 12]])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        together = PeftModel.from_pretrained(base(), str(fixed / "d"), adapter_name="d")
        for name in "cba":
            together.load_adapter(str(fixed / name), adapter_name=name)
        together.eval()
        for name in "abcdabcd":
            together.set_adapter(name)
            alone = PeftModel.from_pretrained(base(), str(SEED_SET / name)).eval()
            assert torch.equal(together(tokens).logits, alone(tokens).logits), name
