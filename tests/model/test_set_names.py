"""Members of a set whose directories have the same name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from adapterlint.cli import main
from adapterlint.rules.examples import Example, bert_config, bert_tensors, write

SAVED = {"base_model.model.classifier.weight": ("F32", (3, 16)), "base_model.model.classifier.bias": ("F32", (3,))}


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    for parent, example in {
        "v1.0": Example("head", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **SAVED}),
        "v2.0": Example("plain", bert_config(), bert_tensors()),
    }.items():
        (tmp_path / parent).mkdir()
        write(example, tmp_path / parent / "chat")
    write(Example("plain", bert_config(r=4), bert_tensors()), tmp_path / "other")
    return tmp_path


def check(*paths: object) -> dict[str, object]:
    arguments = ["check", *map(str, paths), "--operation", "all", "--target", "peft>=0.6", "--format", "json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (0, 1), result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_they_get_longer_names(alike: Path) -> None:
    report = check(alike / "v1.0" / "chat", alike / "v2.0" / "chat", alike / "other")
    findings = {item["rule"]: item for item in report["findings"]}  # type: ignore[attr-defined]
    assert "AL999" not in findings and "AL507" not in findings
    assert "v1_0/chat: classifier" in findings["AL501"]["message"] and "v2_0/chat" in findings["AL501"]["message"]


def test_their_verdicts_are_those_of_other_names(alike: Path) -> None:
    one = check(alike / "v1.0" / "chat", alike / "v2.0" / "chat")
    (alike / "v2.0" / "chat").rename(alike / "plain")
    two = check(alike / "v1.0" / "chat", alike / "plain")
    outcomes = [
        {target: verdict["outcome"] for target, verdict in report["sets"][0]["verdicts"].items()}  # type: ignore[index]
        for report in (one, two)
    ]
    assert outcomes[0] == outcomes[1] and set(outcomes[0].values()) > {"loads"}


def test_a_fix_of_the_set_goes_on(alike: Path) -> None:
    paths = [str(alike / "v1.0" / "chat"), str(alike / "v2.0" / "chat")]
    result = CliRunner().invoke(main, ["fix", *paths])
    assert result.exit_code == 1 and "internal error" not in result.output
