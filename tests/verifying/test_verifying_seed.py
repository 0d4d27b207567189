"""Real loading: the seed set and broken copies of it in the PEFT that is installed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from verifying_util import PREFIX, SEED_BASE, SEED_SET, installed_peft, recipe_of, seed_recipes

from adapterlint.verifying import LoraDelta, Recipe, SavedParameter, VerifyError, verify

for _library in ("torch", "transformers", "peft"):
    pytest.importorskip(_library)

pytestmark = [
    pytest.mark.peft,
    pytest.mark.skipif(installed_peft() < (0, 18, 1), reason="older releases cannot load the seed set: test_union.py"),
]

BASE = str(SEED_BASE)


def copy_of(name: str, root: Path, rename: tuple[str, str] | None = None, **config: object) -> Path:
    """A copy of a seed adapter, with other tensor names or other config values."""
    directory = root / name
    shutil.copytree(SEED_SET / name, directory)
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if rename:
        weights = directory / "adapter_model.safetensors"
        tensors = {key.replace(*rename): value for key, value in load_file(weights).items()}
        save_file(tensors, weights, {"format": "pt"})
    return directory


def without_head(directory: Path) -> None:
    weights = directory / "adapter_model.safetensors"
    save_file({key: value for key, value in load_file(weights).items() if "lora_" in key}, weights, {"format": "pt"})


def renamed(recipe: Recipe, old: str, new: str) -> Recipe:
    """The same meaning, stored under other names."""

    def name(text: str) -> str:
        return text.replace(old, new)

    deltas = tuple(LoraDelta(d.module, d.kind, name(d.a), name(d.b), d.scale) for d in recipe.deltas)
    return replace(
        recipe, deltas=deltas, saved=tuple(SavedParameter(s.parameter, name(s.tensor)) for s in recipe.saved)
    )


def test_the_seed_set_answers_as_trained_in_all_orders(capfd: pytest.CaptureFixture[str]) -> None:
    report = verify(seed_recipes(), BASE, device="cpu")
    assert report.ok
    assert len(report.orders) == len({order.order for order in report.orders}) == 24
    for order in report.orders:
        assert [step.stage for step in order.steps] == ["after_load", *["after_switch"] * 8]
        assert [step.adapter for step in order.steps] == [order.order[0], *order.order * 2]
    assert max(step.difference or 0 for order in report.orders for step in order.steps) < 1e-5
    assert all(each.source == "merged" and (each.effect or 0) > 0.1 for each in report.adapters)
    assert capfd.readouterr() == ("", "")
    assert any("lora_" in message for message in report.warnings)  # PEFT dislikes the name "a"


@pytest.mark.gpu
def test_the_seed_set_answers_as_trained_on_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    report = verify(seed_recipes(), BASE, device="cuda")
    assert report.ok
    assert (report.device, report.device_name) == ("cuda", torch.cuda.get_device_name())
    assert verify(seed_recipes()[:1], BASE).device == "cuda"


def test_a_single_adapter_is_loaded_as_default() -> None:
    report = verify(seed_recipes()[2:3], BASE, device="cpu")
    assert report.ok
    assert [(order.order, len(order.steps)) for order in report.orders] == [(("default",), 1)]
    assert report.outcomes == {"default": "ok"}


def test_names_and_orders_can_be_chosen() -> None:
    report = verify(seed_recipes()[:2], BASE, device="cpu", orders=1, names=["second", "first"])
    assert [order.order for order in report.orders] == [("second", "first")]
    assert report.ok


def test_a_wrapper_prefix_makes_an_adapter_inert(tmp_path: Path) -> None:
    old, new = PREFIX, f"{PREFIX}module."
    broken = renamed(recipe_of(copy_of("a", tmp_path)), old, new)
    shutil.rmtree(tmp_path / "a")
    copy_of("a", tmp_path, rename=(old, new), modules_to_save=None)
    report = verify([broken, seed_recipes()[3]], BASE, device="cpu")
    assert report.outcomes == {"a": "inert", "d": "ok"}
    assert report.adapters[0].effect == pytest.approx(verify(seed_recipes()[:1], BASE, device="cpu").adapters[0].effect)
    first = report.orders[0].first_failure
    assert first is not None
    assert (first.adapter, first.stage, first.outcome) == ("a", "after_load", "inert")


def test_tensors_that_nobody_understands_make_an_adapter_inert(tmp_path: Path) -> None:
    directory = copy_of("d", tmp_path, rename=("encoder", "decoder"))
    report = verify([Recipe("d", str(directory), "adapter_model.safetensors")], BASE, device="cpu")
    assert report.outcomes == {"default": "inert"}
    assert report.adapters[0].unused == 8


def test_an_adapter_that_changes_nothing_is_ok(tmp_path: Path) -> None:
    directory = copy_of("d", tmp_path)
    weights = directory / "adapter_model.safetensors"
    zeroed = {key: value * ("lora_B" not in key) for key, value in load_file(weights).items()}
    save_file(zeroed, weights, {"format": "pt"})
    report = verify([recipe_of(directory)], BASE, device="cpu")
    assert report.ok
    assert report.adapters[0].effect == 0.0


def test_another_scale_than_trained_is_wrong(tmp_path: Path) -> None:
    directory = copy_of("b", tmp_path, lora_alpha=8)
    recipe = replace(recipe_of(SEED_SET / "b"), path=str(directory))
    report = verify([recipe], BASE, device="cpu")
    (step,) = report.orders[0].steps
    assert step.outcome == "wrong"
    assert step.difference is not None
    assert step.difference > 0.1


@pytest.mark.parametrize("second", [False, True])
def test_a_missing_head_raises_while_loading(tmp_path: Path, second: bool) -> None:
    directory = copy_of("a", tmp_path)
    without_head(directory)
    recipes = [recipe_of(directory), recipe_of(SEED_SET / "d")]
    report = verify(recipes[::-1] if second else recipes, BASE, device="cpu", orders=1)
    (step,) = report.orders[0].steps
    assert (step.adapter, step.stage, step.outcome) == ("a", "load", "raises")
    assert step.exception == "KeyError: 'base_model.model.classifier.weight'"
    assert report.outcomes == {"a": "raises", "d": "ok"}


def test_a_missing_weights_file_raises_without_the_network(tmp_path: Path) -> None:
    recipe = recipe_of(copy_of("d", tmp_path))
    (tmp_path / "d" / "adapter_model.safetensors").unlink()
    report = verify([recipe], BASE, device="cpu")
    (step,) = report.orders[0].steps
    assert (step.stage, step.outcome) == ("load", "raises")
    assert report.adapters[0].source == "none"
    assert "adapter_model.safetensors" in (report.adapters[0].reason or "")


def test_not_a_number_is_wrong(tmp_path: Path) -> None:
    directory = copy_of("d", tmp_path)
    weights = directory / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors[sorted(tensors)[0]][0, 0] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    (step,) = verify([recipe_of(directory)], BASE, device="cpu").orders[0].steps
    assert (step.outcome, step.difference) == ("wrong", None)


def test_what_cannot_be_merged_is_compared_with_peft_alone() -> None:
    recipes = [replace(each, mergeable=False, reason="for the test") for each in seed_recipes()[:2]]
    report = verify(recipes, BASE, device="cpu")
    assert report.ok
    assert [(each.source, each.reason) for each in report.adapters] == [("peft", "for the test")] * 2


def test_half_precision_bases_are_compared_coarsely() -> None:
    report = verify(seed_recipes(), BASE, device="cpu", orders=2, dtype="bfloat16")
    assert report.ok
    assert report.tolerance.absolute > 1e-2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no readable config.json"),
        ({}, "names no architecture"),
        ({"architectures": ["NoSuchModel"]}, "no class NoSuchModel"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "cannot be loaded"),
    ],
)
def test_an_unusable_base_is_said(tmp_path: Path, config: dict[str, object] | None, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(VerifyError, match=message):
        verify(seed_recipes(), str(tmp_path), device="cpu")


def test_usage_errors() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="no adapter"):
        verify([], BASE)
    with pytest.raises(ValueError, match="name of its own"):
        verify(seed_recipes()[:2], BASE, names=["x", "x"])
    with pytest.raises(ValueError, match="dtype"):
        verify(seed_recipes(), BASE, dtype="int8")
    if not torch.cuda.is_available():
        with pytest.raises(VerifyError, match="CUDA"):
            verify(seed_recipes(), BASE, device="cuda")


def test_the_callers_state_is_left_alone() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    before = torch.random.get_rng_state(), torch.get_num_threads()
    verify(seed_recipes()[:1], BASE, device="cpu")
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == torch.get_num_threads()
