"""Config rules against the installed PEFT: what it does with a changed config, and with the repaired one."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adapterlint.cli import main
from adapterlint.findings import Safety
from adapterlint.model.target import bundled
from adapterlint.run import Request, check, examine

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TARGET = f"peft=={peft.__version__}"
pytestmark = [
    pytest.mark.peft,
    pytest.mark.skipif(TARGET not in map(str, bundled()), reason="the installed PEFT is not in the tables"),
]

FIXTURES = Path(__file__).parents[1] / "fixtures"
BASE = FIXTURES / "base" / "llama"
ADAPTER = FIXTURES / "ok" / "gaussian-initialisation"  # r 4, alpha 8, q_proj and v_proj, every key of PEFT 0.6
NAN = float("nan")

CHANGES: list[dict[str, Any]] = [
    {},
    *({"r": value} for value in (True, None, "4", 4.0, 4.5, [4], 0, -1, "four", ...)),
    *({"lora_alpha": value} for value in (None, "8", 8.0, [8], NAN, 0, {}, "x")),
    *({"lora_dropout": value} for value in (None, "0.0", True, 0, 1, 1.5, -0.1, NAN, [0.0], "")),
    *({"bias": value} for value in (None, True, "None", "NONE", ["none"], "all", "foo", "foo_only", "")),
    *({"target_modules": value} for value in (5, True, False, 0, ["q_proj", "v_proj", 5], ["q_proj", "v_proj", None])),
    *({"target_modules": value} for value in ([["q_proj"]], ["q_proj", "v_proj", ""], "all-linear", [], None)),
    *({"modules_to_save": value} for value in ("lm_head", 5, True, False, [5], [None], "", [], ["nothing"], "?")),
    *({"init_lora_weights": value} for value in (None, "true", "false", 1, 0, "", "GAUSSIAN", "kaiming", "PiSSA")),
    *({"init_lora_weights": value} for value in ("pissa_niter_x", "EVA", "eva", "orthogonal", "mica", "corda", 2.5)),
    *({"layers_to_transform": value} for value in ([0, 1], "0", [], 0.0, [0.0, 1.0], "x", ["0", "1"])),
    *({"task_type": value} for value in ("", 5, [], "CAUSAL_LM ", "TaskType.CAUSAL_LM", "causal-lm", False)),
    *({"peft_type": value} for value in (None, 5, [], "LoRA", "lora", "PeftType.LORA", "BONE", "LORAPLUS", "", ...)),
    *({"rank_pattern": value} for value in (None, [], "x", {"q_proj": "4"}, {"q_proj": 4.0}, {"q_proj": None})),
    *({"rank_pattern": value} for value in ({"(": 4}, {"q_proj": 4}, {"nothing": "x"}, {"nothing": 3})),
    *({"alpha_pattern": value} for value in (None, 5, {"q_proj": "8"}, {"q_proj": None}, {"nothing": 3}, {"(": 3})),
    *({"loftq_config": value} for value in (None, {}, [], "x", {"loftq_bits": 4})),
    *({"layer_replication": value} for value in (None, [], "x", 5)),
    *({"exclude_modules": value} for value in (None, [], 5, [5], "x", ["o_proj"])),
    *({name: value} for name in ("eva_config", "corda_config", "lora_ga_config") for value in ({}, "x", None)),
    *({name: value} for name in ("use_bdlora", "velora_config", "kasa_config") for value in ("x", False, None)),
    *({"monteclora_config": value} for value in ("x", False, None)),
    *({"target_parameters": value} for value in (None, [], "x", 5)),
    *({"use_rslora": value} for value in (None, "false", 0, "", False)),
    *({"peft_version": value} for value in (5, "garbage", None)),
    *({key: 1} for key in ("zzz", "self", "cls", "enable_lora", "runtime_config", "to_dict")),
    {"target_modules": ".*(q|v)_proj", "layers_to_transform": [0, 1]},
    {"target_modules": ".*(q|v)_proj", "layers_pattern": ""},
    {"layers_pattern": "layers"},
    {"layers_pattern": []},
    {"layers_pattern": "layers", "layers_to_transform": []},
    {"layers_pattern": "layers", "layers_to_transform": [0, 1]},
    {"lora_bias": True, "init_lora_weights": "eva"},
    {"lora_bias": True, "use_dora": True},
    {"use_dora": True, "megatron_config": {"a": 1}},
    {"r": 0, "rank_pattern": {"[qv]_proj": 4}},
    {"r": "4", "rank_pattern": {"[qv]_proj": 4}},
    {"lora_alpha": "8", "alpha_pattern": {"[qv]_proj": 8}},
    {"lora_alpha": "8", "use_rslora": True},
]


def written(directory: Path, changes: dict[str, Any]) -> Path:
    shutil.copytree(ADAPTER, directory)
    config = json.loads((ADAPTER / "adapter_config.json").read_text()) | {"init_lora_weights": True, **changes}
    text = json.dumps({key: value for key, value in config.items() if value is not ...}, indent=2)
    (directory / "adapter_config.json").write_text(text)
    return directory


@cache
def base_model() -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(BASE, torch_dtype=torch.float32)
    return model.eval()


def answers(directory: Path) -> Any:
    """The logits of the base with an adapter; raises what PEFT raises."""
    model = peft.PeftModel.from_pretrained(copy.deepcopy(base_model()), str(directory))
    with torch.no_grad():
        return model.eval()(torch.tensor([[2, 3, 5, 7, 11]])).logits


@cache
def right_answers() -> Any:
    return answers(ADAPTER)


def outcome(directory: Path) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = answers(directory)
    except Exception as error:
        return "raises", " ".join(f"{type(error).__name__}: {error}".split())
    return ("loads" if torch.allclose(found, right_answers(), atol=1e-5) else "wrong"), ""


def name(changes: dict[str, Any]) -> str:
    return ",".join(f"{key}={value!r}" for key, value in changes.items()) or "plain"


@pytest.mark.parametrize("changes", CHANGES, ids=name)
def test_prediction(changes: dict[str, Any], tmp_path: Path) -> None:
    adapter = written(tmp_path / "adapter", changes)
    happened, error = outcome(adapter)
    report = check(Request([str(adapter)], [TARGET], str(BASE), "none"))
    said = report.adapters[0].verdicts[TARGET]
    assert report.internal_errors == ()
    assert said.outcome.value == happened, (error, said)
    if happened == "raises" and "megatron_config" not in changes:
        predicted = " ".join((said.exception or "").split())
        assert error.startswith(predicted) or "Target module" in error or "modules_to_save" in changes, predicted


@pytest.mark.parametrize("changes", CHANGES, ids=name)
def test_a_safe_fix_gives_the_trained_answers(changes: dict[str, Any], tmp_path: Path) -> None:
    adapter = written(tmp_path / "adapter", changes)
    run = examine(Request([str(adapter)], ["peft>=0.3"], str(BASE), "none"))
    found = [finding for finding in run.adapters[0].findings if finding.effects]
    own = [finding for finding in found if finding.rule.startswith("AL1")]
    if changes.get("modules_to_save") == "lm_head":
        pytest.skip("the fixture has no tensors of lm_head")
    if not own or any(not (finding.fix and finding.fix.safety is Safety.SAFE) for finding in found):
        pytest.skip("nothing that a safe fix alone repairs")
    command = ["fix", str(adapter), "--base", str(BASE), "--no-sets", "--target", "peft>=0.3", "--inplace"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (0, 1), result.output
    assert outcome(adapter)[0] == "loads", result.output


def test_rslora_is_said_as_an_alpha_that_gives_the_same_answers(tmp_path: Path) -> None:
    adapter = written(tmp_path / "adapter", {"use_rslora": True})
    before = answers(adapter)
    assert not torch.allclose(before, right_answers(), atol=1e-3)
    command = ["fix", str(adapter), "--base", str(BASE), "--no-sets", "--target", "peft==0.7.1", "--inplace"]
    result = CliRunner().invoke(main, command)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert "use_rslora" not in config and config["lora_alpha"] == 16, result.output
    assert torch.equal(answers(adapter), before)
