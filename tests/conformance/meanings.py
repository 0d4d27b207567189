"""What each broken fixture was before it was broken, said by hand.

A fixture means what it holds, unless :data:`HEALTHY` undoes its defect: names are put right, a lost setting comes back,
and in place of tensors that were lost or never trained stand trained ones. So a fixture without weights, with dead or
with missing ones is *wrong* where a release loads it without an exception, since it meant something else than it
answers. Fixtures whose meaning nobody can say are in ``untold.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from cases import CONFIG, WEIGHTS, Fixture, numbers, vera_projection
from reference import PREFIX, Meaning, NoMeaningError
from safetensors.torch import load_file

from adapterlint.rules.examples import bert_tensors, llama_base, llama_tensors

Change = Callable[[Meaning], Meaning]


def meaning(fixture: Fixture, member: str, directory: Path) -> Meaning:
    """The healthy adapter of one member of a fixture."""
    change = HEALTHY.get(f"{fixture.name}/{member}") or HEALTHY.get(fixture.name)
    found = stored(directory, lenient=change is not None)
    return change(found) if change else found


def stored(directory: Path, lenient: bool) -> Meaning:
    """What the files say as they stand; with ``lenient``, whatever can be read of them."""
    config: Any = {}
    tensors: Any = {}
    try:
        config = json.loads((directory / CONFIG).read_bytes())
        if (directory / WEIGHTS).exists():
            tensors = load_file(directory / WEIGHTS)
        else:
            tensors = torch.load(directory / "adapter_model.bin", weights_only=True)
    except Exception as error:
        if not lenient:
            raise NoMeaningError(f"{type(error).__name__}: {error}") from error
    return Meaning(config, tensors)


def _renamed(pattern: str, by: str = "") -> Change:
    """Every name with the first match of a pattern replaced."""
    return lambda found: found._replace(tensors={re.sub(pattern, by, k, count=1): v for k, v in found.tensors.items()})


def _without(pattern: str) -> Change:
    """Without the tensors whose name a pattern is found in."""
    return lambda found: found._replace(tensors={k: v for k, v in found.tensors.items() if not re.search(pattern, k)})


def _config(**values: Any) -> Change:
    """Other values in the config."""
    return lambda found: found._replace(config={**found.config, **values})


def _trained(shapes: Mapping[str, Any], over: bool = False) -> Change:
    """Trained numbers for tensors that are not there; with ``over`` also in place of those that are."""

    def change(found: Meaning) -> Meaning:
        new = {name: torch.from_numpy(numbers(f"healthy/{name}", shape)) for name, (_, shape) in shapes.items()}
        return found._replace(tensors={**found.tensors, **new} if over else {**new, **found.tensors})

    return change


def _turned(change: Callable[[str, torch.Tensor], torch.Tensor]) -> Change:
    """Every tensor changed."""
    return lambda found: found._replace(tensors={name: change(name, value) for name, value in found.tensors.items()})


def _all(*changes: Change) -> Change:
    def change(found: Meaning) -> Meaning:
        for each in changes:
            found = each(found)
        return found

    return change


def _vectors(kind: str, suffix: str, shape: tuple[int, ...], like: Mapping[str, Any]) -> dict[str, Any]:
    """One vector a module: the names of the LoRA pairs with another ending."""
    return {name.replace("lora_A.weight", suffix): (kind, shape) for name in like if "lora_A" in name}


_ATTENTION = PREFIX + "model.layers.{}.self_attn."
_LLAMA = llama_tensors()
_MAGNITUDES = _vectors("F32", "lora_magnitude_vector", (16,), _LLAMA)
_LAMBDAS = _vectors("F32", "vera_lambda_b", (16,), _LLAMA) | _vectors("F32", "vera_lambda_d", (4,), _LLAMA)
_THIRD_LAYER = {name: shape for name, shape in llama_tensors(layers=3).items() if ".layers.2." in name}
_TOKEN_ROWS = PREFIX + "model.embed_tokens.token_adapter.trainable_tokens_delta"


def _projections(found: Meaning) -> Meaning:
    seeded = {"base_model.vera_A": ((4, 16), 0), "base_model.vera_B": ((16, 4), 64)}
    new = {name: torch.from_numpy(vera_projection(shape, skip)) for name, (shape, skip) in seeded.items()}
    return found._replace(tensors={**new, **found.tensors})


def _from_mlx(found: Meaning) -> Meaning:
    return _all(_renamed("^", PREFIX), _renamed("lora_a$", "lora_A.weight"), _renamed("lora_b$", "lora_B.weight"))(
        found
    )


_DEAD = _trained(_LLAMA, over=True)
_CANONICAL = _all(
    _renamed(r"^module\."),
    _renamed(rf"^({PREFIX})+", PREFIX),
    _renamed(r"^(?!base_model\.)", PREFIX),
    _renamed(r"(_orig_mod|_fsdp_wrapped_module)\."),
    _renamed(r"model\.module\.layers", "model.layers"),
)

HEALTHY: dict[str, Change] = {
    "AL005-valid-an-empty-tensor": _without("^scale$"),
    "AL005-valid-no-tensors": _trained(_LLAMA),
    "AL006-invalid-no-tensors": _trained(_LLAMA),
    "AL006-invalid-no-tensors-another-method": _trained(
        {f"{_ATTENTION.format(layer)}k_proj.ia3_l": ("F32", (16, 1)) for layer in range(2)}
    ),
    "AL006-invalid-only-a-head": _trained(bert_tensors()),
    "AL009-invalid-under-state-dict": lambda found: found._replace(tensors=found.tensors["state_dict"]),
    "AL012-invalid-misaligned": _without("^scale$"),
    "AL012-invalid-a-recent-dtype": _without("^scale$"),
    "AL013-invalid-tensors-of-mlx-config-of-peft": _from_mlx,
    "AL013-invalid-tensors-of-kohya-config-of-peft": _all(
        _renamed("lora_down", "lora_A"), _renamed("lora_up", "lora_B")
    ),
    "AL107-invalid-alpha-is-zero": _config(lora_alpha=8),
    "AL202-invalid-the-name-of-from-pretrained": _renamed(r"\.default\.", "."),
    "AL202-invalid-another-method": _renamed(r"\.default$"),
    "AL202-invalid-leftover-of-another-adapter": _without("lora_Abar"),
    "AL203-invalid-with-the-adapter-name": _renamed(r"modules_to_save\.default\."),
    "AL203-invalid-without-a-name": _renamed(r"modules_to_save\."),
    "AL204-invalid-lora-without-weight": _renamed("$", ".weight"),
    "AL204-invalid-another-method-with-weight": _renamed(r"\.weight$"),
    "AL206-invalid-a-layer-of-the-base-is-missing": _trained(_THIRD_LAYER),
    "AL206-invalid-a-gap": _trained(_THIRD_LAYER),
    "AL206-invalid-another-method": _trained(
        _vectors("F32", "vera_lambda_b", (16,), _THIRD_LAYER) | _vectors("F32", "vera_lambda_d", (4,), _THIRD_LAYER)
    ),
    "AL208-invalid-one-b-is-missing": _trained(_LLAMA),
    "AL208-invalid-every-a-is-missing": _trained(_LLAMA),
    "AL210-invalid-the-bias-is-missing": _trained({f"{PREFIX}classifier.bias": ("F32", (3,))}),
    "AL210-invalid-one-end-of-tied-embeddings": lambda found: found._replace(
        tensors={**found.tensors, f"{PREFIX}lm_head.weight": found.tensors[f"{PREFIX}model.embed_tokens.weight"]}
    ),
    "AL212-invalid-the-flag-was-lost": _config(use_dora=True),
    "AL212-invalid-the-vectors-were-lost": _trained(_MAGNITUDES),
    "AL212-invalid-vectors-with-weight": _renamed(r"(magnitude_vector)\.weight$", r"\1"),
    "AL212-invalid-vectors-with-the-adapter-name": _renamed(r"(magnitude_vector)\.default\.weight$", r"\1"),
    "AL212-invalid-the-same-without-weight": _renamed(r"(magnitude_vector)\.default$", r"\1"),
    "AL214-invalid-indices-were-lost": _config(trainable_token_indices=[3, 5]),
    "AL214-invalid-rows-were-lost": _trained({_TOKEN_ROWS: ("F32", (3, 16))}),
    "AL214-invalid-another-number": _trained({_TOKEN_ROWS: ("F32", (3, 16))}, over=True),
    "AL217-invalid-int8": _turned(lambda name, value: value.float() / 64),
    "AL217-valid-integers-of-a-saved-module": _without("num_batches_tracked"),
    "AL218-valid-projections-from-the-seed": _projections,
    "AL218-invalid-one-of-two-vectors": _trained(_LAMBDAS),
    "AL218-invalid-nothing-but-projections": _trained(_LAMBDAS),
    "AL301-valid-integers": _without("num_batches_tracked"),
    "AL302-invalid-all-zero": _DEAD,
    "AL302-invalid-a-head-beside": _DEAD,
    "AL401-invalid-another-name-in-between": _renamed(r"\.attn\.", ".self_attn."),
    "AL401-invalid-nothing-alike": _all(_renamed("to_q", "q_proj"), _renamed("to_v", "v_proj")),
    "AL401-invalid-one-level-too-high": _renamed("^base_model.model.layers", "base_model.model.model.layers"),
    "AL508-valid-other-numbers/b": _trained(bert_tensors(), over=True),
}
for _title in (
    "no-prefix",
    "doubled-prefix",
    "distributeddataparallel",
    "torch-compile",
    "fsdp-inside",
    "one-layer-only",
    "another-method",
):
    HEALTHY[f"AL201-invalid-{_title}"] = _CANONICAL

DEEPER = {"AL402-invalid-more-layers-than-the-base": llama_base(layers=3)}
"""Fixtures that were trained on another base than the one they are loaded on: that other base."""
