"""``adapterlint show``: facts that are known from how the example was made, and every directory there is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_util import run
from safetensors import safe_open

from adapterlint.model.contents import fold_numbers
from adapterlint.rules.examples import (
    Example,
    SetExample,
    bert_config,
    bert_tensors,
    llama_tensors,
    lora_config,
    lora_pair,
    write,
    write_any,
)
from adapterlint.rules.registry import AnyRule, all_rules

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
DIRECTORIES = sorted(path.parent for path in FIXTURES.glob("**/adapter_config.json"))


def shown(path: Path) -> dict[str, Any]:
    result = run("show", str(path), "--format", "json")
    assert result.exit_code == 0
    (item,) = json.loads(result.stdout)["adapters"]
    return dict(item)


def test_facts(tmp_path: Path) -> None:
    tensors = {
        **llama_tensors(4, layers=3),
        **lora_pair("model.layers.7.self_attn.q_proj", 2),
        "base_model.model.lm_head.weight": ("BF16", (48, 16)),
    }
    config = lora_config(
        r=4, lora_alpha=16, use_rslora=True, rank_pattern={"layers.7.self_attn.q_proj": 2}, modules_to_save=["lm_head"]
    )
    item = shown(write(Example("x", config, tensors), tmp_path / "x"))
    assert item["modules"] == 7 and item["leaves"] == ["q_proj", "v_proj"]
    assert item["groups"] == [
        {"pattern": f"model.layers.{layers}.self_attn.{leaf}", "leaf": leaf, "modules": n, "rank": r, "scale": scale}
        for leaf, layers, n, r, scale in [
            ("q_proj", "{0-2}", 3, 4, 8.0),
            ("v_proj", "{0-2}", 3, 4, 8.0),
            ("q_proj", "7", 1, 2, 16 / 2**0.5),
        ]
    ]
    assert item["saved"] == {"lm_head": 1}
    assert item["features"] == ["saved modules", "rsLoRA", "rank pattern"]
    assert item["dtypes"] == [
        {"dtype": "F32", "tensors": 14, "nbytes": 4 * 16 * (12 * 4 + 2 * 2)},
        {"dtype": "BF16", "tensors": 1, "nbytes": 48 * 16 * 2},
    ]
    assert item["payload_bytes"] == sum(entry["nbytes"] for entry in item["dtypes"])
    assert item["file_bytes"] == os.path.getsize(tmp_path / "x" / "adapter_model.safetensors")
    assert item["problems"] == []


@pytest.mark.parametrize(
    ("change", "first", "unknown"),
    [
        ({}, "0.3.0", []),
        ({"rank_pattern": {}}, "0.6.0", []),
        ({"use_dora": True}, "0.9.0", []),
        ({"exclude_modules": None}, "0.14.0", []),
        ({"trainable_token_indices": [1]}, "0.15.0", []),
        ({"no_such_key": 1}, None, ["no_such_key"]),
        ({"peft_type": "NONSENSE"}, "no type", []),
    ],
)
def test_first_release_that_knows_every_key(
    change: dict[str, Any], first: str | None, unknown: list[str], tmp_path: Path
) -> None:
    item = shown(write(Example("x", lora_config(**change), llama_tensors()), tmp_path / "x"))
    assert item["peft"] == (None if first == "no type" else {"first": first, "unknown_keys": unknown})


def test_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = bert_config(bias="all", trainable_token_indices={"word_embeddings": [1]})
    write(Example("x", config, {**bert_tensors(layers=12), "evil\n\x1b": ("F32", (1,))}), Path("x"))
    text = run("show", "x").stdout
    assert text.split("\n")[:5] == [
        "x",
        "  method    LORA",
        "  base      example/tiny-llama",
        "  weights   adapter_model.safetensors (safetensors): 49 tensors, 18.8 kB, 12.3 kB of tensors",
        "  dtypes    F32: 49 tensors, 12.3 kB",
    ]
    assert "\n  modules   24: query, value\n" in text
    assert "\n            bert.encoder.layer.{0-11}.attention.self.query  12 modules, rank 4, scale 2\n" in text
    assert "\n  whole     evil\\n\\x1b: 1 tensor\n" in text
    assert "\n  features  bias, token rows\n" in text
    assert "\n  peft      0.15.0 is the first release that knows every key\n" in text


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Example("cut", '{"r": ', llama_tensors()), Path("set/cut"))
    write(Example("bare", lora_config()), Path("set/bare"))
    write(Example("no config", None, llama_tensors()), Path("set/config"))
    write(Example("list", "[]", llama_tensors()), Path("set/list"))
    write(Example("html", lora_config(), files={"adapter_model.safetensors": b"<html>"}), Path("set/html"))
    write(Example("fine", lora_config(), llama_tensors()), Path("set/fine"))
    result = run("show", "set", "--format", "json")
    assert result.exit_code == 0
    problems = {item["path"].split("/")[1]: item["problems"] for item in json.loads(result.stdout)["adapters"]}
    assert problems.pop("fine") == []
    assert all(problems.values()) and len(problems) == 5
    text = run("show", "set")
    assert text.exit_code == 0 and text.stdout.count("\n  problem   ") == sum(map(len, problems.values()))


def test_exit_codes(tmp_path: Path) -> None:
    assert run("show", str(tmp_path)).exit_code == 3
    assert json.loads(run("show", str(tmp_path), "--format", "json").stdout) == {"version": 1, "adapters": []}
    missing = run("show", str(tmp_path / "missing"))
    assert missing.exit_code == 2 and missing.stderr.count("\n") == 1
    assert run("show").exit_code == 2


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: str(path.relative_to(FIXTURES)))
def test_every_fixture(directory: Path) -> None:
    assert run("show", str(directory)).exit_code == 0
    item = shown(directory)
    path = directory / "adapter_model.safetensors"
    if not path.is_file() or item["problems"]:
        return
    with safe_open(path, "numpy") as file:
        names = list(file.keys())
        sizes = [file.get_slice(name) for name in names]
        shapes = [each.get_shape() for each in sizes]
    assert item["tensors"] == len(names) == len(shapes)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)
def test_every_example(rule: AnyRule, tmp_path: Path) -> None:
    for number, example in enumerate([*rule.valid(), *rule.invalid()]):
        paths, _ = write_any(example, tmp_path / str(number))
        for format_ in ("text", "json"):
            result = run("show", *map(str, paths), "--format", format_)
            assert result.exit_code == (0 if any(map(os.listdir, paths)) else 3)
        if isinstance(example, SetExample):
            assert len(json.loads(result.stdout)["adapters"]) == len(example.members)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "3"), ([0, 1, 2], "{0-2}"), ([2, 0, 1, 7, 9, 8], "{0-2,7-9}"), ([5, 5], "5"), ([1, 3], "{1,3}")],
)
def test_fold_numbers(numbers: list[int], text: str) -> None:
    assert fold_numbers(numbers) == text
