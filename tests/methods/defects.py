"""Ways to break an adapter of any method, on plain arrays: no PEFT needed.

Every defect takes the config and the tensors of a healthy adapter and returns broken ones, or None where it does not
apply. ``mend`` names are harmless changes: an adapter must load all the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Config = dict[str, Any]
Tensors = dict[str, Any]
Change = Callable[[Config, Tensors], "tuple[Config, Tensors] | None"]

PREFIX = "base_model.model."
_LAYER = re.compile(r"\.(layers?)\.(\d+)\.")
_OWN = re.compile(
    r"\.((?:ia3|hada|lokr|oft|boft|vera_lambda|pvera_lambda|fourierft|hra|vblora_logits|bone|miss|randlora|shira|c3a|road"
    r"|delora|waveft|osf|gralora|adamss|tinylora|psoft|peanut|lily|beft|deft|frod|glora|hira|unilora|supertuning|poly"
    r"|lora|ln_tuning|trainable_tokens|adaption|shadow)_?[A-Za-z0-9_]*)(\..*)?$"
)


def own(name: str) -> bool:
    """Whether a tensor belongs to one module and to the method."""
    return name.startswith(PREFIX) and _OWN.search(name) is not None


def _rename(change: Callable[[str], str], only: Callable[[str], bool] = lambda name: True) -> Change:
    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        renamed = {change(name) if only(name) else name: value for name, value in tensors.items()}
        return None if renamed.keys() == tensors.keys() or len(renamed) != len(tensors) else (config, renamed)

    return apply


def _in_layer(number: int) -> Callable[[str], bool]:
    return lambda name: bool(own(name) and (m := _LAYER.search(name)) and int(m[2]) == number)


def _named(adapter: str) -> Callable[[str], str]:
    def change(name: str) -> str:
        if not own(name):
            return f"{name}.{adapter}" if re.fullmatch(r"base_model\.[a-zA-Z0-9_]+", name) else name
        match = _OWN.search(name)
        assert match is not None
        return name[: match.end(1)] + f".{adapter}" + (match[2] or "")

    return change


def _drop(which: Callable[[list[str]], list[str]]) -> Change:
    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        lost = set(which(list(tensors)))
        return None if not lost else (config, {k: v for k, v in tensors.items() if k not in lost})

    return apply


def _suffixes(names: list[str]) -> list[str]:
    found = [match[0] for name in names if own(name) and (match := _OWN.search(name))]
    return list(dict.fromkeys(found))


def _one(position: int) -> Callable[[list[str]], list[str]]:
    """One tensor of a kind, in one module."""

    def which(names: list[str]) -> list[str]:
        suffixes = _suffixes(names)
        if position >= len(suffixes):
            return []
        return [name for name in names if own(name) and name.endswith(suffixes[position])][:1]

    return which


def _kind(position: int) -> Callable[[list[str]], list[str]]:
    """Every tensor of a kind."""

    def which(names: list[str]) -> list[str]:
        suffixes = _suffixes(names)
        if position >= len(suffixes):
            return []
        return [name for name in names if own(name) and name.endswith(suffixes[position])]

    return which


def _shared(names: list[str]) -> list[str]:
    """What belongs to the whole model: a prompt, or what stands directly under ``base_model``."""
    prompts = [name for name in names if not name.startswith("base_model.")]
    return prompts or [name for name in names if not name.startswith(PREFIX)]


def _shape(which: Callable[[list[str]], list[str]], change: Callable[[Any], Any]) -> Change:
    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        names = which(list(tensors))
        changed = {name: change(tensors[name]) for name in names}
        if not names or any(changed[name].shape == tensors[name].shape for name in names):
            return None
        return config, {**tensors, **changed}

    return apply


def _longer(axis: int) -> Callable[[Any], Any]:
    def change(value: Any) -> Any:
        import numpy as np

        return np.concatenate([value, value.take([0], axis=axis)], axis=axis) if value.ndim > axis else value

    return change


def _extra(name: str, shape: tuple[int, ...]) -> Change:
    """A tensor of another method beside the first module's own."""

    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        import numpy as np

        if any(stored.endswith(name) for stored in tensors):
            return None

        modules = [name[: m.start()] for name in tensors if own(name) and (m := _OWN.search(name))]
        return (config, {**tensors, f"{modules[0]}.{name}": np.ones(shape, "float32")}) if modules else None

    return apply


def _set(*types: str, **values: Any) -> Change:
    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        meant = set(values) <= set(config) and (not types or config["peft_type"] in types)
        return ({**config, **values}, tensors) if meant else None

    return apply


def _step(key: str, by: int) -> Change:
    """Another number; left out where no shape shows it, so that nobody could tell."""

    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        value = None if config["peft_type"] in ("LOKR", "UNILORA") and key == "r" else config.get(key)
        number = isinstance(value, int) and not isinstance(value, bool) and value + by > 0
        return ({**config, key: value + by}, tensors) if number else None

    return apply


def _targets(change: Callable[[list[str]], Any], **more_options: Any) -> Change:
    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        targets = config.get("target_modules")
        if not isinstance(targets, list) or not targets or (config["peft_type"] == "UNILORA" and len(tensors) == 1):
            return None  # of UniLoRA's targets nothing else in the file may tell
        changed = change(sorted(targets))
        if changed is None:
            return None
        forward = config.get("feedforward_modules")
        more = {"feedforward_modules": [n for n in forward if n in changed]} if isinstance(forward, list) else {}
        if not set(more_options) <= set(config):
            return None
        return {**config, "target_modules": changed, **more, **more_options}, tensors

    return apply


def _null_targets(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
    return ({**config, "target_modules": None}, tensors) if isinstance(config.get("target_modules"), list) else None


def _head(change: Callable[[str], str | None]) -> Change:
    """Rename or (None) drop the tensors of a saved module."""

    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        heads = [
            n for n in tensors if re.search(r"\.(lm_head|classifier)\.(weight|bias)$", n) and "base_layer" not in n
        ]
        if not heads or not (config.get("modules_to_save") or config.get("task_type") == "SEQ_CLS"):
            return None
        found = {n: v for n, v in tensors.items() if n not in heads}
        for name in heads:
            new = change(name)
            if new:
                found[new] = tensors[name]
        return (config, found) if found.keys() != tensors.keys() else None

    return apply


def _infix(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    return f"{stem}.modules_to_save.default.{leaf}"


def _cast(dtype: str) -> Change:
    def apply(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
        return config, {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in tensors.items()}

    return apply


def _undeclare(config: Config, tensors: Tensors) -> tuple[Config, Tensors] | None:
    return ({**config, "modules_to_save": None}, tensors) if config.get("modules_to_save") else None


def _grow_first(names: list[str]) -> list[str]:
    return _one(0)(names)


DEFECTS: dict[str, Change] = {
    "prefix.none": _rename(lambda n: n.removeprefix(PREFIX)),
    "prefix.doubled": _rename(lambda n: PREFIX + n),
    "prefix.module": _rename(lambda n: "module." + n),
    "prefix.base": _rename(lambda n: n.replace(PREFIX, "base_model.", 1), own),
    "prefix.compiled": _rename(lambda n: n.replace(PREFIX, PREFIX + "_orig_mod.", 1), own),
    "prefix.one_layer": _rename(lambda n: n.replace(".0.", ".0._fsdp_wrapped_module.", 1), _in_layer(0)),
    "name.default": _rename(_named("default")),
    "name.other": _rename(_named("other")),
    "name.default_own": _rename(_named("default"), own),
    "name.one_layer": _rename(_named("default"), _in_layer(0)),
    "stray.renamed": _rename(lambda n: _OWN.sub(lambda m: f".unheard_{m[1][-3:]}{m[2] or ''}", n), _in_layer(0)),
    "stray.weight": _rename(lambda n: n + ".weight", own),
    "stray.no_weight": _rename(lambda n: n.removesuffix(".weight"), own),
    "stray.extra": _extra("lora_A.weight", (4, 16)),
    "stray.extra_ia3": _extra("ia3_l", (16, 1)),
    "targets.narrower": _targets(lambda names: names[:-1] if len(names) > 1 else None),
    "targets.other": _targets(lambda names: ["no_such_module"]),
    "targets.text": _targets(lambda names: names[0]),
    "targets.empty": _targets(lambda names: []),
    "targets.wider": _targets(lambda names: [*names, "o_proj", "key"]),
    "targets.wider_odd": _targets(lambda names: [*names, "up_proj", "word_embeddings"]),
    "targets.null": _null_targets,
    "layer.missing": _drop(lambda names: list(filter(_in_layer(1), names))),
    "layer.chosen": _targets(lambda names: names, layers_to_transform=[0]),
    "tensor.missing": _drop(_one(0)),
    "tensor.missing_second": _drop(_one(1)),
    "tensor.missing_third": _drop(_one(2)),
    "kind.missing": _drop(_kind(0)),
    "kind.missing_second": _drop(_kind(1)),
    "kind.missing_third": _drop(_kind(2)),
    "shared.missing": _drop(_shared),
    "shared.missing_first": _drop(lambda names: _shared(names)[:1]),
    "shared.longer": _shape(lambda names: _shared(names)[:1], _longer(0)),
    "shared.wider": _shape(lambda names: _shared(names)[-1:], _longer(1)),
    "shape.longer": _shape(_one(0), _longer(0)),
    "shape.wider": _shape(_one(0), _longer(1)),
    "shape.third_axis": _shape(_one(0), _longer(2)),
    "shape.second_longer": _shape(_one(1), _longer(0)),
    "shape.transposed": _shape(_one(0), lambda v: v.swapaxes(0, 1).copy() if v.ndim > 1 else v),
    "shape.flat": _shape(_one(0), lambda v: v.reshape(-1)),
    "shape.every": _shape(_kind(0), _longer(0)),
    "shape.zero": _shape(_one(0), lambda v: v.reshape(-1)[:0]),
    "shape.zero_every": _shape(lambda names: list(filter(own, names)), lambda v: v.reshape(-1)[:0]),
    "config.rank": _step("r", 1),
    "config.rank_down": _step("r", -1),
    "config.init_rank": _step("init_r", 1),
    "config.frequencies": _step("n_frequency", 3),
    "config.tokens": _step("num_virtual_tokens", 1),
    "config.block": _step("block_size", 4),
    "config.boft_block": _step("boft_block_size", 4),
    "config.oft_block": _step("oft_block_size", 4),
    "config.vectors": _step("num_vectors", 1),
    "config.vector_length": _step("vector_length", 8),
    "config.factor": _set(decompose_factor=2),
    "config.unsaved": _set(save_projection=False),
    "config.saved": _set(save_projection=True),
    "config.indices": _set(token_indices=[3, 5]),
    "config.topk": _set(save_only_topk_weights=True),
    "config.tasks": _step("num_tasks", 1),
    "config.ranks": _step("num_ranks", 1),
    "config.forward": _set(feedforward_modules=[]),
    "config.variant": _set(variant="road_2"),
    "config.depth": _step("depth", 1),
    "config.bat": _set("BONE", "MISS", init_weights="bat"),
    "config.plain": _set("BONE", "MISS", init_weights=True),
    "type.lora": _set(peft_type="LORA"),
    "type.loha": _set(peft_type="LOHA"),
    "type.vera": _set(peft_type="VERA"),
    "type.ia3": _set(peft_type="IA3"),
    "head.missing": _head(lambda n: None),
    "head.bias_only": _head(lambda n: n if n.endswith("bias") else None),
    "head.infix": _head(_infix),
    "head.prefix": _head(lambda n: n.replace(PREFIX, "", 1)),
    "head.undeclared": _undeclare,
    "empty": _drop(lambda names: names),
    "empty.own": _drop(lambda names: list(filter(own, names))),
    "mend.half": _cast("float16"),
}


def broken(directory: Path) -> Iterator[tuple[str, Config, Tensors]]:
    """Every way in which a healthy adapter can be broken: name, config, tensors."""
    from safetensors.numpy import load_file

    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = load_file(directory / "adapter_model.safetensors")
    yield "healthy", config, tensors
    for name, change in DEFECTS.items():
        result = change(dict(config), dict(tensors))
        if result is not None and not (
            result[0] == config and result[1].keys() == tensors.keys() and _equal(result[1], tensors)
        ):
            yield name, *result


def _equal(one: Tensors, two: Tensors) -> bool:
    return all(
        one[name].dtype == two[name].dtype
        and one[name].shape == two[name].shape
        and bool((one[name] == two[name]).all())
        for name in one
    )


def write(config: Config, tensors: Tensors, directory: Path) -> None:
    """An adapter directory."""
    import numpy as np
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2))
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()},
        directory / "adapter_model.safetensors",
        {"format": "pt"},
    )
