"""Adapters whose config cannot be read are not swapped in, either: against the installed PEFT."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from adapterlint.model.target import bundled
from adapterlint.releases import version_key
from adapterlint.rules.examples import Example, SetExample, llama_base, llama_tensors, lora_config, write_any
from adapterlint.run import Request, check

for _library in ("torch", "transformers", "peft"):
    pytest.importorskip(_library)

pytestmark = pytest.mark.peft
CONFIGS = {
    "healthy": lora_config(),
    "no type": lora_config(peft_type=...),
    "null type": lora_config(peft_type=None),
    "a word for a task": lora_config(task_type="CAUSAL"),
    "a key like an argument": lora_config(self=1),
    "a lone pattern": lora_config(layers_pattern="layers"),
    "a list": "[1, 2]",
}


@pytest.mark.parametrize("title", CONFIGS)
def test_hotswapping_reads_the_config(title: str, tmp_path: Path) -> None:
    release = importlib.metadata.version("peft")
    if release not in {target.version for target in bundled()} or version_key(release) < (0, 16):
        pytest.skip("as measured on PEFT 0.16 and later")
    config: Any = CONFIGS[title]
    members = {"one": Example("one", lora_config(), llama_tensors()), "two": Example("two", config, llama_tensors())}
    paths, base = write_any(SetExample(title, members, llama_base()), tmp_path)
    target = f"peft=={release}"
    (found,) = check(Request([str(path) for path in paths], [target], str(base), "one")).sets
    said = found.operations["hotswap"][target].outcome.value
    assert said == ("raises" if _refused(str(base), *map(str, paths)) else "loads")
    assert (said == "loads") == (title == "healthy")


def _refused(base: str, first: str, other: str) -> bool:
    """Whether PEFT raises when the other adapter is put in the place of the first."""
    import peft
    import transformers
    from peft.utils.hotswap import hotswap_adapter

    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(model, first, adapter_name="one")
    try:
        hotswap_adapter(model, other, adapter_name="one")
    except Exception:
        return True
    return False
