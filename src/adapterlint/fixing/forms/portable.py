"""The ``portable`` normal form: one adapter for every engine.

The whole scale is in B and ``lora_alpha`` equals ``r``, so that it does not matter how an engine works the scale out;
all ranks are the largest one; targets are a list; the config has the keys that PEFT 0.4 had and no others.
"""

from __future__ import annotations

from adapterlint.findings import DropTensor, Edit, RemoveConfig, pointer_to
from adapterlint.fixing.forms.common import (
    ALWAYS,
    FormError,
    Parts,
    config_edits,
    folded,
    plain_config,
    take_apart,
    targets_for,
)
from adapterlint.model.keys import Kind
from adapterlint.model.subject import Subject


def plan(member: Subject) -> tuple[Edit, ...]:
    """The edits of one adapter, its own names already canonical.

    Raises:
        FormError: it is no plain LoRA: no engine but PEFT would answer as it does, whatever the file looks like.
    """
    parts = take_apart(member)
    _require_portable(parts)
    adapter = member.adapter
    names = targets_for(adapter, member.base, parts.pairs)
    wanted = {**plain_config(parts, parts.rank, names), "init_lora_weights": True}
    kept = {key: value for key, value in wanted.items() if key in ALWAYS}
    foreign = [key for key in adapter.config or {} if key not in ALWAYS]
    return (
        *config_edits(adapter, kept),
        *(RemoveConfig(pointer_to(key)) for key in foreign),
        *(DropTensor(name) for name in parts.idle),
        *folded(parts, parts.rank),
    )


def _require_portable(parts: Parts) -> None:
    name = parts.name
    if not parts.pairs:
        raise FormError(f"{name} has no LoRA pair")
    for full in parts.saved:
        why = "differs from the base's"
        if parts.member.base is None:
            why = "can be left out only if it is the base's: give that with --base"
        raise FormError(f"{name} saves {full}, which {why}; the lowrank form makes LoRA of linear modules")
    for module, entry in parts.pairs.items():
        if Kind.LORA_BIAS in entry.by_kind:
            raise FormError(f"{name} has a bias of B in {module} (lora_bias), which only PEFT adds")
        if len(parts.shape(entry.a)) != 2:
            raise FormError(f"{name} has LoRA in the convolution {module}, which most engines refuse")
