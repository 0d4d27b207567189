"""How many adapters a second `adapterlint check` gets through, beside PEFT loading them and a loop that only parses.

    python tests/bench/throughput.py [--adapters 2000] [--runs 3]

The adapters have 256 tensors and headers that all differ (shapes, offsets, metadata), as siblings on one base. Timed in
turn: the whole command with headers only (interpreter and report included), and a loop in this process that reads the
header bytes and both texts and parses them with the standard library's json. PEFT is timed once, per adapter, without
its imports and without making the base. Exit code 1 where a ratio misses its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOP_LIMIT = 3.0
"""Times the loop, at most."""

PEFT_LIMIT = 300
"""Times as fast as PEFT, at least."""

LAYERS, MODULES = 32, ("q_proj", "k_proj", "v_proj", "o_proj")


def write_adapters(root: Path, count: int) -> None:
    """``count`` LoRA adapters of 256 tensors each."""
    draw = random.Random(0)
    for number in range(count):
        rank, width = draw.choice((2, 4, 8)), draw.randrange(4, 64)
        directory = root / f"adapter-{number:04}"
        directory.mkdir()
        config = _config(rank, round(draw.uniform(0, 0.1), 6))
        (directory / "adapter_config.json").write_text(json.dumps(config, indent=2))
        header: dict[str, Any] = {"__metadata__": {"format": "pt", "run": str(draw.random())}}
        end = 0
        for layer in range(LAYERS):
            for module in MODULES:
                for side, shape in (("A", [rank, width]), ("B", [width, rank])):
                    begin, end = end, end + 4 * rank * width
                    name = f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{side}.weight"
                    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        data = len(text).to_bytes(8, "little") + text + b"\x00\x00\x80\x3f" * (end // 4)
        (directory / "adapter_model.safetensors").write_bytes(data)


def _config(rank: int, dropout: float) -> dict[str, Any]:
    return {
        "base_model_name_or_path": "base",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": 2 * rank,
        "lora_dropout": dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": list(MODULES),
        "task_type": "CAUSAL_LM",
    }


def only_parse(root: Path) -> None:
    """The least that any reader has to do."""
    for name in os.listdir(root):
        directory = root / name
        with open(directory / "adapter_model.safetensors", "rb") as file:
            json.loads(file.read(int.from_bytes(file.read(8), "little")))
        with open(directory / "adapter_config.json", "rb") as file:
            json.loads(file.read())


def check(root: Path) -> None:
    """The command, as a user starts it."""
    script = shutil.which("adapterlint", path=sysconfig.get_path("scripts"))
    start = [script] if script else [sys.executable, "-m", "adapterlint"]
    subprocess.run(
        [*start, "check", str(root), "--no-payload", "--format", "json"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=root.parent,
    )


def seconds(work: Callable[[Path], None], root: Path) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    work(root)
    return time.perf_counter() - started


def seconds_of_peft(root: Path, loads: int) -> float:
    """Median seconds of ``PeftModel.from_pretrained`` on a model with just as many modules."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 32}
    base = LlamaForCausalLM(LlamaConfig(num_hidden_layers=LAYERS, **shape))
    config = LoraConfig(r=8, target_modules=list(MODULES), task_type="CAUSAL_LM")
    made = get_peft_model(base, config)
    made.save_pretrained(str(root / "peft"))
    base = made.unload()
    times = []
    for _ in range(loads):
        started = time.perf_counter()
        loaded = PeftModel.from_pretrained(base, str(root / "peft"))
        times.append(time.perf_counter() - started)
        base = loaded.unload()
    return statistics.median(times)


def main() -> int:
    """Exit code: 0, or 1 where a ratio misses its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3, help="runs of each, in turn")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "adapters")
        root.mkdir()
        write_adapters(root, options.adapters)
        check(root), only_parse(root)  # fills the caches
        pairs = [(seconds(check, root), seconds(only_parse, root)) for _ in range(options.runs)]
        peft = seconds_of_peft(Path(scratch), 7)
    checked, parsed = (statistics.median(times) / options.adapters for times in zip(*pairs, strict=True))
    print(f"{options.adapters} adapters of 256 tensors, on {len(os.sched_getaffinity(0))} cores; per adapter:")
    print(f"adapterlint check {checked * 1000:.2f} ms, parsing alone {parsed * 1000:.2f} ms, PEFT {peft * 1000:.0f} ms")
    print(f"ratio to parsing alone {checked / parsed:.1f} (limit {LOOP_LIMIT:.0f})")
    print(f"times as fast as PeftModel.from_pretrained {peft / checked:.0f} (limit {PEFT_LIMIT})")
    return int(checked > LOOP_LIMIT * parsed or peft < PEFT_LIMIT * checked)


if __name__ == "__main__":
    sys.exit(main())
