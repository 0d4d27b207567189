"""torchtune's own checkpoint: ``adapter_model.pt`` with ``layers.0.attn.q_proj.lora_a.weight``.

A layer adds ``alpha / rank * lora_b @ lora_a`` to its weight. The rows of the query and key projections are in the
order of Meta's rotary embedding: two halves of each head interleaved, where transformers has one behind the other.
torchtune's Qwen2 keeps the order of transformers. Source: torchtune 0.6.1, ``models/convert_weights.py``,
``modules/peft``; the magnitudes of DoRA, which its own export leaves in the old order, are put in the new one here.
"""

from __future__ import annotations

import re

from adapterlint.findings import Edit
from adapterlint.fixing.foreign.layers import (
    CannotConvertError,
    Layer,
    Matrix,
    pairs,
    required,
    shape,
    to_edits,
    weights_file,
)
from adapterlint.model.base import Base
from adapterlint.model.subject import Subject
from adapterlint.rules.files.foreign_format import Foreign

_INTERLEAVED = frozenset({"llama", "mistral", "gemma", "gemma2"})
_IN_HALVES = frozenset({"qwen2"})
_MODULES = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}
_PARTS = {"lora_a.weight": "lora_a", "lora_b.weight": "lora_b", "magnitude": "magnitude"}
_NAME = re.compile(r"(?:layers\.(\d+)\.(\w+\.\w+)|(output))\.(lora_a\.weight|lora_b\.weight|magnitude)")


def edits(subject: Subject, found: Foreign) -> tuple[Edit, ...]:
    """The edits that make an adapter of PEFT. Raises CannotConvertError."""
    adapter, base = subject.adapter, subject.base
    if base is None:
        raise CannotConvertError("the order of its rows depends on the base's heads: give --base")
    if base.model_type not in _INTERLEAVED | _IN_HALVES:
        text = f"torchtune's names and order of rows are not known for a base of type {base.model_type!r}"
        raise CannotConvertError(text)
    alpha = adapter.get("lora_alpha")
    if type(alpha) not in (int, float):
        raise CannotConvertError("no adapter_config.json states lora_alpha, without which its scale is not known")
    file, tensors = weights_file(subject, found.file)
    layers = []
    for module, parts in pairs(tensors, _part_of).items():
        a, b = Matrix(required(parts, module, "lora_a")), Matrix(required(parts, module, "lora_b"))
        rows = _rows(base, module, shape(tensors, b)[0])
        magnitude = Matrix(parts["magnitude"], rows=rows) if "magnitude" in parts else None
        layers.append(Layer(module, a, b._replace(rows=rows), shape(tensors, a)[0], float(alpha), magnitude=magnitude))
    if len({layer.magnitude is None for layer in layers}) > 1:
        raise CannotConvertError("some layers have a magnitude and others do not")
    if type(adapter.get("r")) is int and any(layer.rank != adapter.get("r") for layer in layers):
        raise CannotConvertError(f"the config says r={adapter.get('r')}, and the tensors are of another rank")
    where = adapter.get("base_model_name_or_path")
    return to_edits(subject, file, layers, (), task_type="CAUSAL_LM",
                    base_model_name_or_path=where if isinstance(where, str) else None)  # fmt: skip


def _part_of(name: str) -> tuple[str, str] | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    number, module, output, part = match.groups()
    if output:
        return "lm_head", _PARTS[part]
    return (f"model.layers.{number}.{_MODULES[module]}", _PARTS[part]) if module in _MODULES else None


def _rows(base: Base, module: str, count: int) -> tuple[int, ...] | None:
    """Which stored row comes next, in transformers' order; None if the order is the same."""
    leaf = module.rpartition(".")[2]
    if leaf not in ("q_proj", "k_proj") or base.model_type in _IN_HALVES:
        return None
    heads = base.config.get("num_attention_heads")
    if leaf == "k_proj":
        heads = base.config.get("num_key_value_heads", heads)
    if type(heads) is not int or heads < 1 or count % heads or count // heads % 2:
        raise CannotConvertError(f"{module} has {count} rows, which are not {heads} heads of an even size")
    size = count // heads
    declared = base.config.get("head_dim")
    if type(declared) is int and declared != size:
        raise CannotConvertError(f"{module} has heads of {size} rows, and the base's config says {declared}")
    return tuple(
        head * size + 2 * step + half for head in range(heads) for half in range(2) for step in range(size // 2)
    )
