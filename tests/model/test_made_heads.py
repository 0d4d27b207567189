"""Heads that the task class makes and the base's checkpoint lacks: one linear layer, or a block; against PEFT itself."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adapterlint.model.target import bundled
from adapterlint.releases import version_key
from adapterlint.run import Request, check

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
KINDS = {"bert": ("Bert", "weight", "bias"), "roberta": ("Roberta", "dense.weight", "out_proj.bias")}
pytestmark = pytest.mark.peft


@pytest.fixture(scope="module")
def release() -> str:
    """The installed PEFT, if the tool knows it."""
    found = importlib.metadata.version("peft")
    if found not in {target.version for target in bundled()}:
        pytest.skip(f"no tables for PEFT {found}")
    if version_key(found) < (0, 15):
        pytest.skip("PEFT looks for every tensor of a head since 0.15")
    return found


@pytest.fixture(scope="module", params=sorted(KINDS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A base without its head, and an adapter with a trained one, as PEFT saves it."""
    kind, root = request.param, tmp_path_factory.mktemp(request.param)
    name = KINDS[kind][0]
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = getattr(transformers, f"{name}Config")(vocab_size=48, max_position_embeddings=34, num_labels=3, **sizes)
    getattr(transformers, f"{name}Model")(config).save_pretrained(root / "base")
    text = json.loads((root / "base" / "config.json").read_text())
    text["architectures"] = [f"{name}ForSequenceClassification"]
    (root / "base" / "config.json").write_text(json.dumps(text))
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    peft.get_peft_model(_model(root / "base"), lora).save_pretrained(root / "whole")
    return kind, root


def _model(base: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(base)


def _without(whole: Path, copy: Path, ending: str, **changes: Any) -> Path:
    """A copy of an adapter without the tensors of the head that end so."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(whole, copy)
    file = copy / "adapter_model.safetensors"
    kept = {n: t for n, t in load_file(file).items() if "classifier" not in n or not n.endswith(ending)}
    save_file(kept, file, metadata={"format": "pt"})
    config = json.loads((copy / "adapter_config.json").read_text()) | changes
    (copy / "adapter_config.json").write_text(json.dumps(config))
    return copy


def _loaded(base: Path, paths: list[Path]) -> str | None:
    """What PEFT raises for a set; None if it loads."""
    try:
        model = peft.PeftModel.from_pretrained(_model(base), paths[0], adapter_name=paths[0].name)
        for path in paths[1:]:
            model.load_adapter(path, adapter_name=path.name)
    except KeyError as error:
        return f"KeyError: {error}"
    return None


def _loaded_natively(base: Path, paths: list[Path]) -> str | None:
    """What transformers' own loader raises; None if it loads."""
    model = _model(base)
    try:
        for path in paths:
            model.load_adapter(str(path), adapter_name=path.name)
    except KeyError as error:
        return f"KeyError: {error}"
    return None


def _said(base: Path, paths: list[Path], release: str) -> tuple[str | None, str]:
    """What is said of loading the set: the exception; and the outcome of transformers' loader."""
    target = f"peft=={release}"
    (found,) = check(Request([str(path) for path in paths], [target], str(base), "one")).sets
    return found.verdicts[target].exception, found.operations["native"][target].outcome.value


def test_a_whole_head_is_found(made: tuple[str, Path], release: str, tmp_path: Path) -> None:
    _, root = made
    paths = [root / "whole", Path(shutil.copytree(root / "whole", tmp_path / "twin"))]
    said, native = _said(root / "base", paths, release)
    assert said is None and _loaded(root / "base", paths) is None
    assert native == "wrong" and _loaded_natively(root / "base", paths) is None


def test_a_head_in_parts_lacks_the_others(made: tuple[str, Path], release: str, tmp_path: Path) -> None:
    kind, root = made
    lost = KINDS[kind][2]
    paths = [root / "whole", _without(root / "whole", tmp_path / "part", lost)]
    said, native = _said(root / "base", paths, release)
    assert said == _loaded(root / "base", paths) == f"KeyError: 'base_model.model.classifier.{lost}'"
    assert native == "raises" and _loaded_natively(root / "base", paths) == f"KeyError: 'classifier.{lost}'"


def test_without_a_head_the_first_part_is_looked_for(made: tuple[str, Path], release: str, tmp_path: Path) -> None:
    kind, root = made
    bare = _without(root / "whole", tmp_path / "bare", "", task_type=None, modules_to_save=None)
    said, _ = _said(root / "base", [root / "whole", bare], release)
    assert said == _loaded(root / "base", [root / "whole", bare])
    assert said == f"KeyError: 'base_model.model.classifier.{KINDS[kind][1]}'"
