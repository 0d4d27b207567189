"""Wall time of `adapterlint check` on one adapter of 448 tensors, as a multiple of `python -c pass`.

    python tests/bench/check_448.py [--runs N] [--profile]

Prints both medians and their ratio, and which heavy modules were imported; exit code 1 where the ratio is above the
limit or a heavy module was. --profile lists what the imports of the package and of others cost.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

LIMIT = 8.0
LAYERS, RANK, WIDTH = 32, 2, 4
MODULES = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
HEAVY = ("torch", "transformers", "peft", "libcst", "numpy", "jsonschema")


def write_adapter(directory: Path) -> None:
    """LoRA on the seven linear modules of 32 layers: 448 tensors with the names of Llama 3 8B, 32 bytes each."""
    leaves = [module.rpartition(".")[2] for module in MODULES]
    config = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": "meta-llama/Meta-Llama-3-8B",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 4,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": RANK,
        "rank_pattern": {},
        "target_modules": leaves,
        "task_type": "CAUSAL_LM",
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for layer in range(LAYERS):
        for module in MODULES:
            for side, shape in (("A", [RANK, WIDTH]), ("B", [WIDTH, RANK])):
                name = f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"
                start, end = end, end + 4 * RANK * WIDTH
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(struct.pack("<f", (number % 29 - 14.5) / 64) for number in range(end // 4))
    (directory / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def command(directory: Path) -> list[str]:
    """The installed script, or the module where there is none."""
    script = shutil.which("adapterlint", path=sysconfig.get_path("scripts"))
    return [*([script] if script else [sys.executable, "-m", "adapterlint"]), "check", str(directory)]


def seconds(arguments: list[str]) -> float:
    """Wall time of one run, which has to end well."""
    started = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def imports(directory: Path) -> list[tuple[int, int, str]]:
    """(own, cumulative) microseconds and name of every module that a check imports."""
    arguments = [sys.executable, "-X", "importtime", "-m", "adapterlint", "check", str(directory)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    found = re.findall(r"^import time:\s*(\d+) \|\s*(\d+) \| +(\S+)$", done.stderr, re.MULTILINE)
    return [(int(own), int(both), name) for own, both, name in found]


def profile(directory: Path) -> None:
    """What the imports cost, by package, and the dearest modules."""
    found = imports(directory)
    sums: dict[str, int] = {}
    for own, _, name in found:
        parts = name.split(".")
        group = ".".join(parts[:2]) if parts[0] == "adapterlint" else parts[0]
        sums[group] = sums.get(group, 0) + own
    print(f"{len(found)} modules, {sum(own for own, _, _ in found) / 1000:.1f} ms (-X importtime itself slows them)")
    for title, rows in (
        ("by package", sorted(((own, name) for name, own in sums.items()), reverse=True)),
        ("by module", sorted(((own, name) for own, _, name in found), reverse=True)),
    ):
        print(f"{title}:")
        for own, name in rows[:25]:
            print(f"  {own / 1000:7.2f} ms  {name}")


def main() -> int:
    """Exit code: 0, or 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="runs of each, in turn")
    parser.add_argument("--profile", action="store_true", help="also list what imports cost")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "adapter"
        directory.mkdir()
        write_adapter(directory)
        ours, nothing = command(directory), [sys.executable, "-c", "pass"]
        seconds(ours), seconds(nothing)  # fills the caches of the file system, and __pycache__
        pairs = [(seconds(ours), seconds(nothing)) for _ in range(options.runs)]
        heavy = sorted({name for _, _, name in imports(directory)} & set(HEAVY))
        if options.profile:
            profile(directory)
    check, empty = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"adapterlint check, 448 tensors: {check * 1000:.0f} ms; python -c pass: {empty * 1000:.0f} ms")
    print(f"ratio {check / empty:.1f} (limit {LIMIT:.0f}); heavy modules imported: {', '.join(heavy) or 'none'}")
    return int(check / empty > LIMIT or bool(heavy))


if __name__ == "__main__":
    sys.exit(main())
