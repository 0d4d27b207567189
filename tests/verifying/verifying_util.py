"""Recipes for canonical adapters of the fixtures, made without the tool's own model, so that the two can disagree."""

from __future__ import annotations

import importlib.metadata
import json
import pickletools
import re
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapterlint.releases import version_key
from adapterlint.verifying import LoraDelta, Recipe, SavedParameter, TokenRows

PREFIX = "base_model.model."
PROJECT = Path(__file__).resolve().parents[2]
SEED_BASE = PROJECT / "fixtures" / "base" / "seed"
SEED_SET = PROJECT / "fixtures" / "sets" / "seed"


def tensor_names(path: Path) -> list[str]:
    """Names in a safetensors file, or in the pickle of a .bin that holds canonical names."""
    if path.suffix == ".bin":
        program = zipfile.ZipFile(path).read("archive/data.pkl")
        strings = {argument for _, argument, _ in pickletools.genops(program) if isinstance(argument, str)}
        return sorted(text for text in strings if text.startswith(PREFIX))
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return [name for name in json.loads(data[8 : 8 + length]) if name != "__metadata__"]


def pattern_value(config: dict[str, Any], pattern: str, module: str, default: float) -> float:
    """What rank_pattern or alpha_pattern says about a module; keys match its last names."""
    for key, value in (config.get(pattern) or {}).items():
        if re.fullmatch(rf"(.*\.)?({key})", module):
            return float(value)
    return default


def scale_of(config: dict[str, Any], module: str) -> float:
    """lora_alpha / r, or over the root of r, for one module."""
    rank = pattern_value(config, "rank_pattern", module, config.get("r", 8))
    alpha = pattern_value(config, "alpha_pattern", module, config.get("lora_alpha", 8))
    return alpha / rank**0.5 if config.get("use_rslora") else alpha / rank


def recipe_of(directory: Path, base: Path = SEED_BASE, name: str | None = None) -> Recipe:
    """The recipe of an adapter with canonical keys."""
    config = json.loads((directory / "adapter_config.json").read_text())
    weights = next(each for each in ("adapter_model.safetensors", "adapter_model.bin") if (directory / each).exists())
    names = set(tensor_names(directory / weights))
    blank = Recipe(name or directory.name, str(directory), weights)
    if config["peft_type"] != "LORA":
        return replace(blank, mergeable=False, reason=f"{config['peft_type']} is not merged by hand")
    deltas, saved, tokens = [], [], []
    for key in sorted(names):
        module = key.removeprefix(PREFIX)
        if key.endswith(".lora_A.weight"):
            deltas.append(_linear(config, key, module.removesuffix(".lora_A.weight"), names))
        elif key.endswith(".lora_embedding_A"):
            path = module.removesuffix(".lora_embedding_A")
            pair = key.replace("embedding_A", "embedding_B")
            deltas.append(LoraDelta(path, "embedding", key, pair, scale_of(config, path)))
        elif key.endswith(".trainable_tokens_delta"):
            tokens += _rows(config, key, module.partition(".token_adapter")[0], base)
        elif not re.search(r"lora_|original_module", key):
            saved.append(SavedParameter(module.replace(".base_layer.", "."), key))
    return replace(blank, deltas=tuple(deltas), saved=tuple(saved), tokens=tuple(tokens))


def _linear(config: dict[str, Any], key: str, module: str, names: set[str]) -> LoraDelta:
    b = key.replace("lora_A", "lora_B")
    bias, magnitude = b.replace(".weight", ".bias"), f"{PREFIX}{module}.lora_magnitude_vector"
    return LoraDelta(
        module,
        "linear",
        key,
        b,
        scale_of(config, module),
        magnitude=magnitude if magnitude in names else None,
        bias=bias if bias in names else None,
        fan_in_fan_out=config["fan_in_fan_out"],
    )


def _rows(config: dict[str, Any], key: str, module: str, base: Path) -> list[TokenRows]:
    indices = config["trainable_token_indices"]
    chosen = tuple(indices if isinstance(indices, list) else indices[module.rpartition(".")[2]])
    tied = json.loads((base / "config.json").read_text()).get("tie_word_embeddings", False)
    modules = [module, "lm_head"] if tied else [module]
    return [TokenRows(f"{each}.weight", key, chosen) for each in modules]


def seed_recipes(root: Path = SEED_SET) -> list[Recipe]:
    """Recipes of a, b, c and d; ``root`` may hold copies of them."""
    return [replace(recipe_of(SEED_SET / name), path=str(root / name)) for name in "abcd"]


def installed_peft() -> tuple[int, ...]:
    """Release of the installed PEFT, as numbers; empty without one."""
    try:
        return version_key(importlib.metadata.version("peft"))
    except importlib.metadata.PackageNotFoundError:
        return ()
