"""The union form: what it adds, and when it refuses. That PEFT then answers rightly is verified in tests/verifying."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rules_util import run_example

from adapterlint.findings import CopyTensor, SetConfig, ZeroTensor
from adapterlint.fixing.forms.common import FormError
from adapterlint.fixing.forms.union import plan
from adapterlint.model.subject import SetSubject
from adapterlint.model.target import resolve
from adapterlint.rules.examples import (
    BaseExample,
    Example,
    SetExample,
    bert_base,
    bert_config,
    bert_tensors,
    llama_base,
    llama_tensors,
    lora_config,
)

CLASSIFIER = {"base_model.model.classifier.weight": ("F32", (3, 16)), "base_model.model.classifier.bias": ("F32", (3,))}
POOLER = {
    "base_model.model.bert.pooler.dense.weight": ("F32", (16, 16)),
    "base_model.model.bert.pooler.dense.bias": ("F32", (16,)),
}


def head(**changes: Any) -> Example:
    return Example("head", bert_config(modules_to_save=["classifier"], **changes), {**bert_tensors(), **CLASSIFIER})


def plain(**changes: Any) -> Example:
    return Example("plain", bert_config(**changes), bert_tensors())


def pooler() -> Example:
    return Example("pooler", bert_config(modules_to_save=["pooler"]), {**bert_tensors(), **POOLER})


def subject(tmp_path: Path, base: BaseExample | None, **members: Example) -> SetSubject:
    return run_example(SetExample("set", members, base), tmp_path).sets[0].subject


def test_every_adapter_gets_what_it_lacks(tmp_path: Path) -> None:
    edits = plan(subject(tmp_path, bert_base(), a=head(), c=pooler(), d=plain()), resolve(("peft>=0.6",)))
    names = ["bert.pooler.dense", "classifier"]
    assert [edit for each in edits for edit in each if isinstance(edit, SetConfig)] == [
        SetConfig("/modules_to_save", names)
    ] * 3
    copied = [
        {edit.name.removeprefix("base_model.model.") for edit in each if isinstance(edit, CopyTensor)} for each in edits
    ]
    dense = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    classifier = {"classifier.weight", "classifier.bias"}
    assert copied == [dense, classifier, dense | classifier]


def test_a_suffix_that_matches_more_is_closed(tmp_path: Path) -> None:
    base = bert_base()
    more = BaseExample(base.config, {**base.tensors, "pre_classifier.weight": ("F32", (16, 16))})
    edits = plan(subject(tmp_path, more, a=head(), d=plain()), resolve(("peft",)))
    declared = next(edit for edit in edits[1] if isinstance(edit, SetConfig))
    assert set(declared.value) == {"classifier", "pre_classifier"}
    assert "base_model.model.pre_classifier.weight" in {edit.name for edit in edits[0] if isinstance(edit, CopyTensor)}


def test_a_tied_head_is_filled_from_the_embedding(tmp_path: Path) -> None:
    stored = {"base_model.model.lm_head.weight": ("F32", (48, 16))}
    one = Example("a", lora_config(modules_to_save=["lm_head"]), {**llama_tensors(), **stored})
    other = Example("b", lora_config(), llama_tensors())
    edits = plan(subject(tmp_path, llama_base(tied=True), a=one, b=other), resolve(("peft",)))
    assert CopyTensor("base_model.model.lm_head.weight", "model.embed_tokens.weight") in edits[1]


def layered() -> dict[str, Example]:
    both = Example("a", lora_config(), llama_tensors())
    one = Example("b", lora_config(target_modules=["q_proj"], r=2), llama_tensors(2, leaves=("q_proj",)))
    return {"a": both, "b": one}


def test_old_releases_need_the_same_layers(tmp_path: Path) -> None:
    edits = plan(subject(tmp_path, llama_base(), **layered()), resolve(("peft==0.10.0",)))
    zeros = [edit for edit in edits[1] if isinstance(edit, ZeroTensor)]
    assert [edit.shape for edit in zeros] == [(2, 16), (16, 2)] * 2
    assert all("v_proj" in edit.name for edit in zeros)
    assert edits[0] == ()


def test_new_releases_do_not(tmp_path: Path) -> None:
    assert plan(subject(tmp_path, llama_base(), **layered()), resolve(("peft>=0.11",))) == [(), ()]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a": head(), "b": plain(bias="all")}, "b trains biases"),
        (
            {"a": head(), "b": Example("b", {"peft_type": "IA3"}, {"base_model.model.x.ia3_l": ("F32", (1,))})},
            "type IA3",
        ),
        ({"a": head(), "b": Example("b", bert_config(), None)}, "b cannot be read"),
        (
            {
                "a": Example(
                    "a",
                    bert_config(modules_to_save=["classifier"]),
                    {**bert_tensors(), "base_model.model.classifier.weight": ("F32", (5, 16))},
                ),
                "b": plain(),
            },
            r"a stores classifier.weight as \[5, 16\], the base has \[3, 16\]",
        ),
    ],
    ids=["bias", "method", "unreadable", "shape"],
)
def test_refusals(tmp_path: Path, members: dict[str, Example], reason: str) -> None:
    with pytest.raises(FormError, match=reason):
        plan(subject(tmp_path, bert_base(), **members), resolve(("peft",)))


def test_a_base_without_the_head_is_refused(tmp_path: Path) -> None:
    base = bert_base()
    headless = BaseExample(base.config, {n: t for n, t in base.tensors.items() if not n.startswith("classifier")})
    with pytest.raises(FormError, match="no classifier"):
        plan(subject(tmp_path, headless, a=head(), b=plain()), resolve(("peft",)))


def test_no_file_helps_where_peft_loads_no_second_adapter(tmp_path: Path) -> None:
    found = subject(tmp_path, bert_base(), a=head(task_type="SEQ_CLS"), b=head(task_type="SEQ_CLS"))
    with pytest.raises(FormError, match=r"a has task_type SEQ_CLS, and PEFT 0\.13 loads no second adapter"):
        plan(found, resolve(("peft==0.13.2",)))
    assert plan(found, resolve(("peft>=0.13,<0.15",))) == [(), ()]


def test_without_a_base_it_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(FormError, match="--base"):
        plan(subject(tmp_path, None, a=head(), b=plain()), resolve(("peft",)))


def test_dora_gets_no_zero_layers(tmp_path: Path) -> None:
    vectors = {
        f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_magnitude_vector": ("F32", (16,)) for n in (0, 1)
    }
    members = layered()
    members["b"] = Example(
        "b", lora_config(target_modules=["q_proj"], use_dora=True), {**llama_tensors(leaves=("q_proj",)), **vectors}
    )
    with pytest.raises(FormError, match="DoRA"):
        plan(subject(tmp_path, llama_base(), **members), resolve(("peft==0.10.0",)))
