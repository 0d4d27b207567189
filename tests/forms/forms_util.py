"""Sets of adapters for the tests of the normal forms, and what the installed PEFT answers with them."""

from __future__ import annotations

import copy
import io
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterlint.cli.app import main

PROJECT = Path(__file__).resolve().parents[2]
FIXTURES = PROJECT / "fixtures"
PREFIX = "base_model.model."
Arrays = dict[str, np.ndarray]

BASES = {
    "bert": ("BertForSequenceClassification", FIXTURES / "base" / "seed"),
    "llama": ("LlamaForCausalLM", FIXTURES / "base" / "llama"),
    "llama-tied": ("LlamaForCausalLM", FIXTURES / "base" / "llama-tied"),
}
TOKENS = [[2, 3, 5, 7, 11, 13], [4, 6, 8, 9, 10, 12]]


def gpt2_base(directory: Path) -> Path:
    """A GPT-2 of two layers, whose head is its embedding, written by transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 48, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


@lru_cache(maxsize=8)
def _model(base: Path) -> Any:
    import torch
    import transformers

    torch.set_num_threads(1)  # of models this small, threads only wait for each other
    architecture = json.loads((base / "config.json").read_text())["architectures"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, architecture).from_pretrained(base, attn_implementation="eager").eval()


def fresh(base: Path) -> Any:
    """A base model in evaluation mode; read once, and copied for every use."""
    return copy.deepcopy(_model(base))


class Maker:
    """Writes random adapters for a base. Everything is large enough to be seen in the output.

    Args:
        base: directory of the base.
        root: where the adapters go.
        seed: of the random numbers.
    """

    def __init__(self, base: Path, root: Path, seed: int = 0) -> None:
        self.base, self.root = base, root
        self.weights = load_file(base / "model.safetensors")
        self.config = json.loads((base / "config.json").read_text())
        self.random = np.random.default_rng(seed)

    def numbers(self, *shape: int) -> np.ndarray:
        """Normal numbers, times 0.4."""
        return (self.random.standard_normal(shape) * 0.4).astype(np.float32)

    def adapter(
        self,
        name: str,
        leaves: Sequence[str],
        saved: Mapping[str, Sequence[str]] | None = None,
        dtype: Any = np.float32,
        changed: Iterable[str] | None = None,
        **config: Any,
    ) -> Path:
        """Write one adapter.

        Args:
            name: its directory.
            leaves: last names of its target modules.
            saved: modules_to_save, each with the base's parameters that are stored for it.
            dtype: of all its tensors.
            changed: those of them that differ from the base's; None for all.
            config: further config values; ``rank_pattern`` and ``bias`` are followed.
        """
        values = {
            "peft_type": "LORA", "task_type": None, "base_model_name_or_path": str(self.base), "bias": "none",
            "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": list(leaves), "inference_mode": True,
            "modules_to_save": list(saved) if saved else None, "fan_in_fan_out": self.config["model_type"] == "gpt2",
            "init_lora_weights": True, **config,
        }  # fmt: skip
        tensors: Arrays = {}
        for full in self.weights:
            module, _, last = full.rpartition(".")
            if last == "weight" and self.is_target(module, leaves, values):
                tensors.update(self.pair(module, values))
                if values["bias"] == "lora_only":
                    bias = self.weight(f"{module}.bias")
                    tensors[f"{PREFIX}{module}.base_layer.bias"] = bias + self.numbers(*bias.shape)
        for full in (full for names in (saved or {}).values() for full in names):
            tensors[PREFIX + full] = self.weight(full).copy()
            if changed is None or full in changed:
                tensors[PREFIX + full] += self.numbers(*tensors[PREFIX + full].shape)
        directory = self.root / name
        directory.mkdir(parents=True)
        (directory / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n")
        stored = {name: array.astype(dtype) for name, array in tensors.items()}
        save_file(stored, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        return directory

    def is_target(self, module: str, leaves: Sequence[str], config: Mapping[str, Any]) -> bool:
        if not any(module == leaf or module.endswith("." + leaf) for leaf in leaves):
            return False
        layers = config.get("layers_to_transform")
        return not layers or any(f".{layer}." in module for layer in layers)

    def weight(self, full: str) -> np.ndarray:
        """A parameter of the base; a tied head's is the embedding's."""
        embeddings = {"lm_head.weight": ("model.embed_tokens.weight", "transformer.wte.weight")}
        names = (full, *embeddings.get(full, ()))
        return next(self.weights[name] for name in names if name in self.weights)

    def pair(self, module: str, config: Mapping[str, Any]) -> Arrays:
        weight = self.weights[f"{module}.weight"]
        outputs, inputs = weight.shape[::-1] if config["fan_in_fan_out"] else weight.shape
        rank = config["r"]
        for key, value in (config.get("rank_pattern") or {}).items():
            if module.endswith(key):
                rank = value
        found = {f"{PREFIX}{module}.lora_A.weight": self.numbers(rank, inputs)}
        found[f"{PREFIX}{module}.lora_B.weight"] = self.numbers(outputs, rank)
        if config.get("lora_bias"):
            found[f"{PREFIX}{module}.lora_B.bias"] = self.numbers(outputs)
        return found


class Done(NamedTuple):
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str) -> Done:
    """One call of adapterlint, in this process, from the project's directory."""
    before, out, err = os.getcwd(), io.StringIO(), io.StringIO()
    os.chdir(PROJECT)
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stopped:
            main(list(arguments))
    finally:
        os.chdir(before)
    return Done(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


def fix(paths: Sequence[Path], output: Path, *options: str) -> Done:
    """The command, writing copies below ``output``."""
    return command("fix", "--output", str(output), *options, *map(str, paths))


def fixed(paths: Sequence[Path], output: Path, *options: str) -> list[Path]:
    """The copies that the command wrote, which must not have refused; adapters that needed none are themselves."""
    done = fix(paths, output, *options)
    assert done.returncode in (0, 1) and "refused" not in done.stderr, done.stdout + done.stderr
    return [output / path.name if (output / path.name).is_dir() else path for path in paths]


def alone(base: Path, adapter: Path) -> Any:
    """Logits of an adapter by itself, in a fresh base."""
    import torch
    from peft import PeftModel

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(fresh(base), str(adapter)).eval()
        return model(torch.tensor(TOKENS)).logits


def together(base: Path, adapters: Sequence[Path], switches: Sequence[str]) -> list[tuple[str, Any]]:
    """Adapters in one base: logits right after loading (of the first), then after every switch."""
    import torch
    from peft import PeftModel

    tokens = torch.tensor(TOKENS)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        first, *others = adapters
        model = PeftModel.from_pretrained(fresh(base), str(first), adapter_name=first.name)
        for path in others:
            model.load_adapter(str(path), adapter_name=path.name)
        model.eval()
        found = [(first.name, model(tokens).logits)]
        for name in switches:
            model.set_adapter(name)
            found.append((name, model(tokens).logits))
    return found


def loading_orders(adapters: Sequence[Path]) -> list[list[Path]]:
    """All orders up to four adapters; beyond that every one first and last, and the reverse."""
    if len(adapters) <= 4:
        return [list(order) for order in permutations(adapters)]
    turns = [[*adapters[number:], *adapters[:number]] for number in range(len(adapters))]
    return [*turns, [*reversed(adapters)]]


def worst(found: Iterable[tuple[str, Any]], wanted: Mapping[str, Any]) -> float:
    """The largest difference of a logit, relative to the largest logit there."""
    return max(float((logits - wanted[name]).abs().max() / wanted[name].abs().max()) for name, logits in found)
