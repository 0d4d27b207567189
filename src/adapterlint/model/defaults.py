"""Targets that PEFT fills in when ``target_modules`` is null, by the base's ``model_type``.

Source: TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING of PEFT 0.4.0 to 0.21.2; entries only ever get added.
"""

from __future__ import annotations

from adapterlint.releases import version_key

_ADDED: dict[str, dict[str, str]] = {
    "0.3.0": {
        "t5": "q v",
        "mt5": "q v",
        "bart": "q_proj v_proj",
        "gpt2": "c_attn",
        "bloom": "query_key_value",
        "blip-2": "q v q_proj v_proj",
        "opt": "q_proj v_proj",
        "gptj": "q_proj v_proj",
        "gpt_neox": "query_key_value",
        "gpt_neo": "q_proj v_proj",
        "bert": "query value",
        "roberta": "query value",
        "xlm-roberta": "query value",
        "electra": "query value",
        "deberta-v2": "query_proj value_proj",
        "deberta": "in_proj",
        "layoutlm": "query value",
        "llama": "q_proj v_proj",
        "chatglm": "query_key_value",
        "gpt_bigcode": "c_attn",
        "mpt": "Wqkv",
    },
    "0.6.0": {
        "RefinedWebModel": "query_key_value",
        "RefinedWeb": "query_key_value",
        "falcon": "query_key_value",
        "btlm": "c_proj c_attn",
        "codegen": "qkv_proj",
        "mistral": "q_proj v_proj",
        "stablelm": "q_proj v_proj",
    },
    "0.8.0": {"mixtral": "q_proj v_proj", "phi": "q_proj v_proj fc1 fc2"},
    "0.11.0": {"gemma": "q_proj v_proj"},
    "0.14.0": {"gemma2": "q_proj v_proj", "qwen2": "q_proj v_proj"},
    "0.17.0": {"llama4": "q_proj v_proj", "gemma3_text": "q_proj v_proj", "qwen3": "q_proj v_proj"},
    "0.21.0": {
        "gemma4": r".*language_model\..*\.(q_proj|v_proj)",
        "nemotron_h": "q_proj k_proj v_proj o_proj",
        "rwkv": "key value receptance output",
        "rwkv7": "r_proj k_proj v_proj o_proj key value",
    },
}


def default_targets(model_type: str) -> tuple[str, ...] | str | None:
    """The targets the newest release fills in; a text is a regular expression, None: this type is unknown to PEFT."""
    for table in _ADDED.values():
        if model_type in table:
            text = table[model_type]
            return text if "*" in text else tuple(text.split())
    return None


def default_since(model_type: str) -> tuple[int, ...] | None:
    """The first release known to fill in targets for this model type."""
    for version, table in _ADDED.items():
        if model_type in table:
            return version_key(version)
    return None
