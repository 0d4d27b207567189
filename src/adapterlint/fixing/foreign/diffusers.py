"""diffusers, for a text encoder: ``text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight``.

A layer adds ``lora_alpha / r * lora_B @ lora_A`` to its weight. Both are in the metadata (``lora_adapter_metadata``);
without it alpha is the rank, so that the scale is 1. Older files have ``lora_linear_layer.down`` or ``to_q_lora.down``
for the same. Source: diffusers 0.42.1 (``loaders/lora_base.py``, ``peft_utils.py`` and ``state_dict_utils.py``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

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
from adapterlint.model.subject import Subject
from adapterlint.reading.safetensors import read_header
from adapterlint.rules.files.foreign_format import Foreign

_METADATA = "lora_adapter_metadata"
_ENCODER = re.compile(r"text_encoder(_\d)?")
_DOWN = ("lora_A.weight", "lora_linear_layer.down.weight", "lora.down.weight")
_UP = ("lora_B.weight", "lora_linear_layer.up.weight", "lora.up.weight")
_PARTS = dict.fromkeys(_DOWN, "lora_A") | dict.fromkeys(_UP, "lora_B") | {"lora_magnitude_vector": "magnitude"}
_OLD = re.compile(r"(.*)\.to_(q|k|v|out)_lora\.(down|up)\.weight")
# Fields of LoraConfig that say where layers are, or how they are trained: both is known from the tensors, or no matter.
_PLAIN = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "r",
    "lora_alpha", "target_modules", "lora_dropout", "init_lora_weights", "use_rslora", "use_dora", "rank_pattern",
    "alpha_pattern", "peft_version", "megatron_core", "qalora_group_size", "runtime_config", "exclude_modules",
    "layers_to_transform", "layers_pattern",
})  # fmt: skip


def edits(subject: Subject, found: Foreign) -> tuple[Edit, ...]:
    """The edits that make an adapter of PEFT. Raises CannotConvertError."""
    file, tensors = weights_file(subject, found.file)
    roots = {name.partition(".")[0] for name in tensors}
    if len(roots) != 1 or _ENCODER.fullmatch(next(iter(roots))) is None:
        models = ", ".join(sorted(roots))
        raise CannotConvertError(f"it adapts {models}, and only an adapter for one text encoder can be one of PEFT")
    root = next(iter(roots))
    stated = _stated(subject, file, root)
    cut = len(root) + 1
    stored = pairs(tensors, lambda name: _part_of(name[cut:]))
    flat = subject.base is not None and not any(name.startswith("text_model.") for name in subject.base.modules)
    layers = []
    for module, parts in stored.items():
        a, b = Matrix(required(parts, module, "lora_A")), Matrix(required(parts, module, "lora_B"))
        rank = shape(tensors, a)[0]
        magnitude = Matrix(parts["magnitude"]) if "magnitude" in parts else None
        # transformers 5 has no ``text_model`` in front of the encoder any more.
        path = module.removeprefix("text_model.") if flat else module
        layers.append(Layer(path, a, b, rank, _alpha(stated, module, rank), magnitude=magnitude))
    if len({layer.magnitude is None for layer in layers}) > 1:
        raise CannotConvertError("some layers have a magnitude and others do not")
    return to_edits(subject, file, layers, ())


def _part_of(name: str) -> tuple[str, str] | None:
    name = name.replace(".processor.", ".")
    old = _OLD.fullmatch(name)
    if old is not None:
        module, which, side = old.groups()
        return f"{module}.{which}_proj", "lora_A" if side == "down" else "lora_B"
    for ending, part in _PARTS.items():
        if name.endswith("." + ending):
            return name[: -len(ending) - 1], part
    return None


def _stated(subject: Subject, file: str, root: str) -> Mapping[str, Any] | None:
    """The encoder's LoraConfig in the file's metadata, or None if there is no such metadata."""
    text = read_header(os.path.join(subject.adapter.path, file)).metadata.get(_METADATA)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CannotConvertError(f"its {_METADATA} cannot be read")
    own = {key[len(root) + 1 :]: value for key, value in found.items() if key.startswith(root + ".")}
    unknown = [key for key, value in own.items() if key not in _PLAIN and value not in (None, False, {}, [], "none")]
    if unknown:
        raise CannotConvertError(f"its {_METADATA} has {', '.join(sorted(unknown))}, which is not converted")
    return own or None


def _alpha(stated: Mapping[str, Any] | None, module: str, rank: int) -> float:
    """The alpha of a layer, such that ``alpha / rank`` is its scale."""
    if stated is None:
        return float(rank)
    found = _by_pattern(stated.get("alpha_pattern"), module, stated.get("lora_alpha"))
    if type(found) not in (int, float) or _by_pattern(stated.get("rank_pattern"), module, stated.get("r")) != rank:
        raise CannotConvertError(f"its {_METADATA} does not state the rank and alpha that {module} has")
    return float(found) * rank**0.5 if stated.get("use_rslora") else float(found)


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """What PEFT takes from ``rank_pattern`` or ``alpha_pattern`` for a module."""
    if not isinstance(patterns, dict):
        return default
    return next((value for key, value in patterns.items() if _matches(key, module)), default)


def _matches(pattern: str, module: str) -> bool:
    if any(char in pattern for char in "*+?{}()[]|^$\\"):
        raise CannotConvertError(f"its {_METADATA} has the pattern {pattern!r}, which is not converted")
    return module == pattern or module.endswith("." + pattern)
