"""Healthy adapters of every PEFT method, made by the PEFT that is installed.

A recipe is a config for one of the small bases under ``fixtures/base``. ``make`` builds the adapter, gives its
parameters values that show in the output, saves it, and keeps what the model answered before saving: that is the
reference that a load has to meet.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

BASES = Path(__file__).parents[2] / "fixtures" / "base"
TOKENS = [[2, 3, 5, 7, 9, 11, 13], [4, 6, 8, 10, 12, 40, 41]]
VISIBLE = 0.02  # a healthy adapter whose output differs from the base's by less shows no defect
LLAMA, BERT = ("q_proj", "v_proj"), ("query", "value")


@dataclass(frozen=True)
class Recipe:
    """One healthy adapter.

    Attributes:
        name: unique, a directory name.
        peft_type: the method.
        config: arguments of its config class beyond task type and targets.
        base: directory under ``fixtures/base``.
        targets: ``target_modules``; an empty tuple leaves them out.
        task: ``task_type``.
        scale: standard deviation of the values given to trained parameters.
        inputs: more arguments of the forward pass.
    """

    name: str
    peft_type: str
    config: Mapping[str, Any] = field(default_factory=dict)
    base: str = "llama"
    targets: tuple[str, ...] | str = LLAMA
    task: str | None = "CAUSAL_LM"
    scale: float = 0.3
    inputs: Mapping[str, Any] = field(default_factory=dict)


def _r(name: str, peft_type: str, **more: Any) -> Recipe:
    known = {key: more.pop(key) for key in ("base", "targets", "task", "scale", "inputs") if key in more}
    return Recipe(name, peft_type, more, **known)


_PROMPT = {"num_virtual_tokens": 4, "targets": ()}
_CPT = {
    "cpt_token_ids": [3, 4, 5, 6],
    "cpt_mask": [1, 1, 1, 1],
    "cpt_tokens_type_mask": [1, 2, 3, 4],
    "num_virtual_tokens": 4,
    "targets": (),
}

RECIPES: tuple[Recipe, ...] = (
    _r("ia3", "IA3", targets=("k_proj", "v_proj", "down_proj"), feedforward_modules=["down_proj"]),
    _r("ia3-default", "IA3", targets=()),
    _r("ia3-no-forward", "IA3", targets=("q_proj", "gate_proj"), feedforward_modules=[]),
    _r("loha", "LOHA", r=3, alpha=6),
    _r("loha-patterns", "LOHA", r=3, alpha=3, rank_pattern={"v_proj": 2}, alpha_pattern={"layers.0": 5}),
    _r("lokr", "LOKR", r=3, alpha=3),
    _r("lokr-small", "LOKR", r=1, alpha=1, targets=("q_proj", "gate_proj")),
    _r("lokr-both", "LOKR", r=1, alpha=2, decompose_both=True, rank_dropout_scale=True),
    _r("lokr-factor", "LOKR", r=2, alpha=2, decompose_factor=4, targets=("q_proj", "down_proj")),
    _r("oft", "OFT", r=0, oft_block_size=4),
    _r("oft-rank", "OFT", r=4, oft_block_size=0, scale=0.1),
    _r("oft-shared", "OFT", r=0, oft_block_size=8, block_share=True, use_cayley_neumann=False, scale=0.2),
    _r("oft-coft", "OFT", r=0, oft_block_size=4, coft=True, eps=1e-1, targets=("q_proj", "down_proj")),
    _r("oft-old", "OFT", r=4),
    _r("boft", "BOFT", boft_block_size=4, boft_n_butterfly_factor=1),
    _r("boft-num", "BOFT", boft_block_size=0, boft_block_num=4, boft_n_butterfly_factor=2),
    _r("boft-two", "BOFT", boft_block_size=4, boft_n_butterfly_factor=2, targets=("q_proj", "down_proj")),
    _r("adalora", "ADALORA", r=8, init_r=4, target_r=2, lora_alpha=8, total_step=100),
    _r("adalora-ranks", "ADALORA", r=8, init_r=4, target_r=2, lora_alpha=8, total_step=100),
    _r("prompt", "PROMPT_TUNING", **_PROMPT),
    _r("prefix", "PREFIX_TUNING", **_PROMPT),
    _r("prefix-projection", "PREFIX_TUNING", prefix_projection=True, encoder_hidden_size=8, **_PROMPT),
    _r("p-tuning", "P_TUNING", encoder_hidden_size=8, **_PROMPT),
    _r("p-tuning-lstm", "P_TUNING", encoder_hidden_size=8, encoder_reparameterization_type="LSTM", **_PROMPT),
    _r("multitask", "MULTITASK_PROMPT_TUNING", num_tasks=3, num_ranks=2, inputs={"task_ids": [1, 1]}, **_PROMPT),
    _r("cpt", "CPT", **_CPT),
    _r("cartridge", "CARTRIDGE", **_PROMPT),
    _r("ln", "LN_TUNING", targets=("input_layernorm", "norm")),
    _r("ln-default", "LN_TUNING", targets=()),
    _r("tokens", "TRAINABLE_TOKENS", token_indices=[3, 5, 7], targets=("embed_tokens",)),
    _r("tokens-default", "TRAINABLE_TOKENS", token_indices=[3, 5, 7], targets=()),
    _r("vera", "VERA", r=6),
    _r("vera-unsaved", "VERA", r=6, save_projection=False),
    _r("vera-mixed", "VERA", r=4, targets=("q_proj", "down_proj")),
    _r("pvera", "PVERA", r=6),
    _r("pvera-unsaved", "PVERA", r=6, save_projection=False),
    _r("fourier", "FOURIERFT", n_frequency=40, scaling=100.0),
    _r("fourier-pattern", "FOURIERFT", n_frequency=40, scaling=100.0, n_frequency_pattern={"v_proj": 20}),
    _r("hra", "HRA", r=4),
    _r("hra-gs", "HRA", r=4, apply_GS=True, targets=("q_proj", "down_proj")),
    _r("vblora", "VBLORA", r=2, num_vectors=12, vector_length=8, topk=2, scale=1.0),
    _r("vblora-topk", "VBLORA", r=2, num_vectors=12, vector_length=8, topk=2, save_only_topk_weights=True, scale=1.0),
    _r("bone", "BONE", r=4),
    _r("bone-bat", "BONE", r=4, init_weights="bat"),
    _r("miss", "MISS", r=4),
    _r("miss-bat", "MISS", r=4, init_weights="bat"),
    _r("miss-mini", "MISS", r=4, mini_r=2, init_weights="mini"),
    _r("randlora", "RANDLORA", r=4, randlora_alpha=40),
    _r("randlora-unsaved", "RANDLORA", r=4, randlora_alpha=40, save_projection=False, targets=("q_proj", "down_proj")),
    _r("randlora-sparse", "RANDLORA", r=4, randlora_alpha=40, sparse=True, targets=("q_proj", "down_proj")),
    _r("shira", "SHIRA", r=2),
    _r("shira-seeded", "SHIRA", r=2, random_seed=5, targets=("q_proj", "down_proj")),
    _r("c3a", "C3A", block_size=4),
    _r("c3a-pattern", "C3A", block_size=4, block_size_pattern={"v_proj": 8}, targets=("v_proj", "down_proj")),
    _r("road-1", "ROAD", variant="road_1", group_size=4),
    _r("road-2", "ROAD", variant="road_2", group_size=4),
    _r("road-4", "ROAD", variant="road_4", group_size=4),
    _r("delora", "DELORA", r=3, delora_lambda=15),
    _r("delora-pattern", "DELORA", r=3, rank_pattern={"v_proj": 2}, targets=("v_proj", "down_proj")),
    _r("waveft", "WAVEFT", n_frequency=40, scaling=25.0),
    _r("waveft-proportional", "WAVEFT", n_frequency=40, proportional_parameters=True, targets=("q_proj", "down_proj")),
    _r("osf", "OSF", effective_rank=4, scale=0.2),
    _r("gralora", "GRALORA", r=4, gralora_k=2, alpha=8),
    _r("gralora-hybrid", "GRALORA", r=4, gralora_k=2, hybrid_r=2, alpha=8, targets=("q_proj", "down_proj")),
    _r("adamss", "ADAMSS", r=8, num_subspaces=2, subspace_rank=1),
    _r("adamss-dynamic", "ADAMSS", r=8, num_subspaces=2, subspace_rank=2, use_dynamic_rank=True),
    _r("tinylora", "TINYLORA", r=2, u=4, scale=1.0),
    _r("tinylora-tied", "TINYLORA", r=2, u=4, weight_tying=1.0, save_projection=False, scale=1.0),
    _r("psoft", "PSOFT", r=4),
    _r("psoft-plain", "PSOFT", r=4, psoft_mag_a=False, psoft_mag_b=False, psoft_orth=False),
    _r("peanut", "PEANUT", r=4),
    _r("peanut-deep", "PEANUT", r=4, depth=2),
    _r("lily", "LILY", r=4, stride_A=1, num_B=2),
    _r("lily-shared", "LILY", r=4, stride_A=2, num_B=2),
    _r("beft", "BEFT", targets=("v_proj",)),
    _r("deft", "DEFT", r=4),
    _r("deft-para", "DEFT", r=4, para=True, decomposition_method="qr"),
    _r("frod", "FROD", sparse_rate=0.1, progressbar=False),
    _r("frod-unsaved", "FROD", sparse_rate=0.1, progressbar=False, save_projection=False),
    _r("glora", "GLORA", r=4),
    _r("glora-vector", "GLORA", r=4, config_A_B="vector", config_C="vector", config_D_E="vector"),
    _r("glora-none", "GLORA", r=4, config_A_B="constant", config_C="none", config_D_E="none"),
    _r("hira", "HIRA", r=4),
    _r("hira-pattern", "HIRA", r=4, rank_pattern={"v_proj": 2}),
    _r("unilora", "UNILORA", r=2, theta_d_length=32, scale=1.0),
    _r("unilora-indices", "UNILORA", r=2, theta_d_length=32, save_indices=True, scale=1.0),
    _r("shadow", "SHADOW", r=4, shadow_dropout=0.0),
    _r("supertuning", "SUPERTUNING", sparsity=0.9),
    _r("supertuning-lora", "SUPERTUNING", sparsity=0.9, r=2, lora_alpha=4),
    _r("supertuning-unsaved", "SUPERTUNING", sparsity=0.9, save_precomputed_indices=False),
    _r("poly", "POLY", r=4, n_tasks=2, n_skills=2, n_splits=2, inputs={"task_ids": [1, 1]}),
    _r("adaption", "ADAPTION_PROMPT", adapter_len=4, adapter_layers=2, targets=()),
)


def _more() -> Iterator[Recipe]:
    """The plain recipes with saved modules, on a classifier, on tied weights, and with other ways to name targets."""
    plain = {recipe.peft_type: recipe for recipe in reversed(RECIPES)}
    for name in ("IA3", "LOHA", "LOKR", "VERA", "BOFT", "HRA", "FOURIERFT", "VBLORA", "LN_TUNING", "ADALORA", "OFT"):
        first = plain[name]
        saved = {**first.config, "modules_to_save": ["lm_head"]}
        yield Recipe(f"{first.name}-head", name, saved, "llama", first.targets, scale=first.scale)
        targets = ("output.LayerNorm",) if name == "LN_TUNING" else BERT
        config = {key: value for key, value in first.config.items() if key != "feedforward_modules"}
        config |= {"feedforward_modules": []} if name == "IA3" else {}
        yield Recipe(f"{first.name}-classifier", name, config, "seed", targets, "SEQ_CLS", first.scale)
        yield Recipe(f"{first.name}-tied", name, first.config, "llama-tied", first.targets, scale=first.scale)
    for name in ("LOHA", "LOKR", "VERA", "OFT", "BOFT", "HRA", "MISS", "SHIRA", "RANDLORA", "C3A", "ROAD", "FOURIERFT"):
        first = plain[name]
        yield Recipe(f"{first.name}-null", name, first.config, "llama", (), scale=first.scale)
        pattern = r".*layers\.1\..*(q_proj|v_proj)"
        yield Recipe(f"{first.name}-regex", name, first.config, "llama", pattern, scale=first.scale)
        yield Recipe(f"{first.name}-linear", name, first.config, "llama", "all-linear", scale=first.scale)
    for name in ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"):
        first = plain[name]
        yield Recipe(f"{first.name}-classifier", name, first.config, "seed", (), "SEQ_CLS")
    yield Recipe("ia3-embedding", "IA3", {"feedforward_modules": []}, "llama", ("embed_tokens", "q_proj"))
    yield Recipe("oft-embedding", "OFT", {"r": 0, "oft_block_size": 4}, "llama", ("embed_tokens", "q_proj"))
    yield Recipe("hira-embedding", "HIRA", {"r": 4}, "llama", ("embed_tokens", "q_proj"))
    yield Recipe("loha-bert-default", "LOHA", {"r": 3}, "seed", (), None)
    yield Recipe("tokens-tied", "TRAINABLE_TOKENS", {"token_indices": [3, 5, 7]}, "llama-tied", ("embed_tokens",))
    yield Recipe("boft-bias", "BOFT", {"bias": "boft_only"}, "seed", BERT, None)
    yield Recipe("vera-bias", "VERA", {"r": 4, "bias": "all"}, "seed", BERT, None)


RECIPES = (*RECIPES, *_more())
BY_NAME = {recipe.name: recipe for recipe in RECIPES}


@lru_cache(maxsize=4)
def _base(name: str) -> Any:
    import torch
    import transformers

    architecture = json.loads((BASES / name / "config.json").read_text())["architectures"][0]
    torch.manual_seed(0)
    model = getattr(transformers, architecture).from_pretrained(BASES / name, attn_implementation="eager")
    return model.to(torch.float32).eval()


def fresh_base(name: str) -> Any:
    """A copy of a base model that may be changed."""
    return copy.deepcopy(_base(name))


def answer(model: Any, inputs: Mapping[str, Any]) -> Any:
    """Logits for the fixed tokens, as a float32 array."""
    import torch

    ids = torch.tensor(TOKENS)
    more = {name: torch.tensor(value) for name, value in inputs.items()}
    with torch.no_grad():
        output = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), **more)
    return output.logits.float().numpy()


def config_class(peft_type: str) -> Any:
    """The config class of a method in the installed release, or None."""
    from peft import mapping

    table = mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    return {str(getattr(key, "value", key)): value for key, value in table.items()}.get(peft_type)


def make(recipe: Recipe, directory: Path) -> str | None:
    """Make one healthy adapter in ``directory``; returns why it cannot be made, or None.

    Files: ``adapter/``, ``reference.npy``, ``meta.json``.
    """
    import numpy as np
    import peft
    import torch

    kind = config_class(recipe.peft_type)
    if kind is None:
        return "no such type"
    arguments = {**recipe.config, "task_type": recipe.task}
    if recipe.targets:
        arguments["target_modules"] = recipe.targets if isinstance(recipe.targets, str) else list(recipe.targets)
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = peft.get_peft_model(fresh_base(recipe.base), kind(**arguments))
            _randomise(model, recipe)
            reference = answer(model, recipe.inputs)
            plain = answer(fresh_base(recipe.base), {})
            shape_differs = reference.shape != plain.shape
            gap = float("inf") if shape_differs else float(abs(reference - plain).max())
            if not gap > VISIBLE:
                return f"shows nothing: {gap}"
            model.save_pretrained(str(directory / "adapter"))
        except Exception as error:  # a release that lacks an option, or cannot do it at all
            return f"{type(error).__name__}: {error}"[:300]
    np.save(directory / "reference.npy", reference)
    meta = {"recipe": recipe.name, "peft": peft.__version__, "base": recipe.base, "gap": gap}
    (directory / "meta.json").write_text(json.dumps({**meta, "inputs": dict(recipe.inputs)}))
    return None


def _randomise(model: Any, recipe: Recipe) -> None:
    import torch

    generator = torch.Generator().manual_seed(sum(map(ord, recipe.name)))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * recipe.scale
            own = "modules_to_save" in name or "ln_tuning" in name or "ia3" in name or "boft_s" in name
            parameter.data = (parameter.data if own else 0) + noise.to(parameter.dtype)
    if recipe.name == "adalora-ranks":
        _prune(model)


def _prune(model: Any) -> None:
    """Give an AdaLoRA a rank pattern, as its own training leaves one behind."""
    layers = [name for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_E")]
    pattern = {f"{name}.lora_E": [True, True, False, position % 2 == 0] for position, name in enumerate(layers)}
    for name, mask in pattern.items():
        model.get_submodule("base_model.model." + name.removesuffix(".lora_E")).lora_E["default"].data[
            [not kept for kept in mask]
        ] = 0
    model.peft_config["default"].rank_pattern = pattern
