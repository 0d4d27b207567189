"""What a trainer left beside the adapter's tensors: nothing that a base could have lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from rules_util import findings_of, run_example

from adapterlint.rules.examples import Example, llama_base, llama_tensors, lora_config


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("optimizer.step", False),
        ("base_model.model.trainer.epoch", False),
        ("classifier.weight", True),
        ("base_model.model.model.extra_norm.weight", True),
    ],
)
def test_a_trainers_counts_are_no_parameters(tmp_path: Path, name: str, lost: bool) -> None:
    example = Example("stray", lora_config(), {**llama_tensors(), name: ("F32", (1,))}, llama_base())
    run = run_example(example, tmp_path)
    assert any(finding.effects for finding in (*findings_of(run, "AL201"), *findings_of(run, "AL402"))) is lost


@pytest.mark.parametrize(("task", "inert"), [("CAUSAL_LM", False), (None, True)])
def test_alora_answers_in_causal_language_models_only(tmp_path: Path, task: str | None, inert: bool) -> None:
    config = lora_config(alora_invocation_tokens=[5], task_type=task)
    run = run_example(Example("alora", config, llama_tensors(), llama_base()), tmp_path)
    assert any(effect.inert for finding in findings_of(run, "AL109") for effect in finding.effects) is inert


def test_a_rank_that_no_tensor_is_read_with_raises_nothing(tmp_path: Path) -> None:
    tensors = {name.removeprefix("base_model.model."): entry for name, entry in llama_tensors(4).items()}
    run = run_example(Example("no prefix", lora_config(r=8), tensors, llama_base()), tmp_path)
    assert findings_of(run, "AL207") == [] and findings_of(run, "AL201")


def test_a_token_that_the_embedding_lacks_raises(tmp_path: Path) -> None:
    rows = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": ("F32", (2, 16))}
    config = lora_config(trainable_token_indices=[3, 48])
    run = run_example(Example("beyond", config, {**llama_tensors(), **rows}, llama_base()), tmp_path)
    texts = [effect.exception for finding in findings_of(run, "AL214") for effect in finding.effects]
    assert texts == ["IndexError: index 48 is out of bounds for dimension 0"]


@pytest.mark.parametrize(
    ("suffix", "indices", "expected"),
    [
        (".default", [3, 5], "KeyError"),
        ("", [], "RuntimeError"),
        ("", [3, 5], None),
    ],
)
def test_token_rows_that_are_not_the_configs(
    tmp_path: Path, suffix: str, indices: list[int], expected: str | None
) -> None:
    name = f"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta{suffix}"
    config = lora_config(trainable_token_indices=indices)
    run = run_example(Example("rows", config, {**llama_tensors(), name: ("F32", (2, 16))}, llama_base()), tmp_path)
    texts = [
        effect.exception for finding in findings_of(run, "AL214") for effect in finding.effects if effect.exception
    ]
    assert [text.partition(":")[0] for text in texts] == ([expected] if expected else [])
