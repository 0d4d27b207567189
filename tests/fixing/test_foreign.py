"""Adapters of other tools: what they add to the base by their producers' definitions is what PEFT adds afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from adapterlint.cli import main
from adapterlint.findings import CONFIG_FILE, SAFETENSORS_FILE
from adapterlint.fixing.foreign.torchtune import _rows
from adapterlint.model.base import Base

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
_TABLE = (FIXTURES / "foreign" / "README.md").read_text().splitlines()
CASES = {
    name: (base, reason)
    for name, base, _, reason in (
        [cell.strip() for cell in row.split("|")[1:5]] for row in _TABLE if row.startswith("| ")
    )
    if (FIXTURES / "foreign" / name).is_dir()
}
CONVERTED = sorted(name for name, (_, reason) in CASES.items() if not reason)
REFUSED = sorted(name for name, (_, reason) in CASES.items() if reason)
Array = np.ndarray[Any, Any]


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(main, [str(item) for item in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def base_of(case: str) -> Path:
    return FIXTURES / "base" / CASES[case][0]


def copy_of(case: str, directory: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "foreign" / case, directory / case))


def convert(case: str, directory: Path) -> Path:
    path = copy_of(case, directory)
    done = run("fix", path, "--base", base_of(case), "--unsafe-fixes", "--inplace")
    assert done.exit_code == 0, done.output
    return path


# -- what the producers define -----------------------------------------------------------------------------------


def stored(path: Path) -> dict[str, Array]:
    """All tensors of the one weights file, read by the library that its producer uses."""
    file = next(item for item in path.iterdir() if item.suffix in (".safetensors", ".pt"))
    if file.suffix == ".pt":
        return {name: tensor.double().numpy() for name, tensor in torch.load(file, weights_only=True).items()}
    return {name: array.astype(np.float64) for name, array in load_file(file).items()}


def with_length(weight: Array, length: Array) -> Array:
    """DoRA: each row gets this length."""
    lengths: Array = np.linalg.norm(weight, axis=1)
    return (length / lengths)[:, None] * weight


def mlx(path: Path, base: dict[str, Array]) -> dict[str, Array]:
    """mlx-lm, ``LoRALinear.fuse``, ``LoRAEmbedding.fuse``, ``DoRALinear.fuse``."""
    tensors, found = stored(path), {}
    scale = json.loads((path / CONFIG_FILE).read_text())["lora_parameters"]["scale"]
    for name, a in tensors.items():
        module, _, part = name.rpartition(".")
        if part != "lora_a":
            continue
        b, weight = tensors[f"{module}.lora_b"], base[f"{module}.weight"]
        delta = scale * a @ b if "embed" in module else (scale * b.T) @ a.T
        found[module] = weight + delta
        if f"{module}.m" in tensors:
            found[module] = with_length(found[module], tensors[f"{module}.m"])
    return found


_TUNE = {"output_proj": "o_proj", "w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def torchtune(path: Path, base: dict[str, Array]) -> dict[str, Array]:
    """torchtune: the base in its own order of rows (``hf_to_tune``), what ``LoRALinear`` adds, and back again."""
    tensors, found = stored(path), {}
    config, heads = json.loads((path / CONFIG_FILE).read_text()), 4
    for name, a in tensors.items():
        if not name.endswith(".lora_a.weight"):
            continue
        own = name.removesuffix(".lora_a.weight")
        parts = own.split(".")
        leaf = _TUNE.get(parts[-1], parts[-1])
        inner = "self_attn" if "attn" in parts else "mlp"
        module = "lm_head" if own == "output" else f"model.layers.{parts[1]}.{inner}.{leaf}"
        weight = base[f"{module}.weight"]
        size, columns = len(weight) // heads, weight.shape[1]
        turned = leaf in ("q_proj", "k_proj")
        if turned:
            weight = weight.reshape(heads, 2, size // 2, columns).transpose(0, 2, 1, 3).reshape(-1, columns)
        weight = weight + config["lora_alpha"] / config["r"] * tensors[f"{own}.lora_b.weight"] @ a
        if f"{own}.magnitude" in tensors:
            weight = with_length(weight, tensors[f"{own}.magnitude"])
        if turned:
            weight = weight.reshape(heads, size // 2, 2, columns).transpose(0, 2, 1, 3).reshape(-1, columns)
        found[module] = weight
    return found


def kohya(path: Path, base: dict[str, Array]) -> dict[str, Array]:
    """sd-scripts: names are paths with underscores; the scale is alpha over rank, 1 without alpha."""
    tensors, found = stored(path), {}
    for name in base:
        module = name.removesuffix(".weight")
        for prefix in ("lora_te", "lora_te1"):
            flat = f"{prefix}_{module.replace('.', '_')}"
            if f"{flat}.lora_down.weight" in tensors:
                down, up = tensors[f"{flat}.lora_down.weight"], tensors[f"{flat}.lora_up.weight"]
                alpha = tensors[f"{flat}.alpha"].item() if f"{flat}.alpha" in tensors else len(down)
                found[module] = base[name] + alpha / len(down) * (up @ down)
    return found


def diffusers(path: Path, base: dict[str, Array]) -> dict[str, Array]:
    """diffusers: names in three spellings; the scale is 1 unless the metadata state another."""
    tensors, found = stored(path), {}
    with safe_open(next(path.glob("*.safetensors")), "numpy") as file:
        stated = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    for name, down in tensors.items():
        match = re.fullmatch(
            r"text_encoder\.(.*)(\.lora_A\.weight|\.lora_linear_layer\.down\.weight|_lora\.down\.weight)", name
        )
        if match is None:
            continue
        spelt, ending = match.groups()
        other = ending.replace("lora_A", "lora_B").replace("down", "up")
        up = tensors[f"text_encoder.{spelt}{other}"]
        module = re.sub(r"to_(\w+)$", r"\1_proj", spelt)
        scale = 1.0
        if stated:  # alpha over the root of the rank, rslora being used
            alpha = stated["text_encoder.alpha_pattern"].get(module, stated["text_encoder.lora_alpha"])
            scale = alpha / stated["text_encoder.r"] ** 0.5
        found[module] = base[f"{module}.weight"] + scale * (up @ down)
    return found


PRODUCERS: dict[str, Callable[[Path, dict[str, Array]], dict[str, Array]]] = {
    "mlx": mlx, "torchtune": torchtune, "kohya": kohya, "diffusers": diffusers,
}  # fmt: skip


def defined(case: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """The base's weights and those with the adapter merged, by the producer's definition."""
    base = {name: each.astype(np.float64) for name, each in load_file(base_of(case) / "model.safetensors").items()}
    found = PRODUCERS[case.partition("-")[0]](FIXTURES / "foreign" / case, base)
    assert found
    return base, found


# -- what PEFT makes of the result -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CONVERTED)
def test_peft_merges_to_what_the_producer_defines(case: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, CLIPTextModel

    base, wanted = defined(case)
    path = convert(case, tmp_path)
    kind = CLIPTextModel if CASES[case][0] == "clip-text" else AutoModelForCausalLM
    model = PeftModel.from_pretrained(kind.from_pretrained(base_of(case)).double(), path).double()
    layers = {name for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert layers == set(wanted)
    merged = model.merge_and_unload()
    weights = {name: each.detach().numpy() for name, each in merged.named_parameters()}
    for name, weight in base.items():
        module = name.removesuffix(".weight")
        expected = wanted.get(module, weight)
        scale = np.abs(expected).max()
        assert np.abs(weights[name] - expected).max() <= 1e-6 * scale, name
        if module in wanted:
            assert np.abs(expected - weight).max() > 1e-3, f"{name}: the adapter adds nothing, so this shows nothing"


@pytest.mark.parametrize("case", CONVERTED)
def test_every_element_is_one_of_the_old_file(case: str, tmp_path: Path) -> None:
    """No rounding: the elements of each matrix are those of the foreign one, in another order at most."""
    before = stored(FIXTURES / "foreign" / case)
    after = stored(convert(case, tmp_path))
    alphas = {name for name in before if name.endswith(".alpha")}
    assert sorted(sorted(each.ravel()) for name, each in before.items() if name not in alphas) == sorted(
        sorted(each.ravel()) for each in after.values()
    )


@pytest.mark.parametrize("case", CONVERTED)
def test_the_result_is_clean_and_alone(case: str, tmp_path: Path) -> None:
    path = convert(case, tmp_path)
    assert sorted(os.listdir(path)) == [CONFIG_FILE, SAFETENSORS_FILE]
    report = json.loads(run("check", path, "--base", base_of(case), "--format", "json").stdout)
    assert [each for each in report["findings"] if each["severity"] != "note"] == []
    assert [verdict["outcome"] for verdict in report["adapters"][0]["verdicts"].values()] == ["loads"]
    mode = {(path / name).stat().st_mode & 0o777 for name in (CONFIG_FILE, SAFETENSORS_FILE)}
    assert mode == {next((FIXTURES / "foreign" / case).glob("*.*s*")).stat().st_mode & 0o777}
    again = run("fix", path, "--base", base_of(case), "--unsafe-fixes", "--inplace")
    assert again.exit_code == 0 and "proved" not in again.output


@pytest.mark.parametrize("case", CONVERTED)
def test_a_plan_writes_nothing(case: str, tmp_path: Path) -> None:
    path = copy_of(case, tmp_path)
    before = {item.name: item.read_bytes() for item in path.iterdir()}
    kept = run("fix", path, "--base", base_of(case), "--inplace")
    assert kept.exit_code == 1
    assert "needs --unsafe-fixes" in kept.output
    shown = run("fix", path, "--base", base_of(case), "--unsafe-fixes")
    assert shown.exit_code == 1
    assert "convert" in shown.output and '+  "inference_mode": true' in shown.output
    assert {item.name: item.read_bytes() for item in path.iterdir()} == before
    copied = run("fix", path, "--base", base_of(case), "--unsafe-fixes", "--output", tmp_path / "out")
    assert copied.exit_code == 0, copied.output
    assert {item.name: item.read_bytes() for item in path.iterdir()} == before
    inplace = convert(case, tmp_path / "inplace")
    assert all((tmp_path / "out" / case / item.name).read_bytes() == item.read_bytes() for item in inplace.iterdir())


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_single_meaning_is_refused(case: str, tmp_path: Path) -> None:
    path = copy_of(case, tmp_path)
    before = {item.name: item.read_bytes() for item in path.iterdir()}
    done = run("fix", path, "--base", base_of(case), "--unsafe-fixes", "--inplace")
    assert done.exit_code == 1
    assert f"refused the PEFT form of {path}" in done.output or "(by hand: " in done.output
    assert CASES[case][1] in done.output
    assert {item.name: item.read_bytes() for item in path.iterdir()} == before


# -- without a base ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "converted"), [
    ("mlx-lora", True), ("mlx-last", True), ("mlx-dora", True), ("mlx-embedding", False),
    ("torchtune-lora", False), ("kohya-lora", False), ("diffusers-lora", True),
])  # fmt: skip
def test_without_a_base_only_what_is_sure(case: str, converted: bool, tmp_path: Path) -> None:
    path = copy_of(case, tmp_path)
    done = run("fix", path, "--unsafe-fixes", "--inplace")
    assert (done.exit_code == 0) is converted, done.output
    if not converted:
        assert "give --base" in done.output
        return
    config = json.loads((path / CONFIG_FILE).read_text())
    same = json.loads((convert(case, tmp_path / "based") / CONFIG_FILE).read_text())
    assert config == same or case in ("mlx-last", "diffusers-lora")


def test_layers_from_the_end_are_named_in_full(tmp_path: Path) -> None:
    config = json.loads((convert("mlx-last", tmp_path) / CONFIG_FILE).read_text())
    assert "model.layers.1.self_attn.q_proj" in config["target_modules"]
    assert all(name.startswith("model.layers.1.") for name in config["target_modules"])


# -- names of another tool, config of PEFT's ---------------------------------------------------------------------------


def mixed(case: str, directory: Path, lora_alpha: float, change: Callable[[str], str] = str, **fields: object) -> Path:
    """A foreign adapter's tensors, their names changed further, in a directory with a config of PEFT's."""
    path = directory / case
    path.mkdir()
    tensors = {
        change(name): array for name, array in load_file(next((FIXTURES / "foreign" / case).glob("*.s*"))).items()
    }
    save_file(tensors, path / SAFETENSORS_FILE)
    targets = sorted({name.removesuffix(".weight").split(".")[-2] for name in tensors}) if case == "mlx-lora" else [
        "k_proj", "out_proj", "q_proj", "v_proj", "fc1", "fc2",
    ]  # fmt: skip
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": lora_alpha, "target_modules": targets, **fields}
    (path / CONFIG_FILE).write_text(json.dumps(config))
    return path


def merged(path: Path, case: str) -> dict[str, Array]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, CLIPTextModel

    kind = CLIPTextModel if CASES[case][0] == "clip-text" else AutoModelForCausalLM
    model = PeftModel.from_pretrained(kind.from_pretrained(base_of(case)).double(), path).double().merge_and_unload()
    return {name: each.detach().numpy() for name, each in model.named_parameters()}


def into_peft(name: str) -> str:
    return f"base_model.model.{name}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("case", "change"), [("mlx-lora", str), ("mlx-lora", into_peft), ("kohya-no-alpha", str)])
def test_only_the_names_are_foreign_and_the_config_gives_the_scale(
    case: str, change: Callable[[str], str], tmp_path: Path
) -> None:
    base, wanted = defined(case)
    own = 20.0 if case == "mlx-lora" else 1.0
    path = mixed(case, tmp_path, 12, change)
    before = json.loads((path / CONFIG_FILE).read_text())
    kept = run("fix", path, "--base", base_of(case), "--inplace")
    assert kept.exit_code == 1 and "needs --unsafe-fixes" in kept.output
    done = run("fix", path, "--base", base_of(case), "--unsafe-fixes", "--inplace")
    assert done.exit_code == 0, done.output
    after = json.loads((path / CONFIG_FILE).read_text())
    assert (after["r"], after["lora_alpha"]) == (before["r"], before["lora_alpha"])
    weights = merged(path, case)
    for module, weight in wanted.items():
        expected = base[f"{module}.weight"] + 12 / 4 / own * (weight - base[f"{module}.weight"])
        assert np.abs(weights[f"{module}.weight"] - expected).max() <= 1e-6 * np.abs(expected).max(), module


@pytest.mark.parametrize("case", ["mlx-lora", "kohya-no-alpha"])
def test_peft_paths_and_shapes_with_foreign_endings_are_only_renamed(case: str, tmp_path: Path) -> None:
    """``base_model.model.….q_proj.lora_down.weight``, and ``….lora_a`` that is not turned."""
    converted = convert(case, tmp_path / "own")
    ours = load_file(converted / SAFETENSORS_FILE)
    ends = ("lora_a", "lora_b") if case == "mlx-lora" else ("lora_down.weight", "lora_up.weight")
    path = Path(shutil.copytree(converted, tmp_path / "renamed"))
    named = {
        name.replace("lora_A.weight", ends[0]).replace("lora_B.weight", ends[1]): each for name, each in ours.items()
    }
    save_file(named, path / SAFETENSORS_FILE)
    done = run("fix", path, "--base", base_of(case), "--unsafe-fixes", "--inplace")
    assert done.exit_code == 0, done.output
    assert {name: each.tobytes() for name, each in load_file(path / SAFETENSORS_FILE).items()} == {
        name: each.tobytes() for name, each in ours.items()
    }
    assert json.loads((path / CONFIG_FILE).read_text()) == json.loads((converted / CONFIG_FILE).read_text())


@pytest.mark.parametrize(("fields", "reason"), [
    ({"lora_alpha": 3}, "which one holds cannot be told"),
    ({"lora_alpha": "x"}, "no usable scale"),
    ({"peft_type": "IA3"}, "its peft_type is IA3"),
])  # fmt: skip
def test_a_config_that_denies_its_tensors_is_refused(fields: dict[str, object], reason: str, tmp_path: Path) -> None:
    path = mixed("kohya-lora", tmp_path, **{"lora_alpha": 2, **fields})  # type: ignore[arg-type]
    before = (path / SAFETENSORS_FILE).read_bytes()
    done = run("fix", path, "--base", base_of("kohya-lora"), "--unsafe-fixes", "--inplace")
    assert done.exit_code == 1
    assert reason in done.output
    assert (path / SAFETENSORS_FILE).read_bytes() == before


def test_alphas_that_the_config_states_too_are_dropped(tmp_path: Path) -> None:
    alpha = stored(FIXTURES / "foreign" / "kohya-lora")
    value = next(each.item() for name, each in alpha.items() if name.endswith(".alpha"))
    path = mixed("kohya-lora", tmp_path, value)
    done = run("fix", path, "--base", base_of("kohya-lora"), "--unsafe-fixes", "--inplace")
    assert done.exit_code == 0, done.output
    assert all(name.endswith(("lora_A.weight", "lora_B.weight")) for name in load_file(path / SAFETENSORS_FILE))


def test_magnitudes_beside_a_config_of_peft_are_refused(tmp_path: Path) -> None:
    path = mixed("mlx-dora", tmp_path, 8, use_dora=True, target_modules=["q_proj", "v_proj"])
    done = run("fix", path, "--base", base_of("mlx-dora"), "--unsafe-fixes", "--inplace")
    assert done.exit_code == 1 and "belongs to DoRA" in done.output


def test_checkpoints_of_mlx_beside_stay(tmp_path: Path) -> None:
    path = copy_of("mlx-lora", tmp_path)
    shutil.copy(path / "adapters.safetensors", path / "0000100_adapters.safetensors")
    done = run("fix", path, "--unsafe-fixes", "--inplace")
    assert done.exit_code == 0, done.output
    assert sorted(os.listdir(path)) == ["0000100_adapters.safetensors", CONFIG_FILE, SAFETENSORS_FILE]


def test_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    path = copy_of("mlx-lora", tmp_path)
    half = {name: each.astype(np.float16) for name, each in load_file(path / "adapters.safetensors").items()}
    save_file(half, path / "adapters.safetensors")
    assert run("fix", path, "--unsafe-fixes", "--inplace").exit_code == 0
    after = load_file(path / SAFETENSORS_FILE)
    name = "model.layers.0.self_attn.q_proj"
    assert after[f"base_model.model.{name}.lora_A.weight"].tobytes() == half[f"{name}.lora_a"].T.tobytes()
    assert after[f"base_model.model.{name}.lora_A.weight"].dtype == np.float16


@pytest.mark.parametrize(("kind", "heads", "shared"), [("llama", 8, 2), ("mistral", 4, 4), ("gemma", 2, 1)])
def test_rows_go_where_torchtune_puts_them(kind: str, heads: int, shared: int) -> None:
    """``tune_to_peft_adapter_weights``: view(heads, size / 2, 2, rank), transpose(1, 2)."""
    base = Base("", {"model_type": kind, "num_attention_heads": heads, "num_key_value_heads": shared}, {})
    for leaf, count in (("q_proj", heads), ("k_proj", shared)):
        size = 6
        rows = _rows(base, f"model.layers.0.self_attn.{leaf}", count * size)
        wanted = torch.arange(count * size).view(count, size // 2, 2).transpose(1, 2).reshape(-1)
        assert rows is not None and list(rows) == wanted.tolist()
    assert _rows(base, "model.layers.0.self_attn.v_proj", 12) is None
    qwen = Base("", {**base.config, "model_type": "qwen2"}, {})
    assert _rows(qwen, "model.layers.0.self_attn.q_proj", 12) is None


# -- the producers themselves, where they are installed ----------------------------------------------------------------


@pytest.mark.parametrize("case", [name for name in CONVERTED if name.startswith("mlx")])
def test_mlx_itself_merges_to_the_same(case: str) -> None:
    mx, nn = pytest.importorskip("mlx.core"), pytest.importorskip("mlx.nn")
    tuner = pytest.importorskip("mlx_lm.tuner.lora")
    dora = pytest.importorskip("mlx_lm.tuner.dora")
    base, wanted = defined(case)
    config = json.loads((FIXTURES / "foreign" / case / CONFIG_FILE).read_text())
    tensors = mx.load(str(FIXTURES / "foreign" / case / "adapters.safetensors"))
    for module, expected in wanted.items():
        rows, columns = expected.shape
        embedding = module.endswith("embed_tokens")
        plain = nn.Embedding(rows, columns) if embedding else nn.Linear(columns, rows, bias=False)
        plain.weight = mx.array(base[f"{module}.weight"].astype(np.float32))
        linear = dora.DoRALinear if config["fine_tune_type"] == "dora" else tuner.LoRALinear
        layer = (tuner.LoRAEmbedding if embedding else linear).from_base(plain, r=4, scale=20.0)
        layer.update({key.rpartition(".")[2]: each for key, each in tensors.items() if key.startswith(module + ".")})
        assert np.abs(np.array(layer.fuse().weight) - expected).max() < 1e-4 * np.abs(expected).max()


def test_torchtune_itself_exports_the_same(tmp_path: Path) -> None:
    weights = pytest.importorskip("torchtune.models.convert_weights")
    tensors = torch.load(FIXTURES / "foreign" / "torchtune-lora" / "adapter_model.pt", weights_only=True)
    exported = weights.tune_to_peft_adapter_weights(tensors, num_heads=4, num_kv_heads=4, dim=16)
    ours = load_file(convert("torchtune-lora", tmp_path) / SAFETENSORS_FILE)
    assert ours.keys() == exported.keys()
    assert all(np.array_equal(ours[name], each.numpy()) for name, each in exported.items())


# -- checkpoints as a training loop writes them ------------------------------------------------------------------------

Made = tuple[Path, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A directory with the adapter as PEFT saves it, and the state of the whole model that was trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    path = tmp_path_factory.mktemp("trained")
    base = AutoModelForSequenceClassification.from_pretrained(FIXTURES / "base" / "seed")
    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], init_lora_weights=False)
    model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(path)
    return path, {name: each.clone().contiguous() for name, each in model.state_dict().items()}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "adapter_model.bin"])
@pytest.mark.parametrize("what", ["everything", "trained only", "nested"])
@pytest.mark.parametrize("way", ["--inplace", "--output"])
def test_a_raw_checkpoint_becomes_what_peft_would_have_saved(
    file: str, what: str, way: str, trained: Made, tmp_path: Path
) -> None:
    saved, state = trained
    if what == "nested" and file != "adapter_model.bin":
        pytest.skip("a state under a key is looked for in PEFT's own file only")
    if what == "trained only":
        state = {name: each for name, each in state.items() if "lora_" in name or "modules_to_save" in name}
    path = tmp_path / "a"
    path.mkdir()
    shutil.copy(saved / CONFIG_FILE, path)
    if file.endswith(".bin"):
        torch.save({"state_dict": state} if what == "nested" else state, path / file)
    else:
        save_file({name: each.numpy() for name, each in state.items()}, path / file)
    where = ("--inplace",) if way == "--inplace" else ("--output", tmp_path / "out")
    done = run("fix", path, "--base", FIXTURES / "base" / "seed", "--unsafe-fixes", *where)
    assert done.exit_code == 0, done.output
    result = path if way == "--inplace" else tmp_path / "out" / "a"
    found, wanted = load_file(result / SAFETENSORS_FILE), load_file(saved / SAFETENSORS_FILE)
    assert wanted.keys() <= found.keys()
    assert all(found[name].tobytes() == each.tobytes() for name, each in wanted.items())
    assert sorted(os.listdir(result)) == [CONFIG_FILE, SAFETENSORS_FILE]
