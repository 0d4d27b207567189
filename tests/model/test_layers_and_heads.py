"""Which number of a path is the layer's, by release: the regular expressions of PEFT's ``tuners_utils.py``."""

from __future__ import annotations

import pytest

from adapterlint.model.base import Base
from adapterlint.model.peft import Numbering, layer_index
from adapterlint.model.tensor import Tensor

EXPERT = "model.layers.1.mlp.experts.3.w1"
BLOCK = "encoder.block.1.layer.0.SelfAttention.q"
BARE = "layers.2.self_attn.q_proj"


@pytest.mark.parametrize(
    ("module", "pattern", "numbering", "expected"),
    [
        (EXPERT, None, "first", 1),
        (EXPERT, None, "last", 3),
        (EXPERT, None, "common", 1),
        (BLOCK, None, "first", 1),
        (BLOCK, None, "last", 0),
        (BLOCK, None, "common", 1),
        (BLOCK, "layer", "first", 0),
        (BLOCK, ["blocks", "block"], "last", 1),
        (BARE, "layers", "first", 2),
        (BARE, "layers", "last", None),
        (BARE, None, "last", None),
        ("lm_head", None, "first", None),
    ],
)
def test_the_number_of_a_layer(module: str, pattern: object, numbering: Numbering, expected: int | None) -> None:
    assert layer_index(module, pattern, numbering) == expected


def base(architecture: str, kind: str, *names: str, **config: object) -> Base:
    stored = {name: Tensor(name, "F32", (16, 16) if name.endswith("weight") else (16,)) for name in names}
    return Base("base", {"architectures": [architecture], "model_type": kind, **config}, stored)


def test_the_decoder_of_a_masked_language_model_is_there_though_it_is_tied() -> None:
    found = base(
        "BertForMaskedLM",
        "bert",
        "bert.embeddings.word_embeddings.weight",
        "cls.predictions.bias",
        "cls.predictions.transform.dense.weight",
    )
    assert found.tied_heads == ("cls.predictions.decoder",)
    assert found.kind("cls.predictions.decoder") == "linear"
    assert {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"} <= found.under("cls.predictions").keys()
    assert found.under("cls.predictions.decoder").keys() <= found.under("cls.predictions").keys()


def test_a_missing_head_that_is_a_block_has_its_layers() -> None:
    found = base("RobertaForSequenceClassification", "roberta", "roberta.embeddings.word_embeddings.weight")
    assert {"classifier", "classifier.dense", "classifier.out_proj"} <= found.modules.keys()
    assert (found.kind("classifier"), found.kind("classifier.dense")) == ("container", "linear")
    flat = base("RobertaForTokenClassification", "roberta", "roberta.embeddings.word_embeddings.weight")
    assert "classifier.dense" not in flat.modules and flat.kind("classifier") == "linear"


@pytest.mark.parametrize(("kind", "tied"), [("falcon", True), ("gpt2", True), ("llama", False), ("qwen2", False)])
def test_what_a_config_leaves_out_is_the_types_default(kind: str, tied: bool) -> None:
    assert base("X", kind).tied is tied
    assert base("X", kind, tie_word_embeddings=not tied).tied is not tied
