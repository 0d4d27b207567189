"""The order in which a model creates its modules, against transformers' own classes."""

from __future__ import annotations

import random

import pytest

from adapterlint.model.together import in_model_order

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 11,
    "vocab_size": 48,
    "head_dim": 4,
}
CLASSES = {
    "Llama": ("LlamaForCausalLM", SMALL),
    "Mistral": ("MistralForCausalLM", SMALL),
    "Qwen2": ("Qwen2ForCausalLM", SMALL),
    "Gemma2": ("Gemma2ForCausalLM", SMALL),
    "Bert": ("BertForSequenceClassification", SMALL),
    "Roberta": ("RobertaForSequenceClassification", SMALL),
    "Electra": ("ElectraForSequenceClassification", SMALL),
    "GPTNeoX": ("GPTNeoXForCausalLM", SMALL),
    "GPT2": ("GPT2ForSequenceClassification", {"n_embd": 16, "n_head": 4, "n_layer": 11, "vocab_size": 48}),
    "DistilBert": (
        "DistilBertForSequenceClassification",
        {"dim": 16, "hidden_dim": 32, "n_heads": 4, "vocab_size": 48},
    ),
    "T5": ("T5ForConditionalGeneration", {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "vocab_size": 48}),
    "Falcon": ("FalconForCausalLM", {"hidden_size": 16, "num_attention_heads": 4, "vocab_size": 48}),
}

pytestmark = pytest.mark.peft


@pytest.mark.parametrize("name", CLASSES)
def test_modules_with_weights_in_the_order_of_the_class(name: str) -> None:
    model_class, sizes = CLASSES[name]
    config = getattr(transformers, f"{name}Config")(**sizes)
    with torch.device("meta"):
        model = getattr(transformers, model_class)(config)
    created = [path for path, module in model.named_modules() if _targetable(module)]
    assert len(created) > 8
    shuffled = random.Random(0).sample(created, len(created))
    assert in_model_order(shuffled) == created


def _targetable(module: object) -> bool:
    return isinstance(module, (torch.nn.Linear, torch.nn.Embedding)) or type(module).__name__ == "Conv1D"
