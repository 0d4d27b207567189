"""The right answer: a healthy adapter merged into its base by hand, with torch and transformers alone.

Only the canonical form of an adapter is understood. A name or method that is not raises :class:`NoMeaningError`, so
that nothing is guessed: what a defect did to a fixture is undone in ``meanings.py`` before it comes here.
"""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

PREFIX = "base_model.model."
TOKENS = [[2, 3, 5, 7, 9, 11, 13], [4, 6, 8, 10, 12, 40, 41]]
_PARTS = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_[AB]\.weight|lora_B\.bias|lora_embedding_[AB]|lora_magnitude_vector|lora_[ABE]"
    r"|ia3_l|vera_lambda_[bd]|hada_w[12]_[ab]|lokr_w[12]|hra_u)"
)
_SHARED = frozenset({"base_model.vera_A", "base_model.vera_B"})
_TOKEN_ROWS = ".token_adapter.trainable_tokens_delta"


class NoMeaningError(Exception):
    """What the adapter was trained to be has not been said."""


class Meaning(NamedTuple):
    """A healthy adapter: its config, and its tensors under canonical names."""

    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


@lru_cache(maxsize=64)
def _pristine(path: str) -> Any:
    architecture = json.loads(Path(path, "config.json").read_text())["architectures"][0]
    torch.manual_seed(0)
    load = getattr(transformers, architecture).from_pretrained
    return load(path, torch_dtype=torch.float32, attn_implementation="eager").eval()


def fresh_base(path: Path) -> Any:
    """A new copy of the base, in float32."""
    return copy.deepcopy(_pristine(str(path)))


def answer(model: Any) -> torch.Tensor:
    """What a model says to one fixed batch of tokens."""
    ids = torch.tensor(TOKENS)
    with torch.no_grad():
        output = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    return (output.logits if "logits" in output else output.start_logits).float()


def expected(base: Path, meaning: Meaning) -> torch.Tensor:
    """The answer of base plus adapter, without PEFT."""
    model = fresh_base(base)
    if "prompt_embeddings" in meaning.tensors:
        return _prompted(model, meaning.tensors["prompt_embeddings"].float())
    try:
        merge(model, meaning)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise NoMeaningError(f"{type(error).__name__}: {error}") from error
    return answer(model)


def _prompted(model: Any, prompt: torch.Tensor) -> torch.Tensor:
    words = model.get_input_embeddings()(torch.tensor(TOKENS))
    inputs = torch.cat([prompt.expand(len(words), -1, -1), words], dim=1)
    with torch.no_grad():
        return model(inputs_embeds=inputs, attention_mask=torch.ones(inputs.shape[:2])).logits.float()


def merge(model: Any, meaning: Meaning) -> None:
    """Turn the base into base plus adapter."""
    parts: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    shared: dict[str, torch.Tensor] = {}
    for name, value in meaning.tensors.items():
        if not isinstance(value, torch.Tensor):
            raise NoMeaningError(f"{name} is no tensor")
        if not name.startswith(PREFIX):
            shared[name] = value.double()
            continue
        place = name.removeprefix(PREFIX)
        found = _PARTS.fullmatch(place)
        if found:
            parts[found["module"]][found["part"]] = value.double()
        elif place.endswith(_TOKEN_ROWS):
            _set_rows(model, place.removesuffix(_TOKEN_ROWS), value, meaning.config["trainable_token_indices"])
        elif ".original_module." not in place:  # a copy of the base's
            _replace(model, place.replace(".base_layer.", "."), value)
    if shared.keys() - _SHARED:
        raise NoMeaningError(f"not canonical: {sorted(shared.keys() - _SHARED)[0]}")
    for module, tensors in parts.items():
        _apply(model, module, tensors, meaning.config, shared)


def _set_rows(model: Any, module: str, rows: torch.Tensor, indices: Any) -> None:
    chosen = next(iter(indices.values())) if isinstance(indices, dict) else indices
    changed = model.get_submodule(module).weight.detach().clone()
    changed[list(chosen)] = rows.float()
    names = [f"{module}.weight"]
    if model.config.tie_word_embeddings and model.get_output_embeddings() is not None:
        names.append(next(f"{name}.weight" for name, m in model.named_modules() if m is model.get_output_embeddings()))
    for name in names:
        _replace(model, name, changed)


def _replace(model: Any, parameter: str, value: torch.Tensor) -> None:
    """Put a value in place of a parameter; one that was tied to it keeps its own."""
    path, _, name = parameter.rpartition(".")
    try:
        module = model.get_submodule(path)
        old = module._parameters.get(name)
    except AttributeError as error:
        raise NoMeaningError(f"the base has no {parameter}") from error
    if old is None and name != "bias":
        raise NoMeaningError(f"the base has no {parameter}")
    if old is not None and old.shape != value.shape:
        raise NoMeaningError(f"{parameter} has another shape in the base")
    module._parameters[name] = torch.nn.Parameter(value.float().clone(), requires_grad=False)


def _apply(model: Any, module: str, tensors: dict[str, Any], config: Mapping[str, Any], shared: dict[str, Any]) -> None:
    try:
        layer = model.get_submodule(module)
    except AttributeError as error:
        raise NoMeaningError(f"the base has no {module}") from error
    weight = layer.weight.detach().double()
    method = _METHODS.get(str(config.get("peft_type")))
    if method is None:
        raise NoMeaningError(f"no reference for {config.get('peft_type')}")
    try:
        new, bias = method(weight, module, tensors, config, shared)
    except KeyError as error:
        raise NoMeaningError(f"{module}: {error} is missing") from error
    if tensors:
        raise NoMeaningError(f"{module}: {sorted(tensors)[0]} is no tensor of {config.get('peft_type')}")
    _replace(model, f"{module}.weight", new)
    if bias is not None:
        old = getattr(layer, "bias", None)
        _replace(model, f"{module}.bias", bias(0 if old is None else old.detach().double()))


def _pattern(patterns: Any, module: str, otherwise: float) -> float:
    for key, value in (patterns or {}).items():
        if module == key or module.endswith(f".{key}"):
            return float(value)
    return otherwise


def _lora(weight: Any, module: str, tensors: dict[str, Any], config: Mapping[str, Any], shared: Any) -> Any:
    embedding = "lora_embedding_A" in tensors
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    a, b = (tensors.pop(name) for name in names)
    r = a.shape[0]
    scale = _pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale /= r**0.5 if config.get("use_rslora") is True else r
    delta = scale * (b @ a)
    new = weight + (delta.T if embedding else delta)
    if "lora_magnitude_vector" in tensors:
        new = new * (tensors.pop("lora_magnitude_vector") / new.norm(dim=1)).unsqueeze(1)
    if "ia3_l" in tensors:  # an adapter of two methods, which no config of PEFT's can describe
        new = tensors.pop("ia3_l") * new
    added = tensors.pop("lora_B.bias", None)
    return new, None if added is None else lambda old: old + scale * added


def _adalora(weight: Any, module: str, tensors: dict[str, Any], config: Mapping[str, Any], shared: Any) -> Any:
    a, b, e = tensors.pop("lora_A"), tensors.pop("lora_B"), tensors.pop("lora_E")
    return weight + b @ (a * e) * config["lora_alpha"] / (config["init_r"] + 1e-5), None


def _ia3(weight: Any, module: str, tensors: dict[str, Any], config: Mapping[str, Any], shared: Any) -> Any:
    feedforward = any(module.endswith(name) for name in config.get("feedforward_modules") or ())
    factor = tensors.pop("ia3_l").flatten()
    if feedforward:
        return weight * factor, None
    return weight * factor.unsqueeze(1), None


def _vera(weight: Any, module: str, tensors: dict[str, Any], config: Mapping[str, Any], shared: dict[str, Any]) -> Any:
    a = shared["base_model.vera_A"][:, : weight.shape[1]]
    b = shared["base_model.vera_B"][: weight.shape[0]]
    inner = tensors.pop("vera_lambda_d").unsqueeze(1) * a
    return weight + tensors.pop("vera_lambda_b").unsqueeze(1) * (b @ inner), None


def _lokr(weight: Any, module: str, tensors: dict[str, Any], config: Mapping[str, Any], shared: Any) -> Any:
    # Files of 0.13 and older, which lack this key, were trained without a scale.
    alpha = _pattern(config.get("alpha_pattern"), module, config.get("alpha", 8))
    scale = alpha / config["r"] if "rank_dropout_scale" in config else 1.0
    return weight + scale * torch.kron(tensors.pop("lokr_w1"), tensors.pop("lokr_w2")), None


def _hra(weight: Any, module: str, tensors: dict[str, Any], config: Mapping[str, Any], shared: Any) -> Any:
    for column in tensors.pop("hra_u").T:
        unit = (column / column.norm()).unsqueeze(1)
        weight = weight - 2 * weight @ unit @ unit.T
    return weight, None


_METHODS = {"LORA": _lora, "ADALORA": _adalora, "IA3": _ia3, "VERA": _vera, "LOKR": _lokr, "HRA": _hra}
