"""Every PEFT method: what the installed PEFT does with healthy and broken adapters is what adapterlint says.

``measure.py`` does the same for many releases and all defects; this is its sample for the release at hand.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

peft = pytest.importorskip("peft")
np = pytest.importorskip("numpy")
sys.path.insert(0, str(Path(__file__).parent))

import defects  # noqa: E402
import measure  # noqa: E402
import recipes  # noqa: E402

from adapterlint.model.methoddefaults import feedforward_by_default, targets_by_default  # noqa: E402
from adapterlint.model.methodtable import METHODS  # noqa: E402
from adapterlint.model.target import bundled  # noqa: E402

pytestmark = [
    pytest.mark.peft,
    pytest.mark.skipif(
        peft.__version__ not in {target.version for target in bundled()}, reason="the installed PEFT is not bundled"
    ),
]

UNTOLD = frozenset({"ADAMSS", "ADAPTION_PROMPT", "SHADOW", "XLORA", "BONE"})
EVERYWHERE = ("prefix.module", "name.default", "shape.longer", "targets.narrower")
IN_TURN = (
    ("empty.own", "kind.missing_second", "shape.flat"),
    ("stray.weight", "layer.missing", "shape.zero"),
    ("prefix.one_layer", "targets.wider", "kind.missing"),
    ("name.other", "shared.missing", "shared.longer"),
    ("targets.other", "head.missing", "head.infix", "shape.second_longer"),
    ("prefix.none", "tensor.missing", "stray.extra", "config.rank"),
)
# The verdict is unknown where PEFT fills a gap from another layer's copy of a shared matrix, where the shapes are those
# that PEFT makes with its CUDA extension, and where what is missing may never have been there.
NOT_TOLD = frozenset({("lily", "tensor.missing"), ("lily-shared", "tensor.missing")})
NOT_TOLD |= {("boft-num", "shape.longer"), ("boft-two", "shape.longer"), ("unilora-indices", "layer.missing")}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """One thread, which is the fastest for models of this size, and no warnings."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


def chosen(number: int) -> tuple[str, ...]:
    return ("healthy", *EVERYWHERE, *IN_TURN[number % len(IN_TURN)])


@pytest.mark.parametrize(
    ("number", "recipe"),
    [pytest.param(number, recipe, id=recipe.name) for number, recipe in enumerate(recipes.RECIPES)],
)
def test_verdicts_are_what_peft_does(number: int, recipe: recipes.Recipe, tmp_path: Path) -> None:
    reason = recipes.make(recipe, tmp_path)
    if reason:
        pytest.skip(reason)
    meta = json.loads((tmp_path / "meta.json").read_text())
    reference = np.load(tmp_path / "reference.npy")
    wanted = chosen(number)
    said, truth = {}, {}
    for name, config, tensors in defects.broken(tmp_path / "adapter"):
        # Whole families of recipes differ in how modules are named only: their defects are measured once.
        derived = recipe.name.endswith(("-tied", "-null", "-regex", "-linear"))
        if name not in (wanted[:1] if derived else wanted) or (recipe.name, name) in NOT_TOLD:
            continue
        adapter = tmp_path / name / "adapter"
        defects.write(config, tensors, adapter)
        verdicts, _ = measure.predict(adapter, recipe.base, [peft.__version__])
        said[name] = verdicts[f"peft=={peft.__version__}"].outcome.value
        truth[name] = measure.observe(adapter, recipe.base, reference, meta["inputs"])["outcome"]
    if recipe.peft_type in UNTOLD:
        assert all(outcome in ("unknown", truth[name]) and outcome != "loads" for name, outcome in said.items())
    else:
        assert said == truth


def test_no_method_is_forgotten() -> None:
    """What is in no table must be known to be in none."""
    table = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    types = {str(getattr(key, "value", key)) for key in table} - {"LORA"}
    assert types - UNTOLD <= METHODS.keys()
    made = {recipe.peft_type for recipe in recipes.RECIPES}
    assert METHODS.keys() <= made


def mappings() -> dict[str, dict[str, Any]]:
    from peft.utils import constants

    start, end = "TRANSFORMERS_MODELS_TO_", "_TARGET_MODULES_MAPPING"
    names = [name for name in dir(constants) if name.startswith(start) and name.endswith(end)]
    found = {name[len(start) : -len(end)]: getattr(constants, name) for name in names}
    found["LN_TUNING"] = found.pop("LNTUNING")
    return found


def test_default_targets() -> None:
    tables = mappings()
    models = {model for table in tables.values() for model in table}
    for peft_type, table in tables.items():
        for model in models:
            value = table.get(model)
            expected = value if value is None or isinstance(value, str) else tuple(value)
            assert targets_by_default(peft_type, model) == expected, (peft_type, model)


def test_default_feedforward() -> None:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING

    for model, names in TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.items():
        assert feedforward_by_default(model) == tuple(names)
