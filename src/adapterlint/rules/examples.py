"""Examples inside rules: a config and a table of tensors, written out as a directory only when a test runs them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path  # costs 10 ms at every start, and only tests write examples

Shapes: TypeAlias = Mapping[str, tuple[str, tuple[int, ...]]]

_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}


class BaseExample(NamedTuple):
    """A base model: its config and its tensors."""

    config: Mapping[str, Any]
    tensors: Shapes


class Example(NamedTuple):
    """One adapter directory.

    Attributes:
        title: what it shows, in a few words.
        config: the config as an object, as raw text or bytes, or None for no file.
        tensors: name -> (dtype, shape); None for no weights file.
        base: the base to check against.
        files: other files, or raw bytes in place of the weights.
        fill: byte pattern of the payload: ``ramp`` (small distinct numbers), ``zero`` or ``nan``.
        weights: name of the weights file.
        beside: files next to the adapter's directory, which is called ``adapter``: an adapterlint.toml is used.
    """

    title: str
    config: Mapping[str, Any] | str | bytes | None = None
    tensors: Shapes | None = None
    base: BaseExample | None = None
    files: Mapping[str, bytes] = MappingProxyType({})
    fill: str = "ramp"
    weights: str = "adapter_model.safetensors"
    beside: Mapping[str, bytes] = MappingProxyType({})


class SetExample(NamedTuple):
    """Adapters on one base, name -> example, in loading order."""

    title: str
    members: Mapping[str, Example]
    base: BaseExample | None = None


AnyExample: TypeAlias = Example | SetExample


def lora_config(**changes: Any) -> dict[str, Any]:
    """A plain LoRA config for ``q_proj`` and ``v_proj`` of a causal language model; ``...`` removes a key."""
    config: dict[str, Any] = {
        "base_model_name_or_path": "example/tiny-llama",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 4,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    config.update(changes)
    return {key: value for key, value in config.items() if value is not ...}


def lora_pair(module: str, r: int = 4, inputs: int = 16, outputs: int = 16, dtype: str = "F32") -> dict[str, Any]:
    """The two canonical LoRA tensors of a linear module."""
    stem = f"base_model.model.{module}"
    return {f"{stem}.lora_A.weight": (dtype, (r, inputs)), f"{stem}.lora_B.weight": (dtype, (outputs, r))}


def llama_tensors(r: int = 4, layers: int = 2, leaves: tuple[str, ...] = ("q_proj", "v_proj")) -> dict[str, Any]:
    """LoRA pairs for attention modules of a two-layer model."""
    found: dict[str, Any] = {}
    for layer in range(layers):
        for leaf in leaves:
            found.update(lora_pair(f"model.layers.{layer}.self_attn.{leaf}", r))
    return found


def llama_base(layers: int = 2, tied: bool = False) -> BaseExample:
    """A tiny Llama for causal language modelling: hidden 16, vocabulary 48."""
    tensors: dict[str, Any] = {"model.embed_tokens.weight": ("F32", (48, 16)), "model.norm.weight": ("F32", (16,))}
    if not tied:
        tensors["lm_head.weight"] = ("F32", (48, 16))
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        for leaf in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{stem}.self_attn.{leaf}.weight"] = ("F32", (16, 16))
        for leaf in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{stem}.{leaf}.weight"] = ("F32", (16,))
        for leaf, shape in (("gate_proj", (32, 16)), ("up_proj", (32, 16)), ("down_proj", (16, 32))):
            tensors[f"{stem}.mlp.{leaf}.weight"] = ("F32", shape)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 16,
        "vocab_size": 48,
        "num_hidden_layers": layers,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
    }
    return BaseExample(config, tensors)


def bert_base(layers: int = 2) -> BaseExample:
    """A tiny Bert for sequence classification: hidden 16, three labels."""
    embeddings = {"word_embeddings": 48, "position_embeddings": 32, "token_type_embeddings": 2}
    tensors: dict[str, Any] = {
        f"bert.embeddings.{name}.weight": ("F32", (rows, 16)) for name, rows in embeddings.items()
    }
    linear = {"bert.pooler.dense": (16, 16), "classifier": (3, 16)}
    norms = ["bert.embeddings.LayerNorm"]
    for layer in range(layers):
        stem = f"bert.encoder.layer.{layer}"
        linear |= {f"{stem}.attention.self.{leaf}": (16, 16) for leaf in ("query", "key", "value")}
        linear |= {f"{stem}.attention.output.dense": (16, 16), f"{stem}.intermediate.dense": (32, 16)}
        linear |= {f"{stem}.output.dense": (16, 32)}
        norms += [f"{stem}.attention.output.LayerNorm", f"{stem}.output.LayerNorm"]
    for module, shape in linear.items():
        tensors |= {f"{module}.weight": ("F32", shape), f"{module}.bias": ("F32", shape[:1])}
    for module in norms:
        tensors |= {f"{module}.weight": ("F32", (16,)), f"{module}.bias": ("F32", (16,))}
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "max_position_embeddings": 32,
        "vocab_size": 48,
        "id2label": {str(label): f"LABEL_{label}" for label in range(3)},
        "label2id": {f"LABEL_{label}": label for label in range(3)},
    }
    return BaseExample(config, tensors)


def bert_tensors(r: int = 4, layers: int = 2) -> dict[str, Any]:
    """LoRA pairs for query and value of the tiny Bert."""
    found: dict[str, Any] = {}
    for layer in range(layers):
        for leaf in ("query", "value"):
            found.update(lora_pair(f"bert.encoder.layer.{layer}.attention.self.{leaf}", r))
    return found


def bert_config(**changes: Any) -> dict[str, Any]:
    """A plain LoRA config for the tiny Bert, without a task type."""
    return lora_config(**{"target_modules": ["query", "value"], "task_type": None, **changes})


def renamed(tensors: Shapes, change: Any) -> dict[str, Any]:
    """The same tensors under other names: ``change`` maps each name."""
    return {change(name): entry for name, entry in tensors.items()}


def safetensors_bytes(tensors: Shapes, fill: str = "ramp", seed: int = 0) -> bytes:
    """A small safetensors file: header, then data that is distinct per tensor and finite unless asked otherwise."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for number, (name, (dtype, shape)) in enumerate(tensors.items()):
        count = 1
        for size in shape:
            count *= size
        begin = len(data)
        data += _payload(dtype, count, fill, seed + number)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _payload(dtype: str, count: int, fill: str, number: int) -> bytes:
    width = _BITS.get(dtype, 8) // 8
    if fill == "zero":
        return bytes(width * count)
    values = [((index * 7 + number * 13) % 29 - 14) / 64 for index in range(count)]
    if fill == "nan" and values:
        values[-1] = float("nan")
    if dtype == "F32":
        return struct.pack(f"<{count}f", *values)
    if dtype == "F64":
        return struct.pack(f"<{count}d", *values)
    if dtype == "F16":
        return struct.pack(f"<{count}e", *values)
    if dtype == "BF16":
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    return bytes((index * 7 + number) % 100 for index in range(width * count))


def write(example: Example, directory: Path) -> Path:
    """Write one adapter directory and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    if example.config is not None:
        data = example.config
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, bytes):
            data = json.dumps(data, indent=2).encode()
        (directory / "adapter_config.json").write_bytes(data)
    if example.tensors is not None:
        (directory / example.weights).write_bytes(safetensors_bytes(example.tensors, example.fill))
    for name, content in example.files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return directory


def write_base(base: BaseExample, directory: Path) -> Path:
    """Write a base model directory and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(dict(base.config), indent=2))
    (directory / "model.safetensors").write_bytes(safetensors_bytes(base.tensors, seed=1000))
    return directory


def write_any(example: AnyExample, directory: Path) -> tuple[list[Path], Path | None]:
    """Write an adapter or a set below ``directory``; returns the adapter directories and the base."""
    base = write_base(example.base, directory / "base") if example.base else None
    if isinstance(example, Example):
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in example.beside.items():
            (directory / name).write_bytes(content)
        return [write(example, directory / "adapter")], base
    return [write(member, directory / name) for name, member in example.members.items()], base
