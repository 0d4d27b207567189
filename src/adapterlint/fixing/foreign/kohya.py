"""kohya's scripts: ``lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight``, ``….lora_up.weight``, ``….alpha``.

A layer adds ``alpha / rank * lora_up @ lora_down`` to its weight; without ``alpha`` the scale is 1. Its name is the
module's path with ``_`` for every dot, which only the base can take apart. Source: sd-scripts ``networks/lora.py``
(``create_network_from_weights``) and diffusers 0.42.1 ``loaders/lora_conversion_utils.py``, which agree.
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
from adapterlint.fixing.foreign.scalar import scalar
from adapterlint.model.base import Base
from adapterlint.model.subject import Subject
from adapterlint.rules.files.foreign_format import Foreign

_TEXT = re.compile(r"lora_te\d?")
_PARTS = {"lora_down.weight": "lora_down", "lora_up.weight": "lora_up", "alpha": "alpha"}


def edits(subject: Subject, found: Foreign) -> tuple[Edit, ...]:
    """The edits that make an adapter of PEFT. Raises CannotConvertError."""
    adapter, base = subject.adapter, subject.base
    file, tensors = weights_file(subject, found.file)
    stored = pairs(tensors, _part_of)
    _require_one_text_model(stored)
    if base is None:
        raise CannotConvertError("only the base can tell which modules its names mean: give --base")
    known = paths(base)
    layers, dropped = [], []
    for flat, parts in stored.items():
        a, b = Matrix(required(parts, flat, "lora_down")), Matrix(required(parts, flat, "lora_up"))
        rank = shape(tensors, a)[0]
        alpha = float(rank)
        if "alpha" in parts:
            alpha = scalar(adapter.path, tensors[parts["alpha"]])
            dropped.append(parts["alpha"])
            if alpha == 0:  # the scripts never store it: asked for 0, they train with the rank
                raise CannotConvertError(f"{parts['alpha']} is 0, which the scripts and their readers take differently")
        layers.append(Layer(module(flat, known), a, b, rank, alpha))
    return to_edits(subject, file, layers, dropped)


def _part_of(name: str) -> tuple[str, str] | None:
    flat, _, part = name.partition(".")
    return (flat, _PARTS[part]) if part in _PARTS else None


def _require_one_text_model(stored: dict[str, dict[str, str]]) -> None:
    found = {match[0] if (match := _TEXT.match(flat)) else flat.partition("_")[0] for flat in stored}
    others = [flat for flat in stored if _TEXT.match(flat) is None]
    if others:
        raise CannotConvertError(f"it adapts {others[0]}, which is of no text model: PEFT adapters are for one model")
    if len(found) > 1:
        raise CannotConvertError(
            f"it adapts {len(found)} models ({', '.join(sorted(found))}): PEFT adapters are for one"
        )


def paths(base: Base) -> dict[str, list[str]]:
    """The base's modules by their path with ``_`` for every dot."""
    found: dict[str, list[str]] = {}
    for path in base.modules:
        if base.kind(path) == "linear":
            found.setdefault(path.replace(".", "_"), []).append(path)
    return found


def module(flat: str, known: dict[str, list[str]]) -> str:
    """The module that a name means, of those of ``paths``. Raises CannotConvertError."""
    start = _TEXT.match(flat)
    name = flat[start.end() + 1 :] if start else flat
    # transformers 5 has no ``text_model`` in front of the encoder any more.
    found = known.get(name) or known.get(name.removeprefix("text_model_")) or []
    if len(found) != 1:
        said = f"any of {', '.join(found)}" if found else "no linear layer of the base"
        raise CannotConvertError(f"{flat} means {said}")
    return found[0]
