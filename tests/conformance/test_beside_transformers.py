"""Targets that name transformers: what the installed PEFT and transformers do where the second decides (AL408)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")
sys.path.insert(0, str(Path(__file__).parent))

import peft
import torch
import transformers
from reference import answer, fresh_base
from safetensors.torch import load_file

from adapterlint.rules.base_model.renamed_modules import RenamedModules
from adapterlint.rules.examples import Example, write, write_base
from adapterlint.run import Request, check

TARGET = f"peft=={peft.__version__},transformers=={transformers.__version__}"
EXAMPLES = [*RenamedModules.valid(), *RenamedModules.invalid()]


def expected(base: Path, adapter: Path, scale: float) -> Any:
    """The answer of the base with the adapter added by hand, to the layers that it means whatever they are called."""
    model = fresh_base(base)
    tensors = load_file(adapter / "adapter_model.safetensors")
    layers = {name: module for name, module in model.named_modules() if "vision" not in name and "visual" not in name}
    with torch.no_grad():
        for name, a in tensors.items():
            if ".lora_A" not in name:
                continue
            tail = name.partition(".lora_A")[0].partition("layers.")[2] or "lm_head"
            (module,) = [layers[path] for path in layers if path.endswith(f"layers.{tail}") or path == tail]
            module.weight += scale * tensors[name.replace("lora_A", "lora_B")] @ a
    return answer(model)


def loaded(base: Path, adapters: list[Path], expectations: list[Any]) -> tuple[str, str]:
    """What happens: the outcome, and what was raised."""
    names = ["default"] if len(adapters) == 1 else [path.name for path in adapters]
    try:
        model = peft.PeftModel.from_pretrained(fresh_base(base), str(adapters[0]), adapter_name=names[0])
        for name, path in zip(names[1:], adapters[1:], strict=True):
            model.load_adapter(str(path), adapter_name=name)
        for name, right in zip(names, expectations, strict=True):
            model.set_adapter(name)
            if (answer(model) - right).abs().max() > 1e-3:
                return "wrong", ""
    except Exception as error:
        return "raises", f"{type(error).__name__}: {error}"
    return "loads", ""


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_the_release_does_what_is_predicted(example: Example, count: int, tmp_path: Path) -> None:
    assert example.base is not None
    base, first = write_base(example.base, tmp_path / "base"), write(example, tmp_path / "a")
    adapters = [first, *(shutil.copytree(first, tmp_path / f"b{n}") for n in range(count - 1))]
    scale = example.config["lora_alpha"] / example.config["r"]
    outcome, raised = loaded(base, adapters, [expected(base, path, scale) for path in adapters])
    report = check(Request([str(path) for path in adapters], [TARGET], str(base), "one" if count > 1 else "none"))
    verdict = (report.sets[0] if count > 1 else report.adapters[0]).verdicts[TARGET]
    assert (verdict.outcome.value, (verdict.exception or "")[:60]) == (outcome, raised[:60])
