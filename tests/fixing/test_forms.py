"""What lowrank and portable make, and what they refuse. That PEFT answers the same is verified in tests/forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rules_util import run_example
from safetensors.numpy import load_file, save_file

from adapterlint.findings import DropTensor, Edit, MakeTensor, RemoveConfig, SetConfig, ZeroTensor
from adapterlint.fixing import terms, values
from adapterlint.fixing.forms import FormError, plan_form
from adapterlint.fixing.forms.factors import product
from adapterlint.fixing.values import Stored, Values
from adapterlint.model.subject import SetSubject
from adapterlint.model.target import resolve
from adapterlint.rules.examples import (
    BaseExample,
    Example,
    SetExample,
    Shapes,
    bert_base,
    bert_config,
    bert_tensors,
    llama_base,
    llama_tensors,
    lora_config,
    lora_pair,
)
from adapterlint.run import Request, examine

PREFIX = "base_model.model."
WEIGHT, BIAS = f"{PREFIX}classifier.weight", f"{PREFIX}classifier.bias"
CLASSIFIER = {WEIGHT: ("F32", (3, 16)), BIAS: ("F32", (3,))}
QUERY = "bert.encoder.layer.0.attention.self.query"
NORM = f"{PREFIX}bert.encoder.layer.0.attention.output.LayerNorm.bias"
NEWEST = resolve(("peft",))
Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"


def subject(tmp_path: Path, base: BaseExample | None, **members: Example) -> SetSubject:
    example = SetExample("set", members, base)
    run = run_example(example, tmp_path)
    if run.sets:
        return run.sets[0].subject
    return SetSubject(tuple(checked.subject for checked in run.adapters), run.adapters[0].subject.base)


def changed(found: SetSubject, *names: str) -> SetSubject:
    """Make the first member's whole tensors the base's, but for these."""
    assert found.base is not None
    file = Path(found.members[0].adapter.path, "adapter_model.safetensors")
    tensors, base = load_file(file), load_file(Path(found.base.path, "model.safetensors"))
    tensors.update({name: base[name[len(PREFIX) :]] for name in tensors if name[len(PREFIX) :] in base})
    for name in names:
        tensors[name] = tensors[name] + np.float32(0.5)
    save_file(tensors, file)
    run = examine(Request(list(found.paths), base=found.base.path, grouping="one" if found.members[1:] else "none"))
    return SetSubject(tuple(checked.subject for checked in run.adapters), run.base)


def head(**changes: Any) -> Example:
    return Example("head", bert_config(modules_to_save=["classifier"], **changes), {**bert_tensors(), **CLASSIFIER})


def plain(tensors: Shapes | None = None, **changes: Any) -> Example:
    return Example("plain", bert_config(**changes), {**bert_tensors(), **(tensors or {})})


def config_of(edits: tuple[Edit, ...]) -> dict[str, Any]:
    return {edit.pointer[1:]: edit.value for edit in edits if isinstance(edit, SetConfig)}


def made(edits: tuple[Edit, ...]) -> dict[str, tuple[int, ...]]:
    return {edit.name.removeprefix(PREFIX): edit.shape for edit in edits if isinstance(edit, MakeTensor | ZeroTensor)}


# -- lowrank -------------------------------------------------------------------------------------------------------


def test_a_changed_weight_becomes_lora_and_every_adapter_gets_the_layer(tmp_path: Path) -> None:
    found = changed(subject(tmp_path, bert_base(), a=head(), b=plain(r=4, lora_alpha=16)), WEIGHT)
    first, second = plan_form("lowrank", found, resolve(("peft>=0.6",)))
    assert DropTensor(WEIGHT) in first and DropTensor(BIAS) in first
    assert made(first)["classifier.lora_A.weight"] == (4, 16)
    assert made(first)["classifier.lora_B.weight"] == (3, 4)
    assert ZeroTensor(f"{PREFIX}classifier.lora_B.weight", "F32", (3, 4)) in second
    for edits in (first, second):
        wanted = config_of(edits)
        assert wanted["target_modules"] == ["classifier", "query", "value"]
        assert wanted.get("lora_alpha", 4) == 4
        assert "lora_bias" not in wanted


def test_a_changed_bias_gives_biases_to_all_layers(tmp_path: Path) -> None:
    found = changed(subject(tmp_path, bert_base(), a=head(), b=plain()), BIAS)
    edits = plan_form("lowrank", found, NEWEST)
    assert [config_of(each)["lora_bias"] for each in edits] == [True, True]
    for each in edits:
        shapes = made(each)
        assert {name.rpartition(".lora")[0] for name in shapes if name.endswith(".lora_B.bias")} == {
            "classifier",
            *(f"bert.encoder.layer.{n}.attention.self.{leaf}" for n in (0, 1) for leaf in ("query", "value")),
        }
    with pytest.raises(FormError, match=r"a changes the bias of classifier: .* peft==0\.13\.2 does not have"):
        plan_form("lowrank", found, resolve(("peft==0.13.2",)))


def test_a_trained_bias_becomes_a_bias_of_b(tmp_path: Path) -> None:
    stored = f"{PREFIX}{QUERY}.base_layer.bias"
    found = subject(tmp_path, bert_base(), a=plain({stored: ("F32", (16,))}, bias="lora_only"), b=plain())
    first, second = plan_form("lowrank", found, resolve(("peft>=0.14",)))
    assert DropTensor(stored) in first
    assert config_of(first)["bias"] == "none" and "bias" not in config_of(second)
    assert config_of(first)["lora_bias"] is True is config_of(second)["lora_bias"]
    assert made(first)[f"{QUERY}.lora_B.bias"] == made(second)[f"{QUERY}.lora_B.bias"] == (16,)
    with pytest.raises(FormError, match=r"that needs lora_bias, which peft==0\.6\.0 does not have"):
        plan_form("lowrank", found, resolve(("peft>=0.6",)))


def test_the_rank_is_the_largest_of_all(tmp_path: Path) -> None:
    tensors = {**lora_pair(Q, r=2), **lora_pair(V, r=4)}
    config = lora_config(target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 2}, layers_to_transform=[0])
    other = Example("b", lora_config(r=8), llama_tensors(8))
    edits = plan_form("lowrank", subject(tmp_path, llama_base(), a=Example("a", config, tensors), b=other), NEWEST)
    assert {shape for name, shape in made(edits[0]).items() if "lora_A" in name} == {(8, 16)}
    assert config_of(edits[0])["r"] == 8  # and lora_alpha is 8 already
    assert config_of(edits[0])["layers_to_transform"] is None and RemoveConfig("/rank_pattern") in edits[0]


def test_what_is_in_the_form_stays(tmp_path: Path) -> None:
    config = lora_config(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    both = Example("a", config, llama_tensors())
    assert plan_form("lowrank", subject(tmp_path, llama_base(), a=both, b=both), NEWEST) == [(), ()]


def test_a_task_class_that_looks_for_a_head_goes(tmp_path: Path) -> None:
    (edits,) = plan_form("lowrank", subject(tmp_path, bert_base(), a=head(task_type="SEQ_CLS")), NEWEST)
    assert config_of(edits)["task_type"] is None and config_of(edits)["modules_to_save"] is None


def test_dropouts_are_made_equal(tmp_path: Path) -> None:
    edits = plan_form("lowrank", subject(tmp_path, bert_base(), a=plain(), b=plain(lora_dropout=0.1)), NEWEST)
    assert config_of(edits[1])["lora_dropout"] == 0.0


def tied(name: str = "lm_head.weight", shape: tuple[int, ...] = (48, 16), **changes: Any) -> Example:
    module = name.rpartition(".")[0]
    tensors = {**llama_tensors(), PREFIX + name: ("F32", shape)}
    return Example("a", lora_config(modules_to_save=[module.rpartition(".")[2]], **changes), tensors)


LOWRANK_REFUSED: dict[str, tuple[BaseExample | None, dict[str, Example], tuple[str, ...], str]] = {
    "no base": (None, {"a": head()}, (), r"a stores classifier\.weight, and the base is needed.*--base"),
    "no base for shapes": (
        None,
        {"a": Example("a", lora_config(), llama_tensors()),
         "b": Example("b", lora_config(target_modules=["q_proj"]), llama_tensors(leaves=("q_proj",)))},
        (), r"b needs a layer that adds nothing in model\.layers\.0\.self_attn\.v_proj.*--base",
    ),
    "tied head": (
        llama_base(tied=True), {"a": tied()}, (f"{PREFIX}lm_head.weight",),
        r"a changes lm_head\.weight, and the base's embedding and head are one tensor",
    ),
    "tied embedding": (
        llama_base(tied=True), {"a": tied("model.embed_tokens.weight")}, (f"{PREFIX}model.embed_tokens.weight",),
        r"a changes model\.embed_tokens\.weight, and the base's embedding and head are one tensor",
    ),
    "embedding": (
        llama_base(), {"a": tied("model.embed_tokens.weight")}, (f"{PREFIX}model.embed_tokens.weight",),
        r"a changes the embedding model\.embed_tokens",
    ),
    "norm": (
        llama_base(), {"a": tied("model.norm.weight", (16,))}, (f"{PREFIX}model.norm.weight",),
        r"a changes model\.norm\.weight, and model\.norm is no linear module",
    ),
    "shape": (llama_base(), {"a": tied(shape=(50, 16))}, (), r"a stores lm_head\.weight as \[50, 16\], the base has \[48, 16\]"),
    "missing head": (
        BaseExample(bert_base().config, {n: t for n, t in bert_base().tensors.items() if not n.startswith("classifier")}),
        {"a": head()}, (), r"the base checkpoint has no classifier",
    ),
    "quantised": (
        BaseExample(llama_base().config, {**llama_base().tensors, "lm_head.weight": ("I8", (48, 16))}),
        {"a": tied()}, (), r"lm_head\.weight is quantised in the base \(I8\)",
    ),
    "a method": (
        bert_base(), {"a": head(), "b": Example("b", {"peft_type": "IA3"}, {f"{PREFIX}x.ia3_l": ("F32", (1,))})}, (),
        r"b is of type IA3",
    ),
    "unreadable": (bert_base(), {"a": head(), "b": Example("b", bert_config(), None)}, (), r"b cannot be read"),
    "a trained bias of a norm": (
        bert_base(), {"a": plain(bias="all", tensors={NORM: ("F32", (16,))}), "b": plain()}, (NORM,),
        r"a changes bert\.encoder\.layer\.0\.attention\.output\.LayerNorm\.bias, and .* is no linear module",
    ),
    "a trained bias under the old name": (
        bert_base(), {"a": plain(bias="lora_only", tensors={f"{PREFIX}{QUERY}.bias": ("F32", (16,))})}, (),
        r"query\.bias, which is neither plain LoRA nor of a saved module",
    ),
    "trains biases": (bert_base(), {"a": head(), "b": plain(bias="all")}, (), r"b trains biases \(bias='all'\)"),
    "initialised from the base": (
        bert_base(), {"a": plain(init_lora_weights="pissa")}, (), r"a takes a part of the base's weights.*'pissa'",
    ),
    "activated": (bert_base(), {"a": plain(alora_invocation_tokens=[1])}, (), r"a is an activated LoRA"),
    "token rows": (
        llama_base(),
        {"a": Example("a", lora_config(trainable_token_indices=[1]), {
            **llama_tensors(), f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": ("F32", (1, 16))})},
        (), r"a trains rows of an embedding",
    ),
    "not selected": (
        llama_base(), {"a": Example("a", lora_config(target_modules=["q_proj"]), llama_tensors())}, (),
        r"a has tensors for model\.layers\.0\.self_attn\.v_proj, which its config does not select",
    ),
    "half a pair": (
        llama_base(), {"a": Example("a", lora_config(), {
            k: v for k, v in llama_tensors().items() if k != f"{PREFIX}{Q}.lora_B.weight"})}, (),
        r"a has only one half of the pair of model\.layers\.0\.self_attn\.q_proj",
    ),
    "another rank": (llama_base(), {"a": Example("a", lora_config(r=8), llama_tensors())}, (), r"and its config says rank 8"),
    "whole and LoRA": (
        bert_base(), {"a": Example("a", bert_config(modules_to_save=["classifier"], target_modules=["query", "value", "classifier"]),
        {**bert_tensors(), **CLASSIFIER, **lora_pair("classifier", outputs=3)})}, (WEIGHT,),
        r"a has LoRA in classifier, which it also saves whole",
    ),
    "another dtype": (
        llama_base(), {"a": Example("a", lora_config(), {k: ("I8", v[1]) for k, v in llama_tensors().items()})}, (),
        r"a stores .*q_proj\.lora_A\.weight as I8",
    ),
    "no bias to merge into": (
        BaseExample(bert_base().config, {n: t for n, t in bert_base().tensors.items() if not n.endswith("query.bias")}),
        {"a": head()}, (BIAS,), r"a changes the bias of classifier: .*self\.query has no bias in the base",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOWRANK_REFUSED)
def test_lowrank_refuses(tmp_path: Path, name: str) -> None:
    base, members, names, reason = LOWRANK_REFUSED[name]
    found = subject(tmp_path, base, **members)
    with pytest.raises(FormError, match=reason):
        plan_form("lowrank", changed(found, *names) if names else found, NEWEST)


# -- factors -------------------------------------------------------------------------------------------------------


def factored(tmp_path: Path, delta: np.ndarray, enough: int = 0) -> tuple[int, float]:
    """The rank, and how far the product of the two factors is from the matrix."""
    save_file({"w": np.ascontiguousarray(delta, np.float32)}, tmp_path / "w")
    start = 8 + int.from_bytes((tmp_path / "w").read_bytes()[:8], "little")
    found = Values({"w": Stored(str(tmp_path / "w"), start, "F32", delta.shape)}, {})
    result = product(terms.stored("w"), found, "F32", enough)
    b, a = found.whole(result.b), found.whole(result.a)
    assert b.shape == (delta.shape[0], result.rank) and a.shape == (result.rank, delta.shape[1])
    return result.rank, float(np.abs(b @ a - delta.astype(np.float32)).max())


@pytest.mark.parametrize("block", [3, 1 << 20])
def test_few_rows_or_columns_make_a_small_rank_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(values, "BLOCK", block)
    full = np.random.default_rng(0).standard_normal((12, 9))
    rows, columns = np.zeros((12, 9)), np.zeros((12, 9))
    rows[[3, 7]], columns[:, [0, 8, 4]] = full[[3, 7]], full[:, [0, 8, 4]]
    assert factored(tmp_path, rows) == (2, 0.0)
    assert factored(tmp_path, columns) == (3, 0.0)
    assert factored(tmp_path, np.zeros((12, 9))) == (0, 0.0)
    assert factored(tmp_path, full) == (9, 0.0)
    assert factored(tmp_path, full.T) == (9, 0.0)


def test_a_matrix_of_small_rank_is_decomposed_where_that_helps(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    matrix = random.integers(-9, 9, (12, 2)) @ random.integers(-9, 9, (2, 9))
    rank, error = factored(tmp_path, matrix)
    assert rank == 2 and error < 2**-24 * np.abs(matrix).max()
    assert factored(tmp_path, matrix, enough=9) == (9, 0.0)


# -- portable ------------------------------------------------------------------------------------------------------


def test_portable_keeps_the_keys_that_everybody_knows(tmp_path: Path) -> None:
    config = lora_config(
        r=4, lora_alpha=4, use_rslora=False, peft_version="0.21.2", eva_config=None, init_lora_weights="gaussian",
        target_modules=r".*\.(q|v)_proj", **{"a/b~c": None},
    )  # fmt: skip
    found = subject(tmp_path, llama_base(), a=Example("a", config, llama_tensors()))
    (edits,) = plan_form("portable", found, NEWEST)
    assert set(made(edits)) == set()
    assert config_of(edits) == {"init_lora_weights": True, "target_modules": ["q_proj", "v_proj"]}
    removed = {edit.pointer for edit in edits if isinstance(edit, RemoveConfig)}
    assert removed == {"/use_rslora", "/peft_version", "/eva_config", "/a~1b~0c"}


def test_portable_targets_without_a_base(tmp_path: Path) -> None:
    config = lora_config(target_modules=r".*\.q_proj", lora_alpha=4)
    found = subject(tmp_path, None, a=Example("a", config, llama_tensors(leaves=("q_proj",))))
    (edits,) = plan_form("portable", found, NEWEST)
    assert config_of(edits)["target_modules"] == [Q, Q.replace("0", "1")]


PORTABLE_REFUSED: dict[str, tuple[BaseExample | None, Example, str]] = {
    "saved, no base": (None, head(), r"a saves classifier\.weight, which can be left out only if it is the base's"),
    "no pair": (None, Example("a", bert_config(), {}), r"a has no LoRA pair|cannot be read"),
    "bias of B": (
        bert_base(), Example("a", bert_config(lora_bias=True), {
            **bert_tensors(), f"{PREFIX}bert.encoder.layer.0.attention.self.query.lora_B.bias": ("F32", (16,))}),
        r"a has a bias of B in bert\.encoder\.layer\.0\.attention\.self\.query",
    ),
    "a key nobody knows": (None, plain(new_feature={"on": 1}), r"a has new_feature = .*, which plain LoRA does not have"),
    "DoRA": (
        None, Example("a", lora_config(use_dora=True), {**llama_tensors(), **{
            f"{PREFIX}model.layers.{n}.self_attn.{leaf}.lora_magnitude_vector": ("F32", (16,))
            for n in (0, 1) for leaf in ("q_proj", "v_proj")}}), r"a is DoRA",
    ),
    "convolution": (
        None, Example("a", lora_config(target_modules=["conv"]), {
            f"{PREFIX}conv.lora_A.weight": ("F32", (4, 3, 2, 2)), f"{PREFIX}conv.lora_B.weight": ("F32", (8, 4, 1, 1))}),
        r"a has LoRA in the convolution conv",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PORTABLE_REFUSED)
def test_portable_refuses(tmp_path: Path, name: str) -> None:
    base, member, reason = PORTABLE_REFUSED[name]
    with pytest.raises(FormError, match=reason):
        plan_form("portable", subject(tmp_path, base, a=member), NEWEST)


def test_edits_can_be_written_as_json(tmp_path: Path) -> None:
    found = changed(subject(tmp_path, bert_base(), a=head(), b=plain()), WEIGHT)
    for edits in plan_form("lowrank", found, NEWEST):
        assert json.loads(json.dumps([edit._asdict() for edit in edits]))
