"""Modules that one adapter saves and another changes come in the model's order, which the exceptions' texts go by."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterlint.model.wrapping import contested
from adapterlint.rules.examples import Example, SetExample, llama_base, llama_tensors, lora_config, write_any
from adapterlint.run import Request, check, examine

LEAVES = ("q_proj", "k_proj", "v_proj", "o_proj")
BLOCK = "model.layers.1.self_attn"


def request(directory: Path, changed_first: bool) -> Request:
    """An adapter with LoRA in every attention layer, and one that saves the whole block of the second."""
    wide = lora_config(target_modules=list(LEAVES))
    changing = Example("changing", wide, llama_tensors(leaves=LEAVES))
    weights = {f"base_model.model.{BLOCK}.{leaf}.weight": ("F32", (16, 16)) for leaf in LEAVES}
    narrow = lora_config(target_modules=["layers.0.self_attn.q_proj"], modules_to_save=["layers.1.self_attn"])
    kept = {name: entry for name, entry in llama_tensors().items() if ".0.self_attn.q_proj." in name}
    saving = Example("saving", narrow, {**kept, **weights})
    members = {"one": changing, "two": saving} if changed_first else {"one": saving, "two": changing}
    paths, base = write_any(SetExample("contested", members, llama_base()), directory)
    return Request([str(path) for path in paths], ["peft==0.21.2"], str(base), "one")


@pytest.mark.parametrize("changed_first", [True, False])
def test_they_come_in_the_order_of_the_model(changed_first: bool, tmp_path: Path) -> None:
    (found,) = examine(request(tmp_path, changed_first)).sets
    items = [item.module for item in contested(found.subject) if item.outcome in ("block", "copies")]
    assert items == [f"{BLOCK}.{leaf}" for leaf in LEAVES]


@pytest.mark.peft
def test_peft_raises_for_the_first_of_them(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    asked = request(tmp_path, changed_first=True)
    (found,) = check(asked).sets
    said = found.verdicts["peft==0.21.2"].exception
    assert said == f"KeyError: 'base_model.model.{BLOCK}.q_proj.base_layer.weight'"
    model = transformers.AutoModelForCausalLM.from_pretrained(asked.base)
    model = peft.PeftModel.from_pretrained(model, asked.paths[0], adapter_name="one")
    with pytest.raises(KeyError) as raised:
        model.load_adapter(asked.paths[1], adapter_name="two")
    assert f"KeyError: {raised.value}" == said
