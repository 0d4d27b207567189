"""MLX (mlx-lm): ``adapters.safetensors`` beside a config with ``lora_parameters``.

A linear layer adds ``scale * lora_b.T @ lora_a.T`` to its weight, an embedding ``scale * lora_a @ lora_b``; DoRA (a
tensor ``m``) then gives each row the length that ``m`` says. Source: mlx-lm 0.32.2, ``tuner/lora.py``, ``dora.py``.
"""

from __future__ import annotations

import re
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
from adapterlint.model.adapter import Adapter
from adapterlint.model.subject import Subject
from adapterlint.rules.files.foreign_format import Foreign

_FILE = "adapters.safetensors"
_PARTS = ("lora_a", "lora_b", "m")
# Modules that have the same names, and the same order of rows, in MLX and in transformers.
_SAME_IN_BOTH = re.compile(r"model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)")


def edits(subject: Subject, found: Foreign) -> tuple[Edit, ...]:
    """The edits that make an adapter of PEFT. Raises CannotConvertError."""
    adapter = subject.adapter
    rank, scale = _parameters(adapter)
    file, tensors = weights_file(subject, _FILE if _FILE in adapter.other_tensors else found.file)
    layers = []
    for module, parts in pairs(tensors, _part_of).items():
        embedding = _is_embedding(subject, module)
        a, b = required(parts, module, "lora_a"), required(parts, module, "lora_b")
        magnitude = Matrix(parts["m"]) if "m" in parts else None
        layer = Layer(module, Matrix(a, turned=True), Matrix(b, turned=True), rank, scale * rank, embedding, magnitude)
        if embedding and magnitude is not None:
            raise CannotConvertError(f"{module} is an embedding with DoRA, of which PEFT has another definition")
        shape(tensors, layer.a)
        layers.append(layer)
    _require_all_or_none(layers, adapter)
    return to_edits(subject, file, layers, (), task_type="CAUSAL_LM", **_extras(adapter))


def _parameters(adapter: Adapter) -> tuple[int, float]:
    kind = adapter.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise CannotConvertError(f"fine_tune_type is {kind!r}: its tensors are whole weights, not an adapter")
    parameters = adapter.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise CannotConvertError("the config has no lora_parameters, so that rank and scale are not known")
    if "alpha" in parameters:
        raise CannotConvertError("lora_parameters has an alpha, which old and new releases of mlx-lm take differently")
    rank, scale = parameters.get("rank"), parameters.get("scale")
    if type(rank) is not int or not isinstance(scale, int | float) or isinstance(scale, bool):
        raise CannotConvertError("lora_parameters does not state rank and scale as numbers")
    return rank, float(scale)


def _part_of(name: str) -> tuple[str, str] | None:
    module, _, part = name.rpartition(".")
    return (module, part) if module and part in _PARTS else None


def _is_embedding(subject: Subject, module: str) -> bool:
    base = subject.base
    if base is None:
        if _SAME_IN_BOTH.fullmatch(module) is None:
            raise CannotConvertError(
                f"whether {module} is a module of transformers only the base can tell: give --base"
            )
        return False
    if base.kind(module) != "embedding":
        return False
    if base.tied:
        raise CannotConvertError(f"{module} is tied to the output, which MLX adapts too and PEFT does not")
    return True


def _require_all_or_none(layers: list[Layer], adapter: Adapter) -> None:
    wanted = adapter.get("fine_tune_type") == "dora"
    for layer in layers:
        if (layer.magnitude is not None) != wanted:
            said = "lacks m" if wanted else "has m"
            text = f"{layer.module} {said}, and fine_tune_type is {adapter.get('fine_tune_type', 'lora')!r}"
            raise CannotConvertError(text)


def _extras(adapter: Adapter) -> dict[str, Any]:
    """What is known beside the layers: the dropout, and the base if it is not one of MLX's own conversions."""
    found: dict[str, Any] = {}
    dropout = adapter.get("lora_parameters", {}).get("dropout")
    if type(dropout) in (int, float) and 0 <= dropout < 1:
        found["lora_dropout"] = dropout
    model = adapter.get("model")
    if isinstance(model, str) and not model.startswith("mlx-community/"):
        found["base_model_name_or_path"] = model
    return found
