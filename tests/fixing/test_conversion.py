"""Weights in other containers: what torch and the old safetensors files hold is what the new file holds, to the bit."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from adapterlint.cli import main
from adapterlint.findings import CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE, ConvertWeights, RemoveFile
from adapterlint.fixing import conversion, strided
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import PlanError, ProofError
from adapterlint.fixing.strided import Strided, differs, gather

sys.path.insert(0, str(Path(__file__).parents[1] / "reading"))
import bin_samples as samples

NAME = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
CONVERT = (ConvertWeights((PICKLE_FILE,)),)


def pair(rank: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    a = torch.randn(rank, 16, generator=generator).to(dtype)
    return {f"{NAME}.lora_A.weight": a, f"{NAME}.lora_B.weight": torch.randn(16, rank, generator=generator).to(dtype)}


def adapter(path: Path, **config: Any) -> Path:
    path.mkdir(parents=True)
    (path / CONFIG_FILE).write_text(json.dumps({**CONFIG, **config}, indent=2))
    return path


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(main, [str(item) for item in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        same = found[name].contiguous().flatten().view(torch.uint8), tensor.contiguous().flatten().view(torch.uint8)
        assert torch.equal(*same), name


# -- views -------------------------------------------------------------------------------------------------------


def views() -> dict[str, torch.Tensor]:
    whole = torch.arange(4096, dtype=torch.float32).reshape(64, 64) / 7
    shared = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    return {
        "plain": whole,
        "transposed": whole.T,
        "slice": whole[3:9, 5:50:3],
        "expanded": torch.tensor([1.5, -2.0]).unsqueeze(1).expand(2, 5),
        "expanded one": torch.tensor(3.0).expand(3, 2),
        "offset": whole[17],
        "permuted": torch.arange(24, dtype=torch.int64).reshape(2, 3, 4).permute(2, 0, 1),
        "shared": shared,
        "shared again": shared,
        "shared part": shared[2:4],
        "scalar": torch.tensor(0.25, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "empty turned": torch.zeros(4, 0).T,
        "bool": torch.tensor([True, False, True])[::2],
        "eighth": torch.tensor([[1, 2], [3, 4]], dtype=torch.float8_e4m3fn).T,
        "complex": torch.view_as_complex(torch.arange(12.0).reshape(3, 2, 2)).T,
        "parameter": torch.nn.Parameter(whole[:2].T),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "many dimensions": torch.arange(4.0).reshape([1] * 40 + [2, 2]).transpose(40, 41),
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_every_view_as_torch_sees_it(legacy: bool, tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    tensors = views()
    if legacy:  # torch itself cannot load this one in that format
        del tensors["eighth"]
    torch.save(tensors, path / PICKLE_FILE, _use_new_zipfile_serialization=not legacy)
    wanted = torch.load(path / PICKLE_FILE, weights_only=True)
    proof = apply_all([AdapterEdits(str(path), CONVERT)])[0]
    assert_equal(load_file(path / SAFETENSORS_FILE), {name: each.detach() for name, each in wanted.items()})
    assert proof.converted == ((PICKLE_FILE, SAFETENSORS_FILE),)
    assert proof.untouched == len(tensors)
    assert sorted(os.listdir(path)) == [CONFIG_FILE, SAFETENSORS_FILE]


def test_elements_are_gathered_in_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(strided, "BLOCK_ELEMENTS", 7)
    file = tmp_path / "x"
    whole = torch.arange(2 * 3 * 5 * 4, dtype=torch.int32)
    file.write_bytes(b"head" + whole.numpy().tobytes())
    turned = whole.reshape(2, 3, 5, 4).permute(3, 1, 0, 2)
    view = Strided(str(file), 4, 4, tuple(turned.shape), tuple(turned.stride()))
    blocks = list(gather(view))
    assert len(blocks) > 10
    assert b"".join(blocks) == turned.contiguous().numpy().tobytes()
    (tmp_path / "y").write_bytes(b"".join(blocks))
    assert not differs(view, str(tmp_path / "y"), 0)
    (tmp_path / "y").write_bytes(b"".join(blocks)[:-1] + b"\1")
    assert differs(view, str(tmp_path / "y"), 0)


def test_a_proof_that_fails_leaves_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = adapter(tmp_path / "a")
    torch.save({"t": torch.arange(6.0).reshape(2, 3).T}, path / PICKLE_FILE)
    monkeypatch.setattr("adapterlint.fixing.rewrite.gather", lambda view: [bytes(24)])
    with pytest.raises(ProofError, match="elements of tensor 't'"):
        apply_all([AdapterEdits(str(path), CONVERT)])
    assert sorted(os.listdir(path)) == [CONFIG_FILE, PICKLE_FILE]


# -- what is refused ---------------------------------------------------------------------------------------------


def _deflated(path: Path) -> None:
    path.write_bytes(samples.archive(storages={"0": samples.EIGHT_FLOATS}, deflate=["data/0"]))


def _big_endian(path: Path) -> None:
    path.write_bytes(samples.archive(storages={"0": samples.EIGHT_FLOATS}, extra={"byteorder": b"big"}))


def _saved(value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


def _bomb() -> dict[str, torch.Tensor]:
    return {"t": torch.zeros(1).expand(1 << 20, 1 << 12)}


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "deflated": (_deflated, "is compressed"),
    "big-endian": (_big_endian, "big-endian"),
    "negated": (_saved({"t": torch.tensor([1j]).conj().imag}), "negated"),
    "complex32": (_saved({"t": torch.zeros(2, dtype=torch.complex32)}), "COMPLEX32"),
    "expanded beyond measure": (_saved(_bomb()), "views of shared bytes"),
    "spread thin": (_saved({"t": torch.zeros(1 << 16)[:: 1 << 12]}), "is spread over"),
    "surrogate": (_saved({"\ud800": torch.zeros(2)}), "a name that safetensors cannot hold"),
    "metadata": (_saved({"__metadata__": torch.zeros(2)}), "a name that safetensors cannot hold"),
    "meta": (_saved({"t": torch.zeros(2, device="meta")}), "without data"),
    "no tensors": (_saved({"a": 1}), "no tensors"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_moved_exactly_is_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, reason = REFUSED[what]
    monkeypatch.setattr(conversion, "SPARE_BYTES", 4096)
    path = adapter(tmp_path / "a")
    make(path / PICKLE_FILE)
    before = (path / PICKLE_FILE).read_bytes()
    with pytest.raises(PlanError, match=reason):
        apply_all([AdapterEdits(str(path), CONVERT)])
    result = run("fix", path, "--select", "AL007", "--inplace", "--unsafe-fixes")
    assert "Traceback" not in result.output
    assert (path / PICKLE_FILE).read_bytes() == before
    assert sorted(os.listdir(path)) == [CONFIG_FILE, PICKLE_FILE]


# -- the command -------------------------------------------------------------------------------------------------


def test_a_note_is_fixed_when_asked_for(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    torch.save(pair(), path / PICKLE_FILE)
    assert run("fix", path).exit_code == 0
    shown = run("fix", path, "--select", "AL007")
    assert shown.exit_code == 1
    assert "convert 2 tensors of adapter_model.bin" in shown.output
    assert (path / PICKLE_FILE).exists()
    done = run("fix", path, "--select", "pickle-weights", "--inplace")
    assert done.exit_code == 0, done.output
    assert f"{PICKLE_FILE} converted to {SAFETENSORS_FILE}" in done.output
    assert_equal(load_file(path / SAFETENSORS_FILE), pair())
    assert not (path / PICKLE_FILE).exists()


def test_a_fix_of_tensors_converts_first(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    torch.save({name.replace(".weight", ".default.weight"): each for name, each in pair().items()}, path / PICKLE_FILE)
    done = run("fix", path, "--inplace")
    assert done.exit_code == 0, done.output
    assert_equal(load_file(path / SAFETENSORS_FILE), pair())


def test_a_copy_elsewhere_is_complete(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    torch.save({name.replace(".weight", ".default.weight"): each.T.contiguous().T for name, each in pair().items()},
               path / PICKLE_FILE)  # fmt: skip
    (path / "notes.txt").write_text("kept")
    done = run("fix", path, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert_equal(load_file(tmp_path / "out" / "a" / SAFETENSORS_FILE), pair())
    assert sorted(os.listdir(tmp_path / "out" / "a")) == [CONFIG_FILE, SAFETENSORS_FILE, "notes.txt"]
    assert sorted(os.listdir(path)) == [CONFIG_FILE, PICKLE_FILE, "notes.txt"]


def test_what_is_no_tensor_is_dropped_only_if_allowed(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    renamed = {name.replace(".weight", ".default.weight"): each for name, each in pair().items()}
    torch.save({**renamed, "step": 7}, path / PICKLE_FILE)
    refused = run("fix", path, "--inplace")
    assert refused.exit_code == 1
    assert "`step` is no tensor" in refused.output
    assert (path / PICKLE_FILE).exists()
    done = run("fix", path, "--inplace", "--unsafe-fixes")
    assert done.exit_code == 0, done.output
    assert_equal(load_file(path / SAFETENSORS_FILE), pair())


@pytest.mark.parametrize(("beside", "options"), [({}, ()), ({"epoch": 3}, ("--unsafe-fixes",))])
def test_a_nested_dictionary_is_unwrapped(beside: dict[str, Any], options: tuple[str, ...], tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    torch.save({"state_dict": pair(), **beside}, path / PICKLE_FILE)
    if options:
        assert run("fix", path, "--inplace").exit_code == 1
        assert (path / PICKLE_FILE).exists()
    done = run("fix", path, "--inplace", *options)
    assert done.exit_code == 0, done.output
    assert_equal(load_file(path / SAFETENSORS_FILE), pair())


# -- objects beside the tensors ------------------------------------------------------------------------------------


class Shouts:
    """Unpickled, it makes a file."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.where),))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("what", ["arguments", "command"])
def test_objects_are_dropped_and_never_built(what: str, legacy: bool, tmp_path: Path) -> None:
    path, canary = adapter(tmp_path / "a"), tmp_path / "canary"
    beside = argparse.Namespace(r=4, names=["q_proj"]) if what == "arguments" else Shouts(canary)
    content = {**pair(), "args": beside}
    torch.save(content, path / PICKLE_FILE, _use_new_zipfile_serialization=not legacy)
    assert run("fix", path, "--inplace").exit_code == 1
    assert (path / PICKLE_FILE).exists()
    done = run("fix", path, "--inplace", "--unsafe-fixes")
    assert done.exit_code == 0, done.output
    assert_equal(load_file(path / SAFETENSORS_FILE), pair())
    assert not canary.exists()


def _setitem(target: bytes) -> bytes:
    """A pickle that calls operator.setitem on what it describes, once that is complete."""
    call = b"c_operator\nsetitem\n(" + target + samples.text("x") + samples.text("y") + b"tR"
    return b"\x80\x02}q\x00(" + samples.text(samples.NAME) + samples.ONE + b"q\x01" + samples.text("z") + call + b"u."


def test_tensors_that_code_could_change_are_refused(tmp_path: Path) -> None:
    for number, memo in enumerate((b"h\x00", b"h\x01")):  # the dictionary, a tensor
        path = adapter(tmp_path / str(number))
        (path / PICKLE_FILE).write_bytes(samples.archive(_setitem(memo), {"0": samples.EIGHT_FLOATS}))
        done = run("fix", path, "--inplace", "--unsafe-fixes")
        assert done.exit_code == 1
        assert "are given tensors" in done.output
        assert sorted(os.listdir(path)) == [CONFIG_FILE, PICKLE_FILE]


# -- two files, several files --------------------------------------------------------------------------------------


def test_an_equal_twin_is_removed(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    torch.save(pair(), path / PICKLE_FILE)
    save_file(pair(), path / SAFETENSORS_FILE, metadata={"format": "pt"})
    before = (path / SAFETENSORS_FILE).read_bytes()
    assert run("fix", path).exit_code == 0
    assert "whose tensors are all in" in run("fix", path, "--select", "AL010").output
    done = run("fix", path, "--select", "AL010", "--inplace")
    assert done.exit_code == 0, done.output
    assert sorted(os.listdir(path)) == [CONFIG_FILE, SAFETENSORS_FILE]
    assert (path / SAFETENSORS_FILE).read_bytes() == before


def test_another_twin_is_never_removed(tmp_path: Path) -> None:
    """One bit less, at the end of the last tensor: found by the rule, and by the proof if no rule were asked."""
    path = adapter(tmp_path / "a")
    other = {name: each.clone() for name, each in pair().items()}
    other[f"{NAME}.lora_B.weight"][-1, -1] = torch.nextafter(other[f"{NAME}.lora_B.weight"][-1, -1], torch.tensor(9.0))
    torch.save(other, path / PICKLE_FILE)
    save_file(pair(), path / SAFETENSORS_FILE, metadata={"format": "pt"})
    assert run("fix", path, "--select", "AL010", "--inplace", "--unsafe-fixes").exit_code == 1
    with pytest.raises(ProofError, match="does not have the bytes"):
        apply_all([AdapterEdits(str(path), (RemoveFile(PICKLE_FILE, SAFETENSORS_FILE),))])
    torch.save(pair(8), path / PICKLE_FILE)
    with pytest.raises(ProofError, match="does not have the tensors"):
        apply_all([AdapterEdits(str(path), (RemoveFile(PICKLE_FILE, SAFETENSORS_FILE),))])
    assert (path / PICKLE_FILE).exists()


def shards(path: Path, count: int = 3) -> dict[str, torch.Tensor]:
    tensors = {f"base_model.model.model.layers.{i}.self_attn.q_proj.{which}": torch.full((4, 4), i + 0.5)
               for i in range(count) for which in ("lora_A.weight", "lora_B.weight")}  # fmt: skip
    names, index = list(tensors), {}
    for i in range(count):
        file = f"adapter_model-{i + 1:05}-of-{count:05}.safetensors"
        part = {name: tensors[name] for name in names[2 * i : 2 * i + 2]}
        save_file(part, path / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (path / "adapter_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return tensors


def test_shards_become_one_file(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    tensors = shards(path)
    done = run("fix", path, "--inplace")
    assert done.exit_code == 0, done.output
    assert_equal(load_file(path / SAFETENSORS_FILE), tensors)
    assert sorted(os.listdir(path)) == [CONFIG_FILE, SAFETENSORS_FILE]


def test_torch_shards_become_one_file(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    for number, (name, tensor) in enumerate(pair().items(), 1):
        torch.save({name: tensor}, path / f"pytorch_model-{number:05}-of-00002.bin")
    done = run("fix", path, "--inplace")
    assert done.exit_code == 0, done.output
    assert_equal(load_file(path / SAFETENSORS_FILE), pair())


@pytest.mark.parametrize("defect", ["one missing", "one twice"])
def test_shards_that_do_not_make_one_are_left(defect: str, tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    tensors = shards(path)
    last = path / "adapter_model-00003-of-00003.safetensors"
    if defect == "one missing":
        last.unlink()
    else:
        save_file(dict(list(tensors.items())[:3]), last)
    before = sorted(os.listdir(path))
    assert run("fix", path, "--inplace", "--unsafe-fixes").exit_code == 1
    assert sorted(os.listdir(path)) == before


def test_a_conversion_overwrites_nothing(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    torch.save(pair(), path / PICKLE_FILE)
    (path / SAFETENSORS_FILE).write_bytes(b"something else")
    with pytest.raises(PlanError, match="it exists"):
        apply_all([AdapterEdits(str(path), CONVERT)])
    for name in ("../x.bin", "/etc/passwd", "a/b/c.bin", "a/..", ".."):
        with pytest.raises(PlanError, match="is not the name of a file"):
            apply_all([AdapterEdits(str(path), (ConvertWeights((name,)),))])
        with pytest.raises(PlanError, match="is not the name of a file"):
            apply_all([AdapterEdits(str(path), (RemoveFile(name, SAFETENSORS_FILE),))])


def test_a_pickle_that_grows_meanwhile_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapterlint.fixing.errors import WriteError

    path = adapter(tmp_path / "a")
    torch.save(pair(), path / PICKLE_FILE)

    def touch(_: Any) -> list[str]:
        with (path / PICKLE_FILE).open("ab") as file:
            file.write(b"x")
        return []

    with pytest.raises(WriteError, match="meanwhile"):
        apply_all([AdapterEdits(str(path), CONVERT)], check=touch)
    assert (path / PICKLE_FILE).exists() and not (path / SAFETENSORS_FILE).exists()


def test_pickles_of_other_protocols_are_left(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    torch.save(pair(), path / PICKLE_FILE, pickle_protocol=4)
    assert run("fix", path, "--inplace", "--unsafe-fixes").exit_code == 1
    assert (path / PICKLE_FILE).exists()
