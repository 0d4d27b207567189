"""What PEFT's class of a task does with real model classes, against AL407, for the PEFT and transformers installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("peft")

import peft
import torch
import transformers

from adapterlint.findings import Outcome
from adapterlint.model.target import resolve
from adapterlint.rules.base_model.unsuited_transformers import missing_method
from adapterlint.rules.base_model.wrong_task_class import task_effects

TARGET = resolve((f"peft=={peft.__version__},transformers=={transformers.__version__}",))[0]
_SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim", "embedding_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "n_layer", "n_head"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim"), 32),
    "vocab_size": 48,
    "n_layers": 2,
    "n_heads": 2,
    "rotary_dim": 8,
    "max_position_embeddings": 64,
    "num_labels": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_local_experts": 2,
    "decoder_start_token_id": 1,
}
CLASSES = [
    *(f"{kind}For{head}" for kind in ("Bert", "Roberta", "DistilBert", "Electra") for head in ("MaskedLM", "SequenceClassification", "QuestionAnswering")),
    *("AlbertForMaskedLM", "RemBertForMaskedLM", "DebertaV2ForSequenceClassification", "BertForTokenClassification"),
    *(f"{kind}For{head}" for kind in ("Llama", "Mistral", "GPTNeoX", "GPTJ", "OPT") for head in ("CausalLM", "SequenceClassification", "QuestionAnswering")),
    *("MixtralForCausalLM", "MixtralForQuestionAnswering", "PhiForCausalLM", "PhiForSequenceClassification"),
    *("GPT2LMHeadModel", "GPT2ForSequenceClassification", "GPT2ForQuestionAnswering", "BloomForCausalLM"),
    *("BartForConditionalGeneration", "BartForSequenceClassification", "BartForQuestionAnswering"),
]  # fmt: skip
TASKS = ["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "QUESTION_ANS"]


def happens(cls: Any, task: str) -> str:
    """The exception, or nothing."""
    known = vars(cls.config_class())
    config = cls.config_class(**{name: size for name, size in _SIZES.items() if name in known or name == "num_labels"})
    model = cls(config).eval()
    leaf = next(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and any(part.isdigit() for part in name.split("."))
    )
    try:
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=[leaf], task_type=task)).eval()
        adapted(input_ids=torch.tensor([[1, 5, 7, 2]]))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_task_does_to_a_class_what_is_said(name: str, task: str) -> None:
    cls = getattr(transformers, name, None)
    if cls is None:
        pytest.skip("this transformers has no such class")
    base = SimpleNamespace(model_type=cls.config_class.model_type, architecture=name, is_task_class=True)
    subject = SimpleNamespace(base=base, adapter={"task_type": task})
    effects = [*task_effects(base, task), *missing_method(subject)]  # type: ignore[arg-type]
    held = sorted(TARGET.holding(effects), key=lambda effect: (-effect.outcome.rank, effect.stage != "load"))
    raised = happens(cls, task)
    if held and held[0].outcome is Outcome.UNKNOWN:
        assert raised  # as the base's class; it may be loaded with another
    else:
        assert (held[0].exception or "" if held else "")[:90] == raised[:90]
