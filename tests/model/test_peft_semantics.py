"""The model of PEFT against the PEFT that is installed: selection, patterns, saved modules, scales."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterlint import assemble
from adapterlint.model import peft
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base

pytest.importorskip("peft")
pytestmark = pytest.mark.peft

BASES = Path(__file__).parents[2] / "fixtures" / "base"
MODULES = [
    "model.embed_tokens",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.10.mlp.experts.3.w1",
    "bert.encoder.layer.0.attention.self.query",
    "q_proj",
    "lm_head",
]
NAMES = ["q_proj", "proj", "v_proj", "self_attn.q_proj", "layers.1.self_attn.q_proj", "lm_head", "w1", *MODULES[:2]]
PATTERNS = [".*q_proj", "q_proj", r".*\.(q_proj|v_proj)", r"model\.layers\.\d+\..*", r".*layers\.1\..*"]


def adapter_of(**config: Any) -> Adapter:
    return Adapter("x", "x", {}, {"peft_type": "LORA", **config})


def lora_config(**config: Any) -> Any:
    import peft as real

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return real.LoraConfig(**config)


targets = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3) | st.sampled_from(PATTERNS)


@settings(max_examples=300, deadline=None)
@given(
    target=targets,
    exclude=st.none() | st.lists(st.sampled_from(NAMES), min_size=1, max_size=2) | st.sampled_from(PATTERNS),
    layers=st.none() | st.integers(0, 11) | st.lists(st.integers(0, 11), max_size=3),
    pattern=st.none() | st.sampled_from(["layers", "layer", "experts"]) | st.just(["layers", "layer"]),
)
def test_selection(target: Any, exclude: Any, layers: Any, pattern: Any) -> None:
    from peft.tuners.tuners_utils import check_target_module_exists

    config: dict[str, Any] = {"target_modules": target, "exclude_modules": exclude}
    if isinstance(target, list):
        config["layers_to_transform"] = layers
        if layers is not None:
            config["layers_pattern"] = pattern
    real = lora_config(**config)
    selection = peft.Selection(adapter_of(**config))
    for module in MODULES:
        found = check_target_module_exists(real, module)
        expected = bool(found) and type(found).__name__ != "_ExcludedModule"
        assert selection(module) == expected, (config, module)


@settings(max_examples=300, deadline=None)
@given(
    ranks=st.dictionaries(
        st.sampled_from([*NAMES, "^model.layers.1.self_attn.q_proj", *PATTERNS]), st.integers(1, 9), max_size=3
    ),
    module=st.sampled_from(MODULES),
)
def test_patterns(ranks: dict[str, int], module: str) -> None:
    from peft.utils.other import get_pattern_key

    expected = ranks.get(get_pattern_key(list(ranks), module), 16)
    assert peft.rank(adapter_of(r=16, rank_pattern=ranks), module) == expected
    assert peft.alpha(adapter_of(lora_alpha=16, alpha_pattern=ranks), module) == expected


def real_model(directory: Path) -> Any:
    import transformers

    name = json.loads((directory / "config.json").read_text())["architectures"][0]
    return getattr(transformers, name).from_pretrained(directory)


@pytest.mark.parametrize("name", ["seed", "llama", "llama-tied"])
@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["query", "value", "q_proj"]},
        {"target_modules": None},
        {"target_modules": "all-linear"},
        {"target_modules": ".*(query|q_proj|gate_proj)", "modules_to_save": ["classifier", "lm_head"]},
        {"target_modules": ["dense", "q_proj"], "modules_to_save": ["pooler", "embed_tokens", "norm"]},
        {"target_modules": ["query", "v_proj"], "exclude_modules": ".*0.*"},
        {"target_modules": ["query", "v_proj"], "layers_to_transform": [1]},
        {"target_modules": ["word_embeddings", "embed_tokens", "query"], "r": 3, "use_rslora": True},
    ],
    ids=lambda config: str(config["target_modules"]),
)
def test_injection_into_a_real_model(name: str, config: dict[str, Any]) -> None:
    import peft as real

    base, _ = assemble.read_base(str(BASES / name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = real.get_peft_model(real_model(BASES / name), real.LoraConfig(**config))
    layers = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if hasattr(m, "lora_A")}
    saved = {n.removeprefix("base_model.model.") for n, m in model.named_modules() if hasattr(m, "modules_to_save")}
    adapter = adapter_of(**config)
    assert set(peft.selected_modules(adapter, base)) == set(layers)
    assert set(peft.saved_modules(peft.saved_names(adapter), base)) == {n for n in saved if n in base.modules}
    for path, layer in layers.items():
        assert peft.scale(adapter, path) == pytest.approx(layer.scaling["default"])


@pytest.mark.parametrize("name", ["seed", "llama", "llama-tied"])
def test_modules_of_the_base(name: str) -> None:
    base, problems = assemble.read_base(str(BASES / name))
    assert problems == ()
    real = real_model(BASES / name)
    expected = {path for path, module in real.named_modules() if path and any(True for _ in module.parameters())}
    assert set(base.modules) == expected
    own = {path: {n for n, _ in module.named_parameters(recurse=False)} for path, module in real.named_modules()}
    for path, parameters in base.modules.items():
        if path not in base.tied_heads:
            assert set(parameters) == own[path]


def test_a_base_without_its_class_prefix() -> None:
    base, _ = assemble.read_base(str(BASES / "seed"))
    bare = {
        name.removeprefix("bert."): tensor for name, tensor in base.stored.items() if not name.startswith("classifier")
    }
    again = Base("x", base.config, bare)
    assert set(again.parameters) == {name for name in base.stored if not name.startswith("classifier")}
    assert again.missing_heads == ("classifier",)
