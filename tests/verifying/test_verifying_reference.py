"""Merging by hand against PEFT's own merge, module kind by module kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from verifying_util import PREFIX, installed_peft

from adapterlint.verifying import LoraDelta, Recipe, SavedParameter, TokenRows
from adapterlint.verifying.reference import NoReferenceError, merge

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.peft

KINDS = {
    "linear": "linear",
    "bare": "linear",
    "turned": "linear",
    "table": "embedding",
    "line": "conv",
    "plane": "conv",
}


def small_model() -> Any:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(3)
    modules = {
        "linear": torch.nn.Linear(6, 5),
        "bare": torch.nn.Linear(6, 5, bias=False),
        "turned": Conv1D(7, 6),
        "table": torch.nn.Embedding(11, 6),
        "line": torch.nn.Conv1d(4, 6, 3),
        "plane": torch.nn.Conv2d(4, 6, (3, 2)),
    }
    model = torch.nn.ModuleDict(modules)
    torch.nn.init.normal_(model["turned"].weight)
    return model


def recipe_for(kind: str, tensors: dict[str, Any], scale: float, dora: bool) -> Recipe:
    lora = f"{PREFIX}{kind}.lora_"
    a, b = ("embedding_A", "embedding_B") if kind == "table" else ("A.weight", "B.weight")
    bias = f"{lora}B.bias"
    magnitude = next((name for name in tensors if "magnitude" in name), None)
    assert (magnitude is not None) == dora
    delta = LoraDelta(
        kind,
        KINDS[kind],  # type: ignore[arg-type]
        lora + a,
        lora + b,
        scale,
        magnitude,
        bias if bias in tensors else None,
        fan_in_fan_out=False,
    )
    return Recipe("x", "", "", deltas=(delta,))


def trained(kind: str, **config: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The model, the model merged by PEFT, and what PEFT would have stored."""
    model = small_model()
    settings = peft.LoraConfig(r=3, lora_alpha=5, target_modules=[kind], init_lora_weights=False, **config)
    wrapped = peft.get_peft_model(copy.deepcopy(model), settings)
    for name, parameter in wrapped.named_parameters():
        if "magnitude" in name or "lora_B.default.bias" in name:
            parameter.data += 0.5 * torch.rand_like(parameter)
    tensors = {name: tensor.clone() for name, tensor in peft.get_peft_model_state_dict(wrapped).items()}
    return model, wrapped.merge_and_unload(), tensors


def assert_merged(kind: str, dora: bool, **config: Any) -> None:
    model, expected, tensors = trained(kind, use_dora=dora, **config) if dora else trained(kind, **config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merge(torch, model, recipe_for(kind, tensors, 5 / 3, dora), tensors)
    changed = [
        name for name, value in model.state_dict().items() if name not in before or not value.equal(before[name])
    ]
    assert f"{kind}.weight" in changed
    wanted = expected.state_dict()
    assert model.state_dict().keys() == wanted.keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(
            value, wanted[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_plain(kind: str) -> None:
    if kind == "line" and installed_peft() < (0, 16):
        pytest.skip("no LoRA for Conv1d yet")
    assert_merged(kind, dora=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(installed_peft() < (0, 17), reason="0.15.2 and older merge DoRA of an embedding wrongly")
@pytest.mark.parametrize("kind", KINDS)
def test_dora(kind: str) -> None:
    assert_merged(kind, dora=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(installed_peft() < (0, 18), reason="lora_bias came with 0.14, for every kind of Linear later")
@pytest.mark.parametrize("kind", ["linear", "line"])
def test_bias_of_b(kind: str) -> None:
    assert_merged(kind, dora=False, lora_bias=True)


def test_a_bias_is_added_where_the_module_has_none() -> None:
    model = small_model()
    tensors = {"a": torch.rand(2, 6), "b": torch.rand(5, 2), "c": torch.rand(5)}
    delta = LoraDelta("bare", "linear", "a", "b", 0.5, bias="c")
    merge(torch, model, Recipe("x", "", "", deltas=(delta,)), tensors)
    torch.testing.assert_close(model["bare"].bias.data, tensors["c"] / 2)


def test_a_saved_parameter_leaves_a_tied_one_alone() -> None:
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(4, 3), "head": torch.nn.Linear(3, 4, bias=False)})
    model["head"].weight = model["table"].weight
    before = model["table"].weight.detach().clone()
    new = torch.rand(4, 3)
    merge(torch, model, Recipe("x", "", "", saved=(SavedParameter("head.weight", "t"),)), {"t": new})
    assert torch.equal(model["head"].weight, new)
    assert torch.equal(model["table"].weight, before)


def test_token_rows_replace_only_their_rows() -> None:
    model = small_model()
    before = model["table"].weight.detach().clone()
    rows = torch.rand(2, 6)
    merge(torch, model, Recipe("x", "", "", tokens=(TokenRows("table.weight", "t", (7, 2)),)), {"t": rows})
    after = model["table"].weight
    assert torch.equal(after[[7, 2]], rows)
    others = [row for row in range(11) if row not in (7, 2)]
    assert torch.equal(after[others], before[others])


def test_buffers_can_be_saved() -> None:
    model = torch.nn.ModuleDict({"norm": torch.nn.BatchNorm1d(3)})
    recipe = Recipe("x", "", "", saved=(SavedParameter("norm.num_batches_tracked", "t"),))
    merge(torch, model, recipe, {"t": torch.tensor(7)})
    assert model["norm"].num_batches_tracked == 7


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("x", "", "", saved=(SavedParameter("linear.weight", "missing"),)),
        Recipe("x", "", "", saved=(SavedParameter("absent.weight", "t"),)),
        Recipe("x", "", "", saved=(SavedParameter("bare.bias", "t"),)),
        Recipe("x", "", "", saved=(SavedParameter("linear.weight", "t"),)),
        Recipe("x", "", "", tokens=(TokenRows("table.weight", "t", (99,)),)),
        Recipe("x", "", "", deltas=(LoraDelta("linear", "linear", "t", "t", 1.0),)),
        Recipe("x", "", "", deltas=(LoraDelta("linear", "linear", "one", "one", 1.0),)),
    ],
)
def test_a_recipe_that_does_not_fit_is_said(recipe: Recipe) -> None:
    place = "linear|absent|bare|table"
    with pytest.raises(NoReferenceError, match=place):
        merge(torch, small_model(), recipe, {"t": torch.rand(2, 2), "one": torch.rand(1, 1)})
