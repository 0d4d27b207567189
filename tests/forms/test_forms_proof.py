"""The proof that a form keeps what an adapter means: its figures, and that it fails on what it is for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forms_util import BASES, FIXTURES, PREFIX, Maker, command, fix
from safetensors.numpy import load_file, save_file

from adapterlint.fixing.forms import common
from adapterlint.fixing.meaning import FACTOR, Equality, compare
from adapterlint.fixing.values import ROUNDING
from adapterlint.run import Request, examine

LLAMA = BASES["llama"][1]
Q = "model.layers.0.self_attn.q_proj"


def equality(old: Path, new: Path, base: Path = LLAMA) -> Equality:
    one, two = (
        examine(Request([str(path)], base=str(base), payload="none")).adapters[0].subject for path in (old, new)
    )
    return compare(one, two)


def seed(root: Path) -> list[Path]:
    """A copy of the seed set: two runs at once on the same adapters would keep each other out."""
    return [Path(shutil.copytree(FIXTURES / "sets" / "seed" / name, root / "seed" / name)) for name in "abcd"]


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return Maker(LLAMA, tmp_path / "old").adapter("a", ("q_proj", "v_proj"), use_rslora=True, r=5, lora_alpha=3)


def test_the_figures_are_printed_and_in_the_json(adapter: Path, tmp_path: Path) -> None:
    done = fix([adapter], tmp_path / "text", "--form", "portable", "--base", str(LLAMA))
    assert done.returncode == 0
    assert "; what is added to 4 modules differs by " in done.stdout and "(up to 2.4e-07 is rounding)" in done.stdout
    done = fix([adapter], tmp_path / "json", "--form", "portable", "--base", str(LLAMA), "--format", "json")
    found = json.loads(done.stdout)["proofs"][0]["equality"]
    assert 0 < found["error"] < ROUNDING["F32"] * 1.01 and found["module"].endswith("_proj.weight")
    assert found["modules"] == 4 and found["complaints"] == []
    assert found["tolerance"] == pytest.approx(FACTOR * ROUNDING["F32"])


def test_the_error_is_that_of_numpy(adapter: Path, tmp_path: Path) -> None:
    fix([adapter], tmp_path / "new", "--form", "portable", "--base", str(LLAMA))
    found = equality(adapter, tmp_path / "new" / "a")
    old, new = (load_file(path / "adapter_model.safetensors") for path in (adapter, tmp_path / "new" / "a"))
    errors = {}
    for name in (name for name in old if "lora_A" in name):
        other = name.replace("lora_A", "lora_B")
        a, b = old[name].astype(float), old[other].astype(float) * (3 / 5**0.5)
        difference = new[other].astype(float) @ new[name] - b @ a
        norms = [np.linalg.norm(rows, axis=1).max() for rows in (difference, np.abs(b) @ np.abs(a))]
        errors[name.removeprefix(PREFIX).replace("lora_A.", "")] = norms[0] / norms[1]
    assert found.module == max(errors, key=lambda name: errors[name])
    assert found.error == pytest.approx(max(errors.values()), rel=1e-3)


def test_a_union_differs_by_nothing(tmp_path: Path) -> None:
    done = fix(seed(tmp_path), tmp_path / "new", "--form", "union", "--base", str(BASES["bert"][1]), "--format", "json")
    assert [(proof["equality"]["error"], proof["computed"]) for proof in json.loads(done.stdout)["proofs"]] == [
        (0.0, 0)
    ] * 4


def change(path: Path, name: str, factor: float) -> None:
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[name] = tensors[name] * np.float32(factor)
    save_file(tensors, file)


@pytest.mark.parametrize("name", [f"{PREFIX}{Q}.lora_B.weight", f"{PREFIX}lm_head.weight"])
def test_a_change_is_seen_wherever_it_is(tmp_path: Path, name: str) -> None:
    old = Maker(LLAMA, tmp_path).adapter("a", ("q_proj",), {"lm_head": ["lm_head.weight"]})
    new = Path(shutil.copytree(old, tmp_path / "b"))
    assert equality(old, new).error == 0
    change(new, name, 1.00001)
    found = equality(old, new)
    assert found.error > found.tolerance
    assert [text.split(" would change by ")[0] for text in found.complaints] == [
        name.removeprefix(PREFIX).replace("lora_B.", "")
    ]


def test_what_is_gone_is_seen(tmp_path: Path) -> None:
    make = Maker(LLAMA, tmp_path)
    old, new = make.adapter("a", ("q_proj", "v_proj")), make.adapter("b", ("q_proj",))
    assert len(equality(old, new).complaints) == 4
    assert equality(old, new).error > 0.5


@pytest.mark.parametrize("in_place", [True, False])
def test_a_wrong_scale_is_never_written(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    before = snapshot(tmp_path)
    monkeypatch.setattr(common, "factor", lambda *_: 1.3)
    where = ["--inplace"] if in_place else ["--output", str(tmp_path / "new")]
    done = command("fix", "--form", "portable", "--base", str(LLAMA), *where, str(adapter))
    assert done.returncode == 2 and "would change by 1.9e-02 of" in done.stderr and "nothing was changed" in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("factor", "alpha"), [(3e4, 40), (1e-6, 1)], ids=["too large", "too small"])
def test_what_float16_cannot_hold_is_refused(tmp_path: Path, factor: float, alpha: float) -> None:
    old = Maker(LLAMA, tmp_path / "old").adapter("a", ("q_proj",), lora_alpha=alpha, dtype=np.float16)
    file = old / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in (name for name in tensors if "lora_B" in name):
        tensors[name] = (np.sign(tensors[name]) * factor).astype(np.float16)
    save_file(tensors, file)
    before = snapshot(tmp_path)
    done = fix([old], tmp_path / "new", "--form", "portable", "--base", str(LLAMA))
    assert done.returncode == 2 and "of its largest row, and rounding explains 2.0e-03" in done.stderr
    assert snapshot(tmp_path) == before


def test_one_refusal_stops_all(tmp_path: Path) -> None:
    make = Maker(LLAMA, tmp_path / "old")
    good, bad = make.adapter("a", ("q_proj",)), make.adapter("b", ("q_proj",), use_dora=True)
    before = snapshot(tmp_path)
    for where in (["--inplace"], ["--output", str(tmp_path / "new")], []):
        done = command("fix", "--form", "portable", "--base", str(LLAMA), *where, str(good), str(bad))
        assert (done.returncode, done.stdout) == (2, "")
        assert "refused the portable form of" in done.stderr and "b is DoRA" in done.stderr
        assert done.stderr.endswith("nothing was written\n")
    done = command("fix", "--form", "portable", "--base", str(LLAMA), "--format", "json", str(good), str(bad))
    found = json.loads(done.stdout)
    assert [item["form"] for item in found["refusals"]] == ["portable"] and found["plans"] == []
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("form", ["union", "lowrank", "portable"])
def test_a_form_is_reached_in_one_step(form: str, tmp_path: Path) -> None:
    """Done again, there is nothing left to do."""
    make = Maker(LLAMA, tmp_path / "old")
    saved = {} if form == "portable" else {"lm_head": ["lm_head.weight"]}
    members = [make.adapter("a", ("q_proj", "v_proj"), saved), make.adapter("b", ("v_proj",), use_rslora=True, r=2)]
    options = ["--form", form, "--base", str(LLAMA)]
    assert command("fix", *options, "--inplace", *map(str, members)).returncode == 0
    done = command("fix", *options, *map(str, members))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_the_checks_find_nothing_in_any_operation_that_lowrank_is_for(tmp_path: Path) -> None:
    base = str(BASES["bert"][1])
    fix(seed(tmp_path), tmp_path, "--form", "lowrank", "--base", base)
    done = command("check", "--format", "json", "--base", base, *(str(tmp_path / name) for name in "abcd"))
    found = json.loads(done.stdout)["sets"][0]
    assert {verdict["outcome"] for verdict in found["verdicts"].values()} == {"loads"}
    for operation in ("hotswap", "merge", "mixed_batch", "native"):
        assert {verdict["outcome"] for verdict in found["operations"][operation].values()} == {"loads"}, operation


def reshaped(kind: str, root: Path) -> Path:
    """The Llama base in other files."""
    weights, base = load_file(LLAMA / "model.safetensors"), root / kind
    base.mkdir()
    shutil.copy(LLAMA / "config.json", base)
    if kind == "torch":
        torch = pytest.importorskip("torch")
        tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        torch.save(tensors, base / "pytorch_model.bin")
        return base
    names, index = sorted(weights), {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        save_file({name: weights[name] for name in names[number::3]}, base / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(names[number::3], file))
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return base


@pytest.mark.parametrize("kind", ["shards", "torch"])
def test_the_base_may_be_sharded_or_a_torch_file(kind: str, tmp_path: Path) -> None:
    old = Maker(LLAMA, tmp_path / "old").adapter("a", ("q_proj",), {"lm_head": ["lm_head.weight"]})
    for name, base in (("one", LLAMA), ("other", reshaped(kind, tmp_path))):
        done = fix([old], tmp_path / name, "--form", "lowrank", "--base", str(base))
        assert done.returncode in (0, 1), done.stderr  # AL111 asks for a base with a name
    one, other = snapshot(tmp_path / "one"), snapshot(tmp_path / "other")
    assert one == other and "a/adapter_model.safetensors" in one


def test_the_plan_shows_what_is_computed(adapter: Path) -> None:
    done = command("fix", "--form", "portable", "--base", str(LLAMA), str(adapter))
    assert done.returncode == 1
    assert "@@ compute 4 tensors, 1,280 bytes @@" in done.stdout and '+    "lora_alpha"' not in done.stdout
    assert '-  "lora_alpha": 3,' in done.stdout and '+  "lora_alpha": 5,' in done.stdout


def test_an_adapter_of_many_blocks_takes_little_memory(tmp_path: Path) -> None:
    """Neither planning, writing nor proving takes the memory of a whole tensor (B: 64 MB as stored)."""
    old = tmp_path / "a"
    old.mkdir()
    random = np.random.default_rng(0)
    stem = f"{PREFIX}model.layers.0.mlp.up_proj"
    tensors = {f"{stem}.lora_A.weight": random.standard_normal((16, 64), dtype=np.float32)}
    tensors[f"{stem}.lora_B.weight"] = random.standard_normal((1 << 20, 16), dtype=np.float32)
    save_file(tensors, old / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 3, "target_modules": ["up_proj"]}
    (old / "adapter_config.json").write_text(json.dumps(config))
    code = (
        "import sys; from adapterlint.cli.app import main\n"
        "try: main(['fix', '--form', 'portable', '--inplace', sys.argv[1]])\n"
        "finally: print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(old)], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stderr.split()[-2]) < 200_000, done.stderr  # kilobytes
