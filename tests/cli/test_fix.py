"""``adapterlint fix``: the plan and the proof as JSON, what is left, and the repairs that the tensors prove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_util import run
from safetensors.numpy import load_file

from adapterlint.rules.examples import (
    BaseExample,
    Example,
    llama_base,
    llama_tensors,
    lora_config,
    lora_pair,
    renamed,
    write,
    write_base,
)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MIXED = {**llama_tensors(4, 1), **lora_pair("model.layers.1.self_attn.q_proj", 2)}


def make(root: Path, config: Any, tensors: Any, base: BaseExample | None = None) -> list[str]:
    """Writes an adapter and perhaps its base; the arguments that name them."""
    path = write(Example("made", config, tensors), root / "adapter")
    return [str(path), *(["--base", str(write_base(base, root / "base"))] if base else [])]


def config_of(arguments: list[str]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(arguments[0]) / CONFIG).read_text())
    return loaded


def fix(arguments: list[str], *flags: str, code: int = 0) -> dict[str, Any]:
    result = run("fix", *arguments, "--format", "json", "--target", "peft>=0.6", *flags)
    assert result.exit_code == code, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_json_has_plan_and_proof(tmp_path: Path) -> None:
    named = renamed(llama_tensors(), lambda name: name.replace(".weight", ".default.weight"))
    arguments = make(tmp_path, lora_config(lora_dropout="0.0"), named)
    before = load_file(Path(arguments[0]) / WEIGHTS)
    planned = fix(arguments, code=1)
    assert planned["proofs"] == [] and load_file(Path(arguments[0]) / WEIGHTS).keys() == before.keys()
    done = fix(arguments, "--inplace")
    assert done["plans"] == planned["plans"] and done["left"] == done["refusals"] == []
    (plan,), (proof,) = done["plans"], done["proofs"]
    assert plan["path"] == proof["path"] == arguments[0]
    assert [title.partition(":")[0] for title in plan["fixes"]] == ["AL106", "AL202"]
    renames = [edit for edit in plan["edits"] if edit["edit"] == "rename-tensor"]
    assert {edit["old"]: edit["new"] for edit in renames} == {
        name: name.replace(".default.weight", ".weight") for name in named
    }
    # What was found different is what was planned, and nothing else.
    assert [edit for edit in plan["edits"] if edit not in renames] == [
        {"pointer": "/lora_dropout", "value": 0.0, "edit": "set-config"}
    ]
    assert proof["renamed"] == len(named) == len(renames)
    assert proof["config_changes"] == ["set /lora_dropout to 0.0"]
    assert all(not proof[count] for count in ("untouched", "dropped", "copied", "zeroed", "computed", "files"))
    after = load_file(Path(arguments[0]) / WEIGHTS)
    assert all(np.array_equal(after[edit["new"]], before[edit["old"]]) for edit in renames)
    again = fix(arguments, "--inplace")
    assert again["plans"] == again["proofs"] == []


def test_what_is_left_is_said(tmp_path: Path) -> None:
    arguments = make(tmp_path, lora_config(r=8), llama_tensors(4))
    told = fix(arguments, "--inplace", code=1)
    assert told["plans"] == [] and [finding["rule"] for finding in told["left"]] == ["AL207"]
    assert fix(arguments, "--inplace", "--unsafe-fixes")["left"] == []
    assert config_of(arguments)["r"] == 4


@pytest.mark.parametrize(
    ("config", "tensors", "r", "ranks", "alphas"),
    [
        (lora_config(r=16, lora_alpha=8), llama_tensors(4), 4, {}, {}),
        (lora_config(r=..., lora_alpha=8), llama_tensors(2), 2, {}, {}),
        (lora_config(r=4), MIXED, 4, {"model.layers.1.self_attn.q_proj": 2}, {}),
        (
            lora_config(r=4, lora_alpha=8, alpha_pattern={"q_proj": 6}),
            MIXED,
            4,
            {"model.layers.0.self_attn.q_proj": 4, "model.layers.1.self_attn.q_proj": 2},
            {"model.layers.0.self_attn.q_proj": 6, "model.layers.1.self_attn.q_proj": 6},
        ),
        (lora_config(r=4, rank_pattern={"q_proj": 9}), llama_tensors(4), 4, {}, {}),
    ],
    ids=["r", "no r", "pattern", "both patterns", "wrong pattern"],
)
def test_ranks_are_those_of_the_tensors(
    config: Any, tensors: Any, r: int, ranks: dict[str, int], alphas: dict[str, int], tmp_path: Path
) -> None:
    arguments = make(tmp_path, config, tensors)
    fix(arguments, "--inplace", "--unsafe-fixes")
    found = config_of(arguments)
    assert (found["r"], found["lora_alpha"]) == (r, config["lora_alpha"])
    assert (found.get("rank_pattern") or {}, found.get("alpha_pattern") or {}) == (ranks, alphas)


def test_a_rank_without_an_alpha_is_left(tmp_path: Path) -> None:
    arguments = make(tmp_path, lora_config(r=8, lora_alpha=...), llama_tensors(4))
    told = fix(arguments, "--inplace", "--unsafe-fixes", code=1)
    assert told["plans"] == [] and "AL207" in {finding["rule"] for finding in told["left"]}


def test_anchored_patterns_become_full_names(tmp_path: Path) -> None:
    config = lora_config(rank_pattern={"^model.layers.1.self_attn.q_proj": 2})
    arguments = make(tmp_path, config, {**llama_tensors(4), **MIXED})
    fix(arguments, "--inplace")
    assert config_of(arguments)["rank_pattern"] == {"model.layers.1.self_attn.q_proj": 2}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.model.model.", "model.model."),
        ("self_attn", "attn"),
        ("model.model.model.", "model.model.language_model."),
    ],
)
def test_modules_are_found_in_the_base(old: str, new: str, tmp_path: Path) -> None:
    right = {**llama_tensors(), "base_model.model.model.norm.weight": ("F32", (16,))}
    moved = renamed(right, lambda name: name.replace(old, new, 1))
    arguments = make(tmp_path, lora_config(modules_to_save=["model.norm"]), moved, llama_base())
    assert fix(arguments, "--inplace", code=1)["plans"] == []
    fix(arguments, "--inplace", "--unsafe-fixes")
    assert load_file(Path(arguments[0]) / WEIGHTS).keys() == right.keys()


def test_several_counterparts_are_none(tmp_path: Path) -> None:
    base = llama_base()
    twin = {name.replace("self_attn", "cross_attn"): entry for name, entry in base.tensors.items()}
    strange = renamed(llama_tensors(), lambda name: name.replace("self_attn", "attn"))
    arguments = make(tmp_path, lora_config(), strange, base._replace(tensors={**base.tensors, **twin}))
    assert fix(arguments, "--inplace", "--unsafe-fixes", code=1)["plans"] == []


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_transposed_halves_are_turned(half: str, tmp_path: Path) -> None:
    turned = {name: (dtype, shape[::-1] if half in name else shape) for name, (dtype, shape) in llama_tensors().items()}
    arguments = make(tmp_path, lora_config(), turned, llama_base())
    before = load_file(Path(arguments[0]) / WEIGHTS)
    proof = fix(arguments, "--inplace", "--unsafe-fixes")["proofs"][0]
    assert proof["computed"] == proof["untouched"] == len(turned) // 2
    for name, tensor in load_file(Path(arguments[0]) / WEIGHTS).items():
        assert np.array_equal(tensor, before[name].T if half in name else before[name])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"r": 4, "task_type": null,}', '{"r": 4, "task_type": null}'),
        (
            '{"r": 4, // rank\n "x": "a,}//b", "y": [1, 2, /* no more */ ],}',
            '{"r": 4, \n "x": "a,}//b", "y": [1, 2  ]}',
        ),
        ('\ufeff{"r": 4,}', '{"r": 4}'),
    ],
)
def test_text_that_is_not_json_is_cut(text: str, left: str, tmp_path: Path) -> None:
    arguments = make(tmp_path, "{}", llama_tensors())
    path = Path(arguments[0]) / CONFIG
    path.write_text(text, encoding="utf-8")
    fix([*arguments, "--select", "AL101"], "--inplace")
    assert path.read_text(encoding="utf-8") == left


@pytest.mark.parametrize("text", ['{"r": 4', '{"r": 4 "x": 1}', "{'r': 4}", '[{"r": 4}, {}]', '{"r": 4,,}'])
def test_text_that_could_mean_anything_is_left(text: str, tmp_path: Path) -> None:
    arguments = make(tmp_path, "{}", llama_tensors())
    path = Path(arguments[0]) / CONFIG
    path.write_text(text)
    fix([*arguments, "--select", "AL101"], "--inplace", "--unsafe-fixes", code=1)
    assert path.read_text() == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_becomes_utf_8(encoding: str, tmp_path: Path) -> None:
    arguments = make(tmp_path, "{}", llama_tensors())
    path = Path(arguments[0]) / CONFIG
    text = json.dumps(lora_config(base_model_name_or_path="größe"), ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    fix(arguments, "--inplace")
    assert path.read_bytes() == text.encode("utf-8")


def test_an_object_in_a_list_is_taken_out(tmp_path: Path) -> None:
    arguments = make(tmp_path, "{}", llama_tensors())
    (Path(arguments[0]) / CONFIG).write_text(json.dumps([lora_config()], indent=2))
    fix(arguments, "--inplace")
    assert config_of(arguments) == lora_config()


def test_weights_one_level_down_are_moved_up(tmp_path: Path) -> None:
    arguments = make(tmp_path, lora_config(), llama_tensors())
    root = Path(arguments[0])
    (root / "default").mkdir()
    (root / "default" / "notes.txt").touch()
    before = load_file(root / WEIGHTS)
    (root / WEIGHTS).rename(root / "default" / WEIGHTS)
    assert fix(arguments, "--inplace", code=1)["plans"] == []
    copied = run("fix", *arguments, "--unsafe-fixes", "--output", str(tmp_path / "out"))
    assert copied.exit_code in (0, 1), copied.output
    run("fix", *arguments, "--inplace", "--unsafe-fixes")
    for directory in (root, tmp_path / "out" / "adapter"):
        assert sorted(str(path.relative_to(directory)) for path in directory.rglob("*")) == [
            CONFIG,
            WEIGHTS,
            "default",
            "default/notes.txt",
        ]
        after = load_file(directory / WEIGHTS)
        assert after.keys() == before.keys() and all(np.array_equal(after[name], before[name]) for name in before)
    assert fix(arguments, "--inplace")["left"] == []


def test_a_folder_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    arguments = make(tmp_path, lora_config(), llama_tensors())
    root, elsewhere = Path(arguments[0]), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / WEIGHTS).rename(elsewhere / WEIGHTS)
    (root / "default").symlink_to(elsewhere, target_is_directory=True)
    run("fix", *arguments, "--inplace", "--unsafe-fixes")
    assert (elsewhere / WEIGHTS).exists() and not (root / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("suffixes", "told"),
    [
        (("lora_A.weight", "lora_B.weight"), "LORA"),
        (("lora_A", "lora_B", "lora_E"), "ADALORA"),
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), "LOHA"),
        (("ia3_l",), "IA3"),
        (("lora_A.weight", "ia3_l"), None),
    ],
)
def test_the_type_is_told_by_its_tensors(suffixes: tuple[str, ...], told: str | None, tmp_path: Path) -> None:
    stem = "base_model.model.model.layers.0.self_attn.q_proj."
    arguments = make(tmp_path, lora_config(peft_type=...), {stem + suffix: ("F32", (4, 16)) for suffix in suffixes})
    run("fix", *arguments, "--inplace", "--unsafe-fixes", "--select", "AL108")
    assert config_of(arguments).get("peft_type") == told


@pytest.mark.parametrize("safe", [True, False])
def test_a_bias_mode_without_biases_is_none(safe: bool, tmp_path: Path) -> None:
    paths = [str(write(Example(name, lora_config(bias="all"), llama_tensors()), tmp_path / name)) for name in "ab"]
    base = llama_base()
    if not safe:  # it may have been trained, and lost
        base = base._replace(tensors={**base.tensors, "model.layers.0.self_attn.q_proj.bias": ("F32", (16,))})
    arguments = [*paths, "--base", str(write_base(base, tmp_path / "base"))]
    run("fix", *arguments, "--inplace")
    assert config_of(arguments)["bias"] == ("none" if safe else "all")
    run("fix", *arguments, "--inplace", "--unsafe-fixes")
    assert config_of(arguments)["bias"] == "none"
