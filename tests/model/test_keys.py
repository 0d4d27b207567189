"""The grammar of tensor names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterlint.model.keys import PREFIX, Kind, _ordinary, _take_apart, parse

MODULE = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("name", "kind", "module", "adapter"),
    [
        (f"{PREFIX}{MODULE}.lora_A.weight", Kind.LORA_A, MODULE, None),
        (f"{PREFIX}{MODULE}.lora_B.default.weight", Kind.LORA_B, MODULE, "default"),
        (f"{PREFIX}{MODULE}.lora_B.bias", Kind.LORA_BIAS, MODULE, None),
        (f"{PREFIX}model.embed_tokens.lora_embedding_A", Kind.EMBEDDING_A, "model.embed_tokens", None),
        (f"{PREFIX}model.embed_tokens.lora_embedding_B.foo", Kind.EMBEDDING_B, "model.embed_tokens", "foo"),
        (f"{PREFIX}{MODULE}.lora_magnitude_vector", Kind.MAGNITUDE, MODULE, None),
        (f"{PREFIX}{MODULE}.lora_magnitude_vector.weight", Kind.MAGNITUDE, MODULE, None),
        (f"{PREFIX}{MODULE}.lora_magnitude_vector.default.weight", Kind.MAGNITUDE, MODULE, "default"),
        (f"{PREFIX}{MODULE}.lora_Abar.weight", Kind.RESIDUE, MODULE, None),
        (f"{PREFIX}{MODULE}.base_layer.bias", Kind.BASE_LAYER, MODULE, None),
        (f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta", Kind.TOKENS, "model.embed_tokens", None),
        (f"{PREFIX}{MODULE}.ia3_l", Kind.METHOD, MODULE, None),
        (f"{PREFIX}classifier.weight", Kind.FULL, "classifier", None),
        (f"{PREFIX}classifier.modules_to_save.default.weight", Kind.FULL, "classifier", "default"),
        (f"{PREFIX}classifier.modules_to_save.weight", Kind.FULL, "classifier", None),
        (f"{PREFIX}bert.pooler.modules_to_save.default.dense.weight", Kind.FULL, "bert.pooler.dense", "default"),
        (f"{PREFIX}bert.pooler.modules_to_save.dense.weight", Kind.FULL, "bert.pooler.dense", None),
        ("prompt_embeddings", Kind.FULL, "", None),
    ],
)
def test_parts(name: str, kind: Kind, module: str, adapter: str | None) -> None:
    key = parse(name)
    assert (key.kind, key.module, key.adapter) == (kind, module, adapter)


@pytest.mark.parametrize(
    "spelling",
    [
        "{m}.lora_A.weight",
        "base_model.model.base_model.model.{m}.lora_A.weight",
        "module.base_model.model.{m}.lora_A.weight",
        "base_model.model.module.{m}.lora_A.weight",
        "_orig_mod.base_model.model.{m}.lora_A.weight",
        "base_model.model._orig_mod.{m}.lora_A.weight",
        "thinker.base_model.model.{m}.lora_A.weight",
        "base_model.model._fsdp_wrapped_module.{m}.lora_A.default.weight",
        "base_model.model.{m}._checkpoint_wrapped_module.lora_A.weight",
        "base_model.model.{m}.lora_A",
    ],
)
def test_every_spelling_has_one_canonical_name(spelling: str) -> None:
    assert parse(spelling.format(m=MODULE)).canonical == f"{PREFIX}{MODULE}.lora_A.weight"


def test_canonical_names_are_themselves() -> None:
    for name in (
        f"{PREFIX}{MODULE}.lora_A.weight",
        f"{PREFIX}bert.pooler.dense.bias",
        f"{PREFIX}{MODULE}.base_layer.weight",
        f"{PREFIX}model.model.layers.0.q_proj.lora_B.weight",
        f"{PREFIX}model.embed_tokens.lora_embedding_B",
        f"{PREFIX}{MODULE}.hada_w1_a",
    ):
        key = parse(name)
        assert key.canonical == name
        assert key.has_canonical_prefix


def test_a_wrapper_that_the_base_owns_stays() -> None:
    name = f"{PREFIX}module.layers.0.q_proj.lora_A.weight"
    assert not parse(name).has_canonical_prefix
    kept = parse(name, frozenset({"module"}))
    assert kept.has_canonical_prefix
    assert kept.module == "module.layers.0.q_proj"


words = st.sampled_from(
    ["base_model", "model", "module", "lora_A", "weight", "modules_to_save", "", "x", "layers.0.q_proj"]
)


@given(st.text(max_size=60) | st.lists(words).map(".".join))
def test_every_string_has_a_parse(name: str) -> None:
    key = parse(name)
    assert key.name == name
    assert key.canonical.startswith(PREFIX)


@given(
    st.lists(words, max_size=4).map(".".join), st.sampled_from(["lora_A.weight", "lora_B.x.weight", "lora_embedding_A"])
)
def test_canonical_names_are_stable(start: str, suffix: str) -> None:
    key = parse(f"{start}.model.layers.0.q_proj.{suffix}")
    again = parse(key.canonical)
    if "lora_A" not in start and "modules_to_save" not in start:
        assert again.canonical == key.canonical
        assert again.has_canonical_prefix


PARTS = """base_model model module _orig_mod layers 0 q_proj lora_A ia3_l base_layer vera_A modules_to_save weight
modules original_module token_adapter trainable_tokens_delta"""
parts = st.sampled_from(PARTS.split())


@given(st.lists(parts, max_size=6).map(".".join), st.sampled_from([".lora_A.weight", ".lora_B.weight", ".weight", ""]))
def test_the_quick_way_says_the_same(middle: str, end: str) -> None:
    name = f"{PREFIX}{middle}{end}"
    quick = _ordinary(name)
    assert quick is None or quick == _take_apart(name, frozenset())
