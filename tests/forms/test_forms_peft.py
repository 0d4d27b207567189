"""The normal forms against whatever PEFT is installed: every adapter answers as it did alone, before.

Run it in one environment per release (``tox -e forms-0.14.0``): what a form cures differs from release to release.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from forms_util import (
    BASES,
    FIXTURES,
    TOKENS,
    Maker,
    alone,
    fixed,
    fresh,
    gpt2_base,
    loading_orders,
    together,
    worst,
)

from adapterlint.releases import version_key

for _library in ("torch", "transformers", "peft"):
    pytest.importorskip(_library)

PEFT = version_key(importlib.metadata.version("peft"))
pytestmark = [
    pytest.mark.peft,
    pytest.mark.skipif(PEFT < (0, 8), reason="the forms are measured on PEFT 0.8 and newer"),
]

ROUNDED = 2e-5
"""Largest difference of a logit that float32 explains when sums are made in another order."""

CLASSIFIER = {"classifier": ["classifier.weight", "classifier.bias"]}
POOLER = {"pooler": ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]}
HEAD = {"lm_head": ["lm_head.weight"]}
EMBEDDING = {"embed_tokens": ["model.embed_tokens.weight"]}
SHORT = ("query", "value")


def seed(make: Maker) -> list[Path]:
    return [Path(shutil.copytree(FIXTURES / "sets" / "seed" / name, make.root / name)) for name in "abcd"]


def bert_mixed(make: Maker) -> list[Path]:
    """Five adapters: every combination of saved modules, ranks, scales and targets."""
    return [
        make.adapter("a", SHORT, CLASSIFIER),
        make.adapter("b", SHORT, POOLER, r=8, lora_alpha=4),
        make.adapter("c", ("query",), {**CLASSIFIER, **POOLER}, r=2, use_rslora=True),
        make.adapter("d", ("query", "key", "output.dense"), lora_alpha=24, lora_dropout=0.1),
        make.adapter("e", SHORT, CLASSIFIER, rank_pattern={"value": 2}, alpha_pattern={"value": 3}),
    ]


def bert_typed(make: Maker) -> list[Path]:
    """Task classes, which look for a head in every adapter."""
    return [make.adapter(name, SHORT, CLASSIFIER, task_type="SEQ_CLS", r=size) for name, size in (("a", 4), ("b", 2))]


def bert_weights(make: Maker) -> list[Path]:
    """Heads whose bias is still the base's: no bias of B is needed, so that older releases will do."""
    return [
        make.adapter("a", SHORT, CLASSIFIER, changed=["classifier.weight"]),
        make.adapter("b", ("value",), POOLER, changed=["bert.pooler.dense.weight"], r=8),
        make.adapter("c", ("query", "key")),
    ]


def bert_biases(make: Maker) -> list[Path]:
    """Trained biases, for which PEFT has one place in all adapters, so that no two of them load."""
    return [
        make.adapter("a", SHORT, bias="lora_only"),
        make.adapter("b", ("value",), CLASSIFIER, bias="lora_only", lora_alpha=3),
        make.adapter("c", SHORT, r=2),
    ]


def llama_heads(make: Maker) -> list[Path]:
    return [
        make.adapter("a", ("q_proj", "v_proj"), HEAD, lora_alpha=16),
        make.adapter("b", ("q_proj", "v_proj"), HEAD, r=2, use_rslora=True),
        make.adapter("c", ("q_proj", "down_proj"), task_type="CAUSAL_LM"),
    ]


def llama_embeddings(make: Maker) -> list[Path]:
    return [
        make.adapter("a", ("q_proj", "v_proj"), {**EMBEDDING, **HEAD}),
        make.adapter("b", ("q_proj", "v_proj"), EMBEDDING, r=2),
        make.adapter("c", ("q_proj", "v_proj")),
    ]


def llama_pair(make: Maker) -> list[Path]:
    """Different layers, and nothing saved: nothing of the base is needed but shapes."""
    return [make.adapter("a", ("q_proj", "v_proj"), r=8), make.adapter("b", ("gate_proj", "q_proj"), lora_alpha=1)]


def gpt2_heads(make: Maker) -> list[Path]:
    return [make.adapter("a", ("c_attn",), HEAD), make.adapter("b", ("c_attn",), r=2)]


def gpt2_attention(make: Maker) -> list[Path]:
    return [make.adapter("a", ("c_attn",), use_rslora=True), make.adapter("b", ("attn.c_proj", "c_fc"), r=2)]


class Case(NamedTuple):
    """A set, and the base that it is for."""

    base: str
    make: Callable[[Maker], list[Path]]

    @property
    def id(self) -> str:
        return f"{self.base}-{self.make.__name__}"


UNION = [
    Case("bert", seed),
    Case("bert", bert_mixed),
    Case("bert", bert_typed),
    Case("llama", llama_heads),
    Case("llama", llama_embeddings),
    Case("llama-tied", llama_heads),
    Case("llama-tied", llama_embeddings),
    Case("gpt2", gpt2_heads),
]
LOWRANK = [
    Case("bert", seed),
    Case("bert", bert_mixed),
    Case("bert", bert_typed),
    Case("bert", bert_weights),
    Case("bert", bert_biases),
    Case("llama", llama_heads),
    Case("llama", llama_pair),
    Case("llama-tied", llama_pair),
    Case("gpt2", gpt2_attention),
]


class Made(NamedTuple):
    """A set in a form, and what its adapters answered before."""

    base: Path
    adapters: list[Path]
    wanted: dict[str, Any]


def built(case: Case, form: str, root: Path) -> Made:
    base = gpt2_base(root / "base") if case.base == "gpt2" else BASES[case.base][1]
    adapters = case.make(Maker(base, root / "old"))
    wanted = {path.name: alone(base, path) for path in adapters}
    options = ["--form", form, "--base", str(base), "--target", f"peft=={importlib.metadata.version('peft')}"]
    return Made(base, fixed(adapters, root / "new", *options), wanted)


def of(case: Case, form: str, tmp: pytest.TempPathFactory, cache: dict[str, Made] = {}) -> Made:  # noqa: B006
    """Every case is made once."""
    key = f"{form}-{case.id}"
    if key not in cache:
        cache[key] = built(case, form, tmp.mktemp(key))
    return cache[key]


def biased(case: Case) -> bool:
    """Whether a bias changes, so that the form needs ``lora_bias``."""
    return case.make in (seed, bert_mixed, bert_typed, bert_biases)


union_case = pytest.mark.parametrize("case", UNION, ids=[case.id for case in UNION])
lowrank_case = pytest.mark.parametrize("case", LOWRANK, ids=[case.id for case in LOWRANK])


def skip_impossible(case: Case, form: str) -> None:
    if form == "lowrank" and biased(case) and PEFT < (0, 14):
        pytest.skip("a changed bias needs lora_bias, which PEFT has from 0.14 on")
    if form == "union" and case.make is bert_typed and (0, 13) <= PEFT < (0, 14):
        pytest.skip("PEFT 0.13 loads no second adapter into a task class")


@union_case
def test_union_answers_as_before_in_every_order(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    skip_impossible(case, "union")
    made = of(case, "union", tmp_path_factory)
    names = [path.name for path in made.adapters]
    for order in loading_orders(made.adapters):
        for name, logits in together(made.base, order, [*names, *names]):
            assert logits.equal(made.wanted[name]), (name, [path.name for path in order])


@lowrank_case
def test_lowrank_answers_as_before_in_every_order(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    skip_impossible(case, "lowrank")
    made = of(case, "lowrank", tmp_path_factory)
    names = [path.name for path in made.adapters]
    for order in loading_orders(made.adapters):
        found = together(made.base, order, [*names, *names])
        assert worst(found, made.wanted) < ROUNDED, [path.name for path in order]


def loaded(made: Made, paths: Sequence[Path] | None = None) -> Any:
    from peft import PeftModel

    first, *others = paths or made.adapters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(fresh(made.base), str(first), adapter_name=first.name)
        for path in others:
            model.load_adapter(str(path), adapter_name=path.name)
    return model.eval()


def logits(model: Any, **more: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor(TOKENS), **more).logits


@pytest.mark.skipif(PEFT < (0, 10), reason="PEFT 0.10 and newer mix adapters in a batch")
@lowrank_case
def test_lowrank_mixes_in_a_batch(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    skip_impossible(case, "lowrank")
    made = of(case, "lowrank", tmp_path_factory)
    model, base = loaded(made), logits(fresh(made.base))
    names = [path.name for path in made.adapters]
    for number, name in enumerate(names):
        mixed = logits(model, adapter_names=[name, names[number - 1]])
        for row, wanted in enumerate((made.wanted[name], made.wanted[names[number - 1]])):
            assert float((mixed[row] - wanted[row]).abs().max()) < ROUNDED * float(wanted.abs().max()), name
    bare = logits(model, adapter_names=["__base__", names[0]])[0]
    assert float((bare - base[0]).abs().max()) < ROUNDED * float(base.abs().max())


@pytest.mark.skipif(PEFT < (0, 14), reason="PEFT 0.14 and newer swap adapters")
@lowrank_case
def test_lowrank_can_be_swapped(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    from peft.utils.hotswap import hotswap_adapter

    made = of(case, "lowrank", tmp_path_factory)
    for first in (made.adapters[0], made.adapters[-1]):
        model = loaded(made, [first])
        for path in (*made.adapters, *reversed(made.adapters)):
            hotswap_adapter(model, str(path), adapter_name=first.name)
            assert worst([(path.name, logits(model))], made.wanted) < ROUNDED, (first.name, path.name)


@lowrank_case
def test_lowrank_merges(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    skip_impossible(case, "lowrank")
    made = of(case, "lowrank", tmp_path_factory)
    for path in made.adapters:
        model = loaded(made)
        model.set_adapter(path.name)
        assert worst([(path.name, logits(model.merge_and_unload()))], made.wanted) < 5 * ROUNDED, path.name


@pytest.mark.skipif(PEFT < (0, 9), reason="transformers 4.36 leaves the first adapter active")
@lowrank_case
def test_lowrank_is_loaded_by_transformers_itself(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    skip_impossible(case, "lowrank")
    made = of(case, "lowrank", tmp_path_factory)
    model = fresh(made.base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in made.adapters:
            model.load_adapter(str(path), adapter_name=path.name)
            assert worst([(path.name, logits(model))], made.wanted) < ROUNDED, path.name
    for path in made.adapters:
        model.set_adapter(path.name)
        assert worst([(path.name, logits(model))], made.wanted) < ROUNDED, path.name


# -- portable ------------------------------------------------------------------------------------------------------

PORTABLE: dict[str, tuple[str, Callable[[Maker], Path], float]] = {
    "plain": ("llama", lambda make: make.adapter("a", ("q_proj", "v_proj"), lora_alpha=16), ROUNDED),
    "rslora": ("llama", lambda make: make.adapter("a", ("q_proj", "v_proj"), use_rslora=True), ROUNDED),
    "patterns": (
        "bert",
        lambda make: make.adapter(
            "a", ("query", "value"), rank_pattern={"value": 2, "layer.1.attention.self.query": 7},
            alpha_pattern={"layer.1.attention.self.query": 3, "value": 5}, use_rslora=True,
        ),
        ROUNDED,
    ),
    "patterns that compete": (
        "bert",
        lambda make: make.adapter(
            "a", ("query", "value"), rank_pattern={"layer.1.attention.self.query": 7}, alpha_pattern={"query": 3},
        ),
        ROUNDED,
    ),
    "some layers": ("llama", lambda make: make.adapter("a", ("q_proj", "up_proj"), layers_to_transform=[1], r=3), ROUNDED),
    "gpt2": ("gpt2", lambda make: make.adapter("a", ("c_attn", "c_fc"), rank_pattern={"c_fc": 2}), ROUNDED),
    "a head equal to the base": (
        "bert", lambda make: make.adapter("a", SHORT, CLASSIFIER, changed=(), task_type="SEQ_CLS"), ROUNDED,
    ),
    "bfloat16": (
        "llama", lambda make: make.adapter("a", ("q_proj", "v_proj"), dtype=ml_dtypes.bfloat16, lora_alpha=7), 2e-2,
    ),
    "float16": ("llama", lambda make: make.adapter("a", ("q_proj", "v_proj"), dtype=np.float16, lora_alpha=7), 2e-3),
    "bfloat16, a power of two": (
        "llama", lambda make: make.adapter("a", ("q_proj", "v_proj"), dtype=ml_dtypes.bfloat16, lora_alpha=16), ROUNDED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PORTABLE)
def test_portable_answers_as_before(name: str, tmp_path: Path) -> None:
    if name == "patterns that compete" and PEFT < (0, 15):
        pytest.skip("PEFT before 0.15 reads them otherwise than they were meant")
    base_name, make, tolerance = PORTABLE[name]
    base = gpt2_base(tmp_path / "base") if base_name == "gpt2" else BASES[base_name][1]
    old = make(Maker(base, tmp_path / "old"))
    wanted = {"a": alone(base, old)}
    (new,) = fixed([old], tmp_path / "new", "--form", "portable", "--base", str(base))
    assert worst([("a", alone(base, new))], wanted) < tolerance
