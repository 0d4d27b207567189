"""Targets that PEFT fills in by the base's ``model_type`` where ``target_modules`` is null, for methods beyond LoRA.

Source: TRANSFORMERS_MODELS_TO_*_TARGET_MODULES_MAPPING of PEFT 0.21.2. A method that is not listed takes LoRA's.
"""

from __future__ import annotations

from functools import lru_cache

from adapterlint.model.defaults import default_targets

_T5 = "q k v o wi wo"
_MT5 = "q k v o wi_0 wi_1 wo"
_SIX = "q_proj k_proj v_proj out_proj fc1 fc2"
_GEMMA4 = r".*language_model\..*\.(q_proj|v_proj)"
_SEVEN = "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj"
_QV_FAMILY = ("llama", "llama4", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3")

_IA3 = {
    "t5": "k v wo",
    "mt5": "k v wi_1",
    "gpt2": "c_attn mlp.c_proj",
    "bloom": "query_key_value mlp.dense_4h_to_h",
    "roberta": "key value output.dense",
    "opt": "q_proj k_proj fc2",
    "gptj": "q_proj v_proj fc_out",
    "gpt_neox": "query_key_value dense_4h_to_h",
    "gpt_neo": "q_proj v_proj c_proj",
    "bart": "q_proj v_proj fc2",
    "gpt_bigcode": "c_attn mlp.c_proj",
    "llama": "k_proj v_proj down_proj",
    "llama4": "q_proj v_proj down_proj",
    "mistral": "k_proj v_proj down_proj",
    "mixtral": "k_proj v_proj w2",
    "bert": "key value output.dense",
    "deberta-v2": "key_proj value_proj output.dense",
    "deberta": "in_proj output.dense",
    **dict.fromkeys(("RefinedWebModel", "RefinedWeb", "falcon"), "query_key_value dense_4h_to_h"),
    "phi": "q_proj v_proj fc2",
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "qwen2", "qwen3"), "q_proj v_proj down_proj"),
}
_FEEDFORWARD = {name: targets.split()[-1] for name, targets in _IA3.items()} | {"mt5": ""}

_NORMS = "input_layernorm post_attention_layernorm norm"
_GEMMA2 = "input_layernorm post_attention_layernorm pre_feedforward_layernorm post_feedforward_layernorm norm"
_LN = {
    **dict.fromkeys(("llama", "mistral", "gemma"), _NORMS),
    **dict.fromkeys(("bloom", "falcon"), "input_layernorm post_attention_layernorm ln_f"),
    "llava": f"multi_modal_projector {_NORMS} embed_tokens lm_head",
    **dict.fromkeys(("t5", "mt5"), "layer_norm final_layer_norm"),
    "bart": "self_attn_layer_norm encoder_attn_layer_norm final_layer_norm",
    "gpt2": "ln_1 ln_2 ln_f",
    "blip-2": "layernorm LayerNorm final_layer_norm self_attn_layer_norm",
    "gptj": "ln_1 ln_f",
    "phi": "input_layernorm final_layernorm",
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA2),
    **dict.fromkeys(("qwen2", "qwen3"), "post_attention_layernorm"),
}
_VBLORA = {
    "t5": _T5,
    "mt5": _MT5,
    **dict.fromkeys(("bart", "opt"), _SIX),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), "c_attn"),
    **dict.fromkeys(("bloom", "gpt_neox"), "query_key_value"),
    **dict.fromkeys(("gptj", "gpt_neo", *_QV_FAMILY), "q_proj v_proj"),
    **dict.fromkeys(("bert", "roberta"), "query value"),
    "deberta-v2": "query_proj key_proj value_proj dense",
    "deberta": "in_proj",
    "gemma4": _GEMMA4,
    "nemotron_h": "q_proj k_proj v_proj o_proj",
}
_OSF = {
    **dict.fromkeys((*_QV_FAMILY, "mistral", "mixtral", "phi"), _SEVEN),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), "c_attn c_proj"),
    **dict.fromkeys(("bloom", "gpt_neox", "falcon"), "query_key_value dense_4h_to_h"),
    "opt": _SIX,
    "gptj": "q_proj k_proj v_proj out_proj fc_in fc_out",
}
_BEFT = {
    **dict.fromkeys(("t5", "mt5"), "v"),
    **dict.fromkeys(("roberta", "bert"), "value"),
    **dict.fromkeys(("opt", "gptj", "gpt_neo", "bart", *_QV_FAMILY, "mistral", "mixtral", "phi"), "v_proj"),
    "deberta-v2": "value_proj",
}
_OWN = {
    "IA3": _IA3,
    "LN_TUNING": _LN,
    "VBLORA": _VBLORA,
    "ADALORA": _VBLORA | {"roberta": "query key value dense"},
    "OSF": _OSF,
    "BEFT": _BEFT,
}
_C_PROJ = dict.fromkeys(("gpt2", "gpt_bigcode"), "mlp.c_proj")
_NARROW_PHI = {"phi": "q_proj v_proj"}
_CHANGED = {
    **dict.fromkeys(("FOURIERFT", "C3A", "WAVEFT"), _C_PROJ),
    **dict.fromkeys(("SHIRA", "VERA"), _NARROW_PHI),
    "FROD": {**_NARROW_PHI, "vit": "query value"},
    "PVERA": {**_NARROW_PHI, "dinov2": "query value"},
    "ADAMSS": {"vit": "query value"},
}


_ABSENT = {"WAVEFT": frozenset({"btlm", "rwkv", "rwkv7"})}


@lru_cache(maxsize=256)
def targets_by_default(peft_type: str | None, model_type: str) -> tuple[str, ...] | str | None:
    """The targets of a method that the newest release fills in; a text is a regular expression, None: it raises."""
    text = _OWN[peft_type].get(model_type) if peft_type in _OWN else _CHANGED.get(peft_type or "", {}).get(model_type)
    if text is not None:
        return text if "*" in text else tuple(text.split())
    if peft_type in _OWN or model_type in _ABSENT.get(peft_type or "", ()):
        return None
    return default_targets(model_type)


def feedforward_by_default(model_type: str) -> tuple[str, ...] | None:
    """The modules whose inputs IA3 scales where ``feedforward_modules`` is null; None: it raises."""
    text = _FEEDFORWARD.get(model_type)
    return None if text is None else tuple(text.split())
