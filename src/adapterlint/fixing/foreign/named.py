"""Tensors named by kohya's scripts or MLX beside a config of PEFT's: the names change, the config stays.

The config gives the scale, for whoever wrote it had PEFT in mind. That is a choice (the tool whose names these are may
have meant its own scale), so the fix is an unsafe one. Where the file states a scale too, the two must agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isclose

from adapterlint.findings import Edit
from adapterlint.fixing.foreign import kohya
from adapterlint.fixing.foreign.layers import CannotConvertError, Layer, Matrix, required, tensor_edits, weights_file
from adapterlint.fixing.foreign.scalar import scalar
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import Subject
from adapterlint.rules.files.foreign_format import KOHYA, Foreign

_KOHYA = {".lora_down.weight": "lora_down", ".lora_up.weight": "lora_up", ".alpha": "alpha", ".dora_scale": "other"}
_MLX = {".lora_a": "lora_a", ".lora_b": "lora_b", ".m": "other"}


def edits(subject: Subject, found: Foreign) -> tuple[Edit, ...]:
    """The edits that give the tensors PEFT's names. Raises CannotConvertError."""
    adapter = subject.adapter
    if adapter.peft_type != "LORA":
        raise CannotConvertError(f"its tensors are LoRA, and its peft_type is {adapter.peft_type}")
    file, tensors = weights_file(subject, found.file)
    of_kohya = found.format == KOHYA
    endings, a_part, b_part = (_KOHYA, "lora_down", "lora_up") if of_kohya else (_MLX, "lora_a", "lora_b")
    layers, dropped = [], []
    for path, parts in _by_path(tensors, endings, {a_part, b_part}).items():
        if "other" in parts:
            raise CannotConvertError(
                f"{parts['other']} belongs to DoRA, which is not converted beside a config of PEFT's"
            )
        a, b = required(parts, path, a_part), required(parts, path, b_part)
        if any(len(tensors[name].shape) != 2 for name in (a, b)):
            raise CannotConvertError(f"{a} and its partner are no matrices: only linear layers can be converted")
        module = _module(subject, path, of_kohya)
        rank = tensors[a].shape[0] if of_kohya else tensors[a].shape[1]
        turned = not of_kohya
        if turned and rank != peft.rank(adapter, module) and tensors[a].shape[0] == peft.rank(adapter, module):
            rank, turned = tensors[a].shape[0], False  # only the names are MLX's
        try:
            scale = peft.scale(adapter, module)
        except ValueError as error:
            raise CannotConvertError(str(error)) from None
        layers.append(Layer(module, Matrix(a, turned), Matrix(b, turned), rank, rank * scale))
        if "alpha" in parts:
            _require_same(scalar(adapter.path, tensors[parts["alpha"]]), layers[-1], parts["alpha"])
            dropped.append(parts["alpha"])
    return tensor_edits(subject, file, layers, dropped)


def _by_path(tensors: Iterable[str], endings: dict[str, str], wanted: set[str]) -> dict[str, dict[str, str]]:
    """Names by path and part, for the paths that have a matrix; what else is stored is PEFT's own."""
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        for ending, part in endings.items():
            if name.endswith(ending):
                parts = found.setdefault(name.removesuffix(ending).removeprefix(PREFIX), {})
                if part in parts:
                    raise CannotConvertError(f"it holds {parts[part]} and {name}, which are the same for PEFT")
                parts[part] = name
    return {path: parts for path, parts in found.items() if wanted & parts.keys()}


def _module(subject: Subject, path: str, of_kohya: bool) -> str:
    if "." in path or not of_kohya:
        return path
    if subject.base is None:
        raise CannotConvertError("only the base can tell which modules its names mean: give --base")
    return kohya.module(path, kohya.paths(subject.base))


def _require_same(alpha: float, layer: Layer, name: str) -> None:
    if not isclose(alpha, layer.alpha, rel_tol=1e-6):
        raise CannotConvertError(
            f"{name} is {alpha:g}, and the config's scale is that of {layer.alpha:g}: which one holds cannot be told"
        )
