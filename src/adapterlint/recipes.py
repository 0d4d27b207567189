"""Model -> recipes: what an adapter was trained to mean, for the reference that ``verify`` compares with."""

from __future__ import annotations

from typing import Any

from adapterlint.findings import SAFETENSORS_FILE
from adapterlint.model import peft
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.keys import Kind
from adapterlint.model.keytable import ModuleTensors
from adapterlint.model.subject import Subject
from adapterlint.verifying.recipe import DeltaKind, LoraDelta, Recipe, SavedParameter, TokenRows


def recipe(subject: Subject) -> Recipe:
    """The meaning of one adapter: every stored tensor at its canonical place, whatever PEFT makes of the name.

    An adapter of another method, or one whose effect no reference without PEFT can give, is marked not mergeable.
    """
    adapter = subject.adapter
    reason = _not_mergeable(adapter)
    weights = adapter.weights_file or SAFETENSORS_FILE
    if reason is not None:
        return Recipe(adapter.name, adapter.path, weights, mergeable=False, reason=reason)
    deltas = [_delta(adapter, subject.base, entry) for entry in adapter.modules.values() if entry.a and entry.b]
    return Recipe(
        name=adapter.name,
        path=adapter.path,
        weights_file=weights,
        deltas=tuple(delta for delta in deltas if delta is not None),
        saved=tuple(_saved(adapter)),
        tokens=tuple(_tokens(adapter, subject.base)),
    )


def _not_mergeable(adapter: Adapter) -> str | None:
    if not adapter.readable:
        return "config or weights cannot be read"
    if not adapter.is_lora:
        return f"{adapter.peft_type} is compared with itself, loaded alone"
    if adapter.get("layer_replication") or adapter.get("target_parameters"):
        return "layer_replication and target_parameters change the model's structure"
    init = adapter.get("init_lora_weights")
    if isinstance(init, str) and init.startswith(("pissa", "olora", "corda", "loftq")):
        return f"init_lora_weights={init!r} changes the base's weights"
    return None


def _delta(adapter: Adapter, base: Base | None, entry: ModuleTensors) -> LoraDelta | None:
    assert entry.a is not None and entry.b is not None
    kind: DeltaKind = "embedding" if entry.a.kind is Kind.EMBEDDING_A else "linear"
    if kind == "linear" and base is not None and base.kind(entry.module) == "conv":
        kind = "conv"
    try:
        factor = peft.scale(adapter, entry.module)
    except ValueError:
        return None
    magnitude = entry.by_kind.get(Kind.MAGNITUDE)
    bias = entry.by_kind.get(Kind.LORA_BIAS)
    return LoraDelta(
        module=entry.module,
        kind=kind,
        a=entry.a.name,
        b=entry.b.name,
        scale=factor,
        magnitude=magnitude.name if magnitude else None,
        bias=bias.name if bias else None,
        fan_in_fan_out=adapter.get("fan_in_fan_out") is True,
    )


def _saved(adapter: Adapter) -> list[SavedParameter]:
    found = [SavedParameter(name, key.name) for name, key in adapter.saved.items()]
    for key in adapter.keys:
        if key.kind is Kind.BASE_LAYER:
            found.append(SavedParameter(f"{key.module}.{key.parameter}", key.name))
    return found


def _tokens(adapter: Adapter, base: Base | None) -> list[TokenRows]:
    indices: Any = adapter.get("trainable_token_indices")
    found = []
    for key in adapter.keys:
        if key.kind is not Kind.TOKENS:
            continue
        chosen = indices
        if isinstance(indices, dict):
            chosen = next((value for name, value in indices.items() if key.module.endswith(name)), None)
        if isinstance(chosen, list) and all(isinstance(index, int) for index in chosen):
            found.append(TokenRows(f"{key.module}.weight", key.name, tuple(chosen)))
            if base is not None and base.tied and key.module == base.embedding:
                found += [TokenRows(f"{head}.weight", key.name, tuple(chosen)) for head in base.tied_heads]
    return found
