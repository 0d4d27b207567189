"""The generated fixtures: reproducible, and what their names promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SEED = FIXTURES / "sets" / "seed"

# LoraConfig of PEFT 0.6.0: a file with any other key is refused by 0.6 to 0.13
_KEYS = """
alpha_pattern auto_mapping base_model_name_or_path bias fan_in_fan_out inference_mode init_lora_weights layers_pattern
layers_to_transform lora_alpha lora_dropout modules_to_save peft_type r rank_pattern revision target_modules task_type
"""
KEYS_OF_0_6 = _KEYS.split()


def config_of(directory: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((directory / "adapter_config.json").read_text())
    return loaded


def make(*arguments: str, root: Path = FIXTURES) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "make.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_what_is_there_is_what_is_generated() -> None:
    done = make("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_drift_is_found_and_mended(tmp_path: Path) -> None:
    for source in FIXTURES.glob("*.py"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    assert make(root=tmp_path).returncode == 0
    assert make("--check", root=tmp_path).returncode == 0
    config = tmp_path / "sets" / "seed" / "a" / "adapter_config.json"
    before = config.read_bytes()
    config.write_bytes(before + b" ")
    (tmp_path / "ok" / "stray").mkdir()
    (tmp_path / "ok" / "stray" / "file").touch()
    (tmp_path / "base" / "seed" / "config.json").unlink()
    done = make("--check", root=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "missing: base/seed/config.json",
        "not generated: ok/stray/file",
        "differs: sets/seed/a/adapter_config.json",
    ]
    assert make(root=tmp_path).returncode == 0
    assert make("--check", root=tmp_path).returncode == 0
    assert config.read_bytes() == before
    assert not (tmp_path / "ok" / "stray").exists()


def test_the_seed_set_differs_only_in_what_it_is_about() -> None:
    configs = {name: config_of(SEED / name) for name in "abcd"}
    assert [configs[name]["modules_to_save"] for name in "abcd"] == [["classifier"], ["classifier"], ["pooler"], None]
    for config in configs.values():
        assert sorted(config) == KEYS_OF_0_6
        assert config["target_modules"] == ["query", "value"]
        assert config["task_type"] is None
        assert (FIXTURES.parent / str(config["base_model_name_or_path"]) / "config.json").is_file()


@pytest.mark.parametrize("name", list("abcd"))
def test_every_stored_tensor_of_the_seed_set_matters(name: str) -> None:
    base = load_file(FIXTURES / "base" / "seed" / "model.safetensors")
    for key, tensor in load_file(SEED / name / "adapter_model.safetensors").items():
        assert key.startswith("base_model.model.")
        assert np.any(tensor != 0), key
        if "lora_" not in key:
            assert np.abs(tensor - base[key.removeprefix("base_model.model.")]).max() > 0.5, key


def test_every_trap_is_in_the_table_and_small() -> None:
    table = (FIXTURES / "ok" / "README.md").read_text()
    listed = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][2:]
    assert listed == [line for line in listed if (FIXTURES / "ok" / line).is_dir()]
    assert sorted(listed) == sorted(path.name for path in (FIXTURES / "ok").iterdir() if path.is_dir())
    assert all(path.stat().st_size < 32_768 for path in FIXTURES.rglob("*") if path.is_file())


def test_the_written_bin_file_is_what_torch_reads() -> None:
    torch = pytest.importorskip("torch")
    loaded = torch.load(FIXTURES / "ok" / "bin-file" / "adapter_model.bin", weights_only=True)
    assert len(loaded) == 8
    for name, tensor in loaded.items():
        assert tensor.dtype == torch.float32
        assert tensor.shape == ((4, 16) if "lora_A" in name else (16, 4))
        assert bool((tensor != 0).any())
