"""Models whose modules transformers has renamed: two sets of paths for one checkpoint.

transformers 4.52 moved the parts of vision-language models below ``model.``; 5.0 put the experts of a layer into two
stacked parameters. Checkpoints kept their names, adapters have those of the release that wrote them.
Sources: ``_checkpoint_conversion_mapping`` of the model classes (4.57.1), ``conversion_mapping.py`` (5.23.0), PEFT's
``utils/save_and_load.py`` and ``utils/transformers_weight_conversion.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base

_Moves = tuple[tuple[str, str], ...]

_WRAPPED: _Moves = (
    ("language_model.model", "model.language_model"),
    ("language_model.lm_head", "lm_head"),
    *((name, f"model.{name}") for name in ("vision_tower", "multi_modal_projector", "image_newline", "vision_model")),
    *((name, f"model.{name}") for name in ("image_tower", "video_tower", "vision_embed_tokens")),
)
_BESIDE: _Moves = (("visual", "model.visual"), ("model", "model.language_model"))
_MOVES: dict[str, _Moves] = {
    **dict.fromkeys(
        (
            *("aria", "aya_vision", "fuyu", "gemma3", "got_ocr2", "internvl", "llava", "llava_next"),
            *("llava_next_video", "llava_onevision", "mistral3", "mllama", "paligemma", "video_llava", "vipllava"),
        ),
        _WRAPPED,
    ),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), _BESIDE),
}
_EXPERT = re.compile(r"(?:.*\.)?experts\.\d+\.([^.]+)")
# Models whose adapters PEFT 0.20 and later carry over to stacked experts.
_CARRIED_OVER = frozenset(
    {"mixtral", "minimax", "afmoe", "deepseek_v2", "deepseek_v3", "dots1", "ernie4_5_moe", "flex_olmo", "glm4_moe"}
    | {"hunyuan_v1_moe", "longcat_flash", "olmoe", "qwen3_moe", "qwen3_next"}
)
_FUSED = (frozenset({"w1", "w3"}), frozenset({"gate_proj", "up_proj"}))


def moves(model_type: str) -> _Moves:
    """Old and new beginnings of module paths of a model type; none for most."""
    return _MOVES.get(model_type, ())


def moved(path: str, beginnings: _Moves) -> str:
    """A path of the old layout in the new one."""
    for old, new in beginnings:
        if (path == old or path.startswith(old + ".")) and not path.startswith(new + "."):
            return new + path[len(old) :]
    return path


def _moved_back(path: str, beginnings: _Moves) -> str:
    return moved(path, tuple((new, old) for old, new in beginnings))


def is_new(names: Iterable[str], beginnings: _Moves) -> bool:
    """Whether names are those of the new layout."""
    starts = tuple(f"{new}." for _, new in beginnings if "." in new)
    return any(name.startswith(starts) for name in names)


@lru_cache(maxsize=16)
def twin(base: Base) -> Base | None:
    """The base with the paths of the other layout; None where transformers renamed nothing."""
    beginnings = moves(base.model_type)
    if not beginnings:
        return None
    change = _moved_back if is_new(base.stored, beginnings) else moved
    stored = {change(name, beginnings): tensor for name, tensor in base.stored.items()}
    return (
        replace(base, stored=stored)
        if len(stored) == len(base.stored) and stored.keys() != base.stored.keys()
        else None
    )


def renamed_by_five(model_type: str) -> bool:
    """Whether PEFT 0.19 and later rename old names of an adapter beside transformers 5."""
    return moves(model_type) is _WRAPPED


def _of_five(base: Base) -> Base:
    """The new layout as transformers 5 has it: without ``vision_model`` in the vision tower."""
    part = "vision_tower.vision_model."
    return replace(base, stored={name.replace(part, "vision_tower."): tensor for name, tensor in base.stored.items()})


@lru_cache(maxsize=16)
def _layouts(base: Base) -> tuple[Base, ...]:
    other = twin(base)
    if other is None:
        return (base,)
    return base, other, _of_five(base if is_new(base.stored, moves(base.model_type)) else other)


def fitting(adapter: Adapter, base: Base) -> Base:
    """The base with the paths that the adapter uses, if transformers has had both."""
    known = _layouts(base)
    if len(known) == 1:
        return base
    modules = {key.module for key in adapter.keys if key.module}
    return max(known, key=lambda layout: len(modules & layout.modules.keys()))


def expert_leaf(module: str) -> str | None:
    """The last name of a module of a single expert; None for others."""
    found = _EXPERT.fullmatch(module)
    return found[1] if found else None


def half_of_one(model_type: str, leaves: Iterable[str]) -> tuple[str, str] | None:
    """A leaf of experts, and the one that it lacks to be the parameter that both are in transformers 5."""
    there = set(leaves)
    for pair in _FUSED if model_type in _CARRIED_OVER else ():
        if len(pair & there) == 1:
            return min(pair & there), min(pair - there)
    return None


def carried_over(model_type: str, modules: Iterable[str]) -> bool:
    """Whether PEFT 0.20 and later load LoRA on single experts where transformers 5 has stacked them.

    It makes parameters of the leaves that are targets, so that equal leaves outside the experts are lost; and two that
    are one parameter now need each other.
    """
    leaves = {module: expert_leaf(module) for module in modules}
    experts = {leaf for leaf in leaves.values() if leaf}
    outside = {module.rpartition(".")[2] for module, leaf in leaves.items() if leaf is None}
    return model_type in _CARRIED_OVER and half_of_one(model_type, experts) is None and not experts & outside
