"""Names of a base checkpoint as its model class has them, against transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterlint import assemble

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_SIZES = {"vocab_size": 48, "num_labels": 3}
_T5 = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4, **_SIZES}
_BERT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, **_SIZES}
_BART = {
    **_SIZES,
    "d_model": 16,
    **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in (("layers", 1), ("ffn_dim", 32))},
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 32, **_SIZES}
_OPT = {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "word_embed_proj_dim": 16}
_CASES = [  # task class, bare class, config
    ("T5ForConditionalGeneration", "T5Model", "T5Config", _T5),
    ("T5ForSequenceClassification", "T5Model", "T5Config", _T5),
    ("BartForConditionalGeneration", "BartModel", "BartConfig", _BART),
    ("BartForSequenceClassification", "BartModel", "BartConfig", _BART),
    ("BertForSequenceClassification", "BertModel", "BertConfig", _BERT),
    ("RoFormerForTokenClassification", "RoFormerModel", "RoFormerConfig", _BERT),
    ("LlamaForCausalLM", "LlamaModel", "LlamaConfig", _BERT),
    ("GPT2LMHeadModel", "GPT2Model", "GPT2Config", _GPT2),
    ("OPTForCausalLM", "OPTModel", "OPTConfig", {**_OPT, **_SIZES}),
]


@pytest.mark.parametrize(("task", "bare", "config", "sizes"), _CASES, ids=[case[0] for case in _CASES])
@pytest.mark.parametrize("of_bare", [False, True], ids=["of the task class", "of the bare model"])
def test_names_are_those_of_the_model(
    task: str, bare: str, config: str, sizes: dict[str, Any], of_bare: bool, tmp_path: Path
) -> None:
    described = getattr(transformers, config)(**sizes)
    model = getattr(transformers, task)(described)
    saved = getattr(transformers, bare)(described) if of_bare else model
    saved.save_pretrained(tmp_path)
    described.architectures = [task]
    (tmp_path / "config.json").write_text(json.dumps(described.to_dict()))
    base, _ = assemble.read_base(str(tmp_path))
    real = {name for name, _ in model.named_modules() if name}
    assert set(base.modules) <= real
    assert len(base.modules) > 10
    assert set(base.missing_heads) <= real
