"""What the foreign formats have in common: layers of two matrices and a scale, and the edits that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from adapterlint.findings import (
    SAFETENSORS_FILE,
    ConvertWeights,
    DropTensor,
    Edit,
    MakeTensor,
    RenameTensor,
    SetConfig,
    Term,
)
from adapterlint.fixing import terms
from adapterlint.model import peft
from adapterlint.model.base import Base
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.tensor import FLOAT_DTYPES, Tensor


class CannotConvertError(ValueError):
    """The adapter's meaning cannot be told, or PEFT has no layer for it; the text names the cause."""


class Matrix(NamedTuple):
    """A stored matrix of a layer.

    Attributes:
        name: its name in the file.
        turned: whether PEFT has it transposed.
        rows: the order that its rows get; None if it stays.
    """

    name: str
    turned: bool = False
    rows: tuple[int, ...] | None = None


class Layer(NamedTuple):
    """One adapted module: what is added to its weight is ``alpha / rank * B @ A``.

    Attributes:
        module: its path in the base.
        a: the down projection.
        b: the up projection.
        rank: of both.
        alpha: as defined above.
        embedding: whether the module is an embedding.
        magnitude: of DoRA.
    """

    module: str
    a: Matrix
    b: Matrix
    rank: int
    alpha: float
    embedding: bool = False
    magnitude: Matrix | None = None


def weights_file(subject: Subject, file: str) -> tuple[str, Mapping[str, Tensor]]:
    """The foreign weights file and its tensors; ``file`` is the one that showed the format, if it is one of weights."""
    adapter = subject.adapter
    if adapter.weights_file is not None:
        return adapter.weights_file, adapter.tensors
    if file in adapter.other_tensors:
        return file, adapter.other_tensors[file]
    if len(adapter.other_tensors) == 1:
        return next(iter(adapter.other_tensors.items()))
    if not adapter.other_tensors:
        raise CannotConvertError("there is no file with its tensors that can be read")
    raise CannotConvertError(f"several files may hold its tensors: {first_names(list(adapter.other_tensors))}")


def shape(tensors: Mapping[str, Tensor], matrix: Matrix) -> tuple[int, int]:
    """Shape of a matrix as PEFT has it."""
    tensor = tensors[matrix.name]
    if len(tensor.shape) != 2:
        raise CannotConvertError(f"{matrix.name} has shape {list(tensor.shape)}: only linear layers can be converted")
    rows, columns = tensor.shape
    return (columns, rows) if matrix.turned else (rows, columns)


def require_in_base(layers: Sequence[Layer], tensors: Mapping[str, Tensor], base: Base) -> None:
    """Every layer is a module of the base, and its matrices fit the module's weight."""
    for layer in layers:
        weight = base.modules.get(layer.module, {}).get("weight")
        if weight is None and layer.module in base.tied_heads and base.embedding:
            weight = base.modules[base.embedding]["weight"]
        if weight is None:
            raise CannotConvertError(f"the base has no module {layer.module}")
        rank, columns = shape(tensors, layer.a)
        rows, rank_b = shape(tensors, layer.b)
        wanted = (columns, rows) if layer.embedding or base.is_conv1d(layer.module) else (rows, columns)
        if rank != rank_b or (len(weight.shape) == 2 and weight.dtype in FLOAT_DTYPES and weight.shape != wanted):
            text = f"{layer.a.name} and its partner are for a weight of shape {list(wanted)}"
            raise CannotConvertError(f"{text}; the base's {layer.module} has {list(weight.shape)}")


def to_edits(
    subject: Subject, file: str, layers: Sequence[Layer], dropped: Sequence[str], **config: Any
) -> tuple[Edit, ...]:
    """The edits that turn the layers into an adapter of PEFT.

    Args:
        subject: the adapter as it is.
        file: its weights file.
        layers: what the file holds.
        dropped: tensors whose meaning is in the layers already.
        config: further fields of the config.
    """
    if not layers:
        raise CannotConvertError(f"{file} holds no layers")
    moves = tensor_edits(subject, file, layers, dropped)
    return SetConfig("", _config(subject.base, layers, config)), *moves


def tensor_edits(subject: Subject, file: str, layers: Sequence[Layer], dropped: Sequence[str]) -> tuple[Edit, ...]:
    """The part of ``to_edits`` that is about tensors."""
    _, tensors = weights_file(subject, file)
    for layer in layers:
        _require_consistent(layer, tensors)
    if subject.base is not None:
        require_in_base(layers, tensors, subject.base)
    edits: list[Edit] = []
    if file != SAFETENSORS_FILE:
        edits.append(ConvertWeights((file,)))
    edits += [DropTensor(name) for name in dropped]
    for layer in layers:
        start = f"{PREFIX}{layer.module}."
        names = ("lora_embedding_A", "lora_embedding_B") if layer.embedding else ("lora_A.weight", "lora_B.weight")
        edits += _moved(tensors, layer.a, start + names[0])
        edits += _moved(tensors, layer.b, start + names[1])
        if layer.magnitude is not None:
            edits += _moved(tensors, layer.magnitude, start + "lora_magnitude_vector")
    return tuple(edits)


def _require_consistent(layer: Layer, tensors: Mapping[str, Tensor]) -> None:
    a, b = shape(tensors, layer.a), shape(tensors, layer.b)
    if a[0] != layer.rank or b[1] != layer.rank:
        a_shape, b_shape = tensors[layer.a.name].shape, tensors[layer.b.name].shape
        text = f"{layer.a.name} {list(a_shape)} and {layer.b.name} {list(b_shape)} are not of rank {layer.rank}"
        raise CannotConvertError(text)
    if layer.rank < 1 or not layer.alpha == layer.alpha or abs(layer.alpha) == float("inf"):
        raise CannotConvertError(f"{layer.module} has rank {layer.rank} and alpha {layer.alpha}")
    if layer.magnitude is not None and tensors[layer.magnitude.name].shape != (b[0],):
        raise CannotConvertError(f"{layer.magnitude.name} does not have the {b[0]} elements of its layer")


def _moved(tensors: Mapping[str, Tensor], matrix: Matrix, name: str) -> list[Edit]:
    """A stored tensor under its new name, turned or with its rows in another order where that is needed."""
    tensor = tensors[matrix.name]
    if not matrix.turned and matrix.rows is None:
        return [RenameTensor(matrix.name, name)] if matrix.name != name else []
    if tensor.dtype not in FLOAT_DTYPES:
        raise CannotConvertError(f"{matrix.name} has dtype {tensor.dtype}: its elements cannot be put in another order")
    term: Term = terms.stored(matrix.name)
    if matrix.turned:
        term = terms.transposed(term)
    if matrix.rows is not None:
        term = terms.selected(term, 0, matrix.rows)
    new = tensor.shape[::-1] if matrix.turned else tensor.shape
    return [DropTensor(matrix.name), MakeTensor(name, tensor.dtype, new, term)]


def _config(base: Base | None, layers: Sequence[Layer], more: Mapping[str, Any]) -> dict[str, Any]:
    ranks = Counter(layer.rank for layer in layers)
    alphas = Counter(layer.alpha for layer in layers)
    rank, alpha = ranks.most_common(1)[0][0], alphas.most_common(1)[0][0]
    config: dict[str, Any] = {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": base is not None and any(base.is_conv1d(layer.module) for layer in layers),
        "inference_mode": True,
        "lora_alpha": _number(alpha),
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": targets([layer.module for layer in layers], base),
        "task_type": None,
    }
    if len(ranks) > 1:
        config["rank_pattern"] = {layer.module: layer.rank for layer in layers if layer.rank != rank}
    if len(alphas) > 1:
        config["alpha_pattern"] = {layer.module: _number(layer.alpha) for layer in layers if layer.alpha != alpha}
    if any(layer.magnitude is not None for layer in layers):
        config["use_dora"] = True
    return dict(sorted({**config, **more}.items()))


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def targets(modules: Sequence[str], base: Base | None) -> list[str]:
    """``target_modules``: last names where they select these modules and no others, else whole paths."""
    told = (
        _is_regular(modules) if base is None else base.modules.keys() >= set(modules)
    )  # a tied head is not among them
    return sorted(peft.names_for(modules, modules if base is None else base.modules) if told else modules)


def _is_regular(modules: Sequence[str]) -> bool:
    """Whether every layer from the first on has the same modules, as far as can be told without a base."""
    by_layer: dict[int, set[str]] = {}
    for module in modules:
        parts = module.split(".")
        place = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
        if place is None:
            return False
        by_layer.setdefault(int(parts[place]), set()).add(".".join((*parts[:place], *parts[place + 1 :])))
    return sorted(by_layer) == list(range(len(by_layer))) and len({frozenset(each) for each in by_layer.values()}) == 1


def pairs(tensors: Mapping[str, Tensor], part_of: Callable[[str], tuple[str, str] | None]) -> dict[str, dict[str, str]]:
    """Stored names by module and part; ``part_of`` takes a name apart, and gives None for one that it does not know."""
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        known = part_of(name)
        if known is None:
            raise CannotConvertError(f"it holds {name}, which no layer of the format has")
        module, part = known
        if part in found.setdefault(module, {}):
            raise CannotConvertError(f"it holds {part} of {module} twice: {found[module][part]} and {name}")
        found[module][part] = name
    return found


def required(parts: Mapping[str, str], module: str, part: str) -> str:
    """The name of a part that every layer has."""
    name = parts.get(part)
    if name is None:
        raise CannotConvertError(f"{module} has no {part}: it is incomplete")
    return name
