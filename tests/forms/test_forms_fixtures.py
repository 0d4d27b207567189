"""The forms on the adapters of fixtures/ok, which look odd and are healthy: taken as they answer, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from forms_util import BASES, FIXTURES, PROJECT, alone, command, fix, worst

for _library in ("torch", "transformers", "peft"):
    pytest.importorskip(_library)

pytestmark = pytest.mark.peft

OK = sorted(path.name for path in (FIXTURES / "ok").iterdir() if path.is_dir())
NO_FORM = {
    "dora": "is DoRA",
    "rank-of-adalora": "is of type ADALORA",
    "tied-trainable-tokens": "trains rows of an embedding",
    "trainable-tokens": "trains rows of an embedding",
}
REFUSED = {
    "lowrank": {**NO_FORM, "tied-both-equal": "embedding and head are one tensor"},
    "portable": {
        **NO_FORM,
        "bias-lora-only": "trains biases (bias='lora_only')",
        "lora-bias": "has a bias of B",
        "tied-both-equal": "saves lm_head.weight, which differs",
        **dict.fromkeys(
            (
                "duplicate-declarations",
                "feature-extraction-head",
                "head-score-only",
                "head-undeclared",
                "original-module-copy",
                "saved-name-unmatched",
                "target-also-saved",
            ),
            "saves classifier.",
        ),
    },
}
ROUNDED = {"bfloat16": 2e-2, "mixed-dtypes": 2e-3}


def base_of(directory: Path) -> Path:
    named = json.loads((directory / "adapter_config.json").read_text()).get("base_model_name_or_path")
    return PROJECT / named if named else BASES["bert"][1]


@pytest.mark.parametrize("name", OK)
@pytest.mark.parametrize("form", ["lowrank", "portable"])
def test_it_answers_as_before_or_says_why_not(form: str, name: str, tmp_path: Path) -> None:
    old, reason = Path(shutil.copytree(FIXTURES / "ok" / name, tmp_path / name)), REFUSED[form].get(name)
    base = base_of(old)
    done = fix([old], tmp_path / "new", "--form", form, "--base", str(base))
    new = tmp_path / "new" / name
    if reason is not None:
        assert (done.returncode, done.stdout, new.exists()) == (2, "", False)
        assert f"refused the {form} form of" in done.stderr and reason in done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert worst([("it", alone(base, new))], {"it": alone(base, old)}) < ROUNDED.get(name, 2e-5)
    if form == "portable":
        checked = command("check", "--format", "json", "--target", "peft>=0.3", "--base", str(base), str(new))
        verdicts = json.loads(checked.stdout)["adapters"][0]["verdicts"]
        assert len(verdicts) >= 30
        assert {target: verdict for target, verdict in verdicts.items() if verdict["outcome"] != "loads"} == {}
