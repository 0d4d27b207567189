"""Payload rules: torch decides which numbers are finite and which are zero, in both containers."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE
from adapterlint.rules.examples import llama_tensors, lora_config
from adapterlint.run import Request, check

torch = pytest.importorskip("torch")

DTYPES = ("float32", "float16", "bfloat16", "float64")
BAD = (math.nan, math.inf, -math.inf)
EXTREME = {"float32": 3.4e38, "float16": 65504.0, "bfloat16": 3.38e38, "float64": 1.7e308}
NAMES = tuple(llama_tensors())


def _save(directory: Path, state: dict[str, Any], container: str) -> Path:
    from safetensors.torch import save_file

    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(lora_config()))
    if container == PICKLE_FILE:
        torch.save(state, directory / container)
    else:
        save_file(state, directory / container)
    return directory


def _random_state(dice: random.Random) -> dict[str, Any]:
    dtype = dice.choice(DTYPES)
    generator = torch.Generator().manual_seed(dice.randrange(1 << 30))
    state = {
        name: torch.randn(shape, generator=generator).to(getattr(torch, dtype))
        for name, (_, shape) in llama_tensors().items()
    }
    for name in NAMES:
        flat = state[name].view(-1)
        flat[dice.randrange(len(flat))] = dice.choice((1, -1)) * EXTREME[dtype]
        if dice.random() < 0.1:
            flat[dice.randrange(len(flat))] = dice.choice(BAD)
    return state


def _reported(path: Path, rule: str) -> list[Any]:
    report = check(Request([str(path)]))
    assert report.internal_errors == ()
    return [item.finding for item in report.findings if item.finding.rule == rule]


@pytest.mark.parametrize("container", [SAFETENSORS_FILE, PICKLE_FILE])
@pytest.mark.parametrize("seed", range(40))
def test_non_finite_as_torch_says(seed: int, container: str, tmp_path: Path) -> None:
    state = _random_state(random.Random(seed))
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    found = _reported(_save(tmp_path / "adapter", state, container), "AL301")
    assert len(found) == bool(bad)
    if bad:
        assert found[0].message.startswith(f"{len(bad)} of {len(NAMES)} tensors")
        assert found[0].location.tensor in bad
        assert found[0].severity.value == "error"


@pytest.mark.parametrize("container", [SAFETENSORS_FILE, PICKLE_FILE])
@pytest.mark.parametrize("dead", range(5))
def test_dead_modules(dead: int, container: str, tmp_path: Path) -> None:
    state = {name: torch.ones(shape) for name, (_, shape) in llama_tensors().items()}
    for name in [name for name in NAMES if "lora_B" in name][:dead]:
        state[name] *= -0.0 if dead % 2 else 0.0
    found = _reported(_save(tmp_path / "adapter", state, container), "AL302")
    assert [finding.severity.value for finding in found] == ([] if not dead else ["note"] if dead < 4 else ["error"])


def test_the_first_checkpoint_and_trained_companions_are_warnings(tmp_path: Path) -> None:
    state = {name: torch.zeros(shape) for name, (_, shape) in llama_tensors().items()}
    early = _reported(_save(tmp_path / "checkpoint-1", state, SAFETENSORS_FILE), "AL302")
    assert [finding.severity.value for finding in early] == ["warning"]
    state["base_model.model.lm_head.weight"] = torch.ones(48, 16)
    beside = _reported(_save(tmp_path / "adapter", state, SAFETENSORS_FILE), "AL302")
    assert [finding.severity.value for finding in beside] == ["warning"]
    assert beside[0].effects == ()


def test_one_number_at_the_end_is_enough(tmp_path: Path) -> None:
    state = {name: torch.zeros(shape) for name, (_, shape) in llama_tensors(4, 1, ("q_proj",)).items()}
    a, b = (next(name for name in state if part in name) for part in ("lora_A", "lora_B"))
    state[a] = torch.ones(4, 16)
    state[b] = torch.zeros(4096, 4)
    state[b][-1, -1] = 1e-30
    assert _reported(_save(tmp_path / "adapter", state, SAFETENSORS_FILE), "AL302") == []


def test_without_payload_nothing_is_said(tmp_path: Path) -> None:
    state = {name: torch.full(shape, math.nan) for name, (_, shape) in llama_tensors().items()}
    path = _save(tmp_path / "adapter", state, SAFETENSORS_FILE)
    report = check(Request([str(path)], payload="none"))
    assert not {item.finding.rule for item in report.findings} & {"AL301", "AL302"}
