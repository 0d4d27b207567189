"""The grammar of the tensor names of methods other than LoRA."""

from __future__ import annotations

import pytest

from adapterlint.model.keys import PREFIX, SHARED_PREFIX, Kind, parse

MODULE = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("stored", "parameter", "adapter"),
    [
        ("ia3_l", "ia3_l", None),
        ("ia3_l.other", "ia3_l", "other"),
        ("ia3_l.weight", "ia3_l.weight", None),
        ("hada_w1_a.default", "hada_w1_a", "default"),
        ("oft_R.weight", "oft_R.weight", None),
        ("oft_R.default.weight", "oft_R.weight", "default"),
        ("osf_svd_params.U_low", "osf_svd_params.U_low", None),
        ("osf_svd_params.default.U_low", "osf_svd_params.U_low", "default"),
        ("psoft_R.vector_a.weight", "psoft_R.vector_a.weight", None),
        ("peanut_encoders.0.weight", "peanut_encoders.0.weight", None),
        ("peanut_encoders.0.0.weight", "peanut_encoders.0.weight", "0"),
        ("ln_tuning_layers.bias", "ln_tuning_layers.bias", None),
        ("trainable_tokens_delta", "trainable_tokens_delta", None),
        ("randlora_A", "randlora_A", None),
        ("vblora_logits_A_topk_indices", "vblora_logits_A_topk_indices", None),
    ],
)
def test_a_module_s_tensor(stored: str, parameter: str, adapter: str | None) -> None:
    key = parse(f"{PREFIX}{MODULE}.{stored}")
    assert (key.kind, key.module, key.parameter, key.adapter) == (Kind.METHOD, MODULE, parameter, adapter)
    assert key.canonical == f"{PREFIX}{MODULE}.{parameter}"
    assert key.has_canonical_prefix


@pytest.mark.parametrize(
    ("name", "parameter", "adapter", "canonical"),
    [
        ("base_model.vera_A", "vera_A", None, True),
        ("base_model.vera_A.default", "vera_A", "default", True),
        ("module.base_model.vera_A", "vera_A", None, False),
        ("base_model.model.base_model.vera_A", "vera_A", None, False),
        ("base_model.model.vera_A", "vera_A", None, False),
        ("vera_A", "vera_A", None, False),
        ("base_model.tinylora_v.0", "tinylora_v.0", None, True),
        ("base_model.tinylora_v.0.0", "tinylora_v.0", "0", True),
        ("base_model.frod_V.self_attn_q_proj", "frod_V.self_attn_q_proj", None, True),
        ("base_model.frod_V.self_attn_q_proj.foo", "frod_V.self_attn_q_proj", "foo", True),
        ("base_model.vblora_vector_bank", "vblora_vector_bank", None, True),
    ],
)
def test_a_tensor_of_the_whole_model(name: str, parameter: str, adapter: str | None, canonical: bool) -> None:
    key = parse(name)
    assert (key.kind, key.module, key.parameter, key.adapter) == (Kind.SHARED, "", parameter, adapter)
    assert key.canonical == SHARED_PREFIX + parameter
    assert key.has_canonical_prefix == canonical


@pytest.mark.parametrize("spelling", ["{m}.hada_w1_a", "_orig_mod.base_model.model.{m}.hada_w1_a", "{m}.hada_w1_a.x"])
def test_every_spelling_has_one_canonical_name(spelling: str) -> None:
    assert parse(spelling.format(m=MODULE)).canonical == f"{PREFIX}{MODULE}.hada_w1_a"
