"""A proof fails on every way in which a new file can be wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixing_util import CONFIG, Arrays, arrays, make_adapter, make_base
from safetensors.numpy import load_file, save_file

from adapterlint.findings import (
    CONFIG_FILE,
    SAFETENSORS_FILE,
    CopyTensor,
    DropTensor,
    RemoveConfig,
    RenameTensor,
    SetConfig,
    ZeroTensor,
)
from adapterlint.fixing import apply, build
from adapterlint.fixing import prove as prove_module
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import ProofError
from adapterlint.fixing.prove import Proof, prove
from adapterlint.fixing.resolve import Change, resolve

OLD = arrays("a", "b", "c", "d")
HEAD = np.arange(35, dtype=np.float32).reshape(5, 7)
NEW = {"x": OLD["a"], "b": OLD["b"], "c": OLD["c"], "h": HEAD, "z": np.zeros((2, 3), np.float16)}
EDITS = (
    RenameTensor("a", "x"), DropTensor("d"), CopyTensor("h", "head"), ZeroTensor("z", "F16", (2, 3)),
    SetConfig("/r", 4), RemoveConfig("/lora_alpha"),
)  # fmt: skip


@pytest.fixture
def change(tmp_path: Path) -> Change:
    base = make_base(tmp_path / "base", {"head": HEAD})
    path = make_adapter(tmp_path / "adapter", OLD, notes="kept")
    return resolve(AdapterEdits(path, EDITS, base))


@pytest.fixture
def new(tmp_path: Path, change: Change) -> Path:
    """What should come of it, written by the library and by hand."""
    path = tmp_path / "new"
    path.mkdir()
    save_file(NEW, path / SAFETENSORS_FILE, metadata={"format": "pt"})
    (path / CONFIG_FILE).write_text(CONFIG.replace("8", "4").replace('  "lora_alpha": 16,\n', ""))
    return path


def test_a_right_file_is_proved_whoever_wrote_it(change: Change, new: Path) -> None:
    size = sum(array.nbytes for array in NEW.values()) + (new / CONFIG_FILE).stat().st_size
    assert prove(change, str(new)) == Proof(
        change.plan.path, untouched=2, renamed=1, dropped=1, copied=1, zeroed=1,
        config_changes=("set /r to 4", "remove /lora_alpha"), bytes_compared=size,
    )  # fmt: skip


def flipped(name: str) -> Callable[[Arrays], Arrays]:
    def change(tensors: Arrays) -> Arrays:
        array = tensors[name].copy()
        array.view(np.uint8)[-1, -1] ^= 1
        return {**tensors, name: array}

    return change


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (flipped("x"), "'x'"),
        (flipped("b"), "'b'"),
        (flipped("h"), "'h'"),
        (flipped("z"), "'z' should be zero"),
        (lambda t: {**t, "z": -t["z"]}, "'z' should be zero"),
        (lambda t: {**t, "b": t["c"], "c": t["b"]}, "'b'"),
        (lambda t: {**t, "b": t["b"].T.copy()}, "'b'"),
        (lambda t: {**t, "b": t["b"].view(np.int32)}, "'b'"),
        (lambda t: {k: v for k, v in t.items() if k != "b"}, "'b'"),
        (lambda t: {k: v for k, v in t.items() if k != "h"}, "'h'"),
        (lambda t: {k: v for k, v in t.items() if k != "z"}, "'z'"),
        (lambda t: {**t, "d": t["b"]}, "'d'"),
        (lambda t: {**{k: v for k, v in t.items() if k != "x"}, "a": t["x"]}, "'x'|'a'"),
        (lambda t: {**t, "z": np.zeros((3, 2), np.float16)}, "'z'"),
        (lambda t: {}, "tensor"),
    ],
)
def test_tensors_that_differ(change: Change, new: Path, harm: Callable[[Arrays], Arrays], words: str) -> None:
    save_file(harm(NEW), new / SAFETENSORS_FILE, metadata={"format": "pt"})
    with pytest.raises(ProofError, match=words):
        prove(change, str(new))


@pytest.mark.parametrize("shared", [prove_module.SHARED, 4])
def test_every_single_byte_counts(change: Change, new: Path, monkeypatch: pytest.MonkeyPatch, shared: int) -> None:
    """The whole data section is compared, whatever the tensors' order, by one thread or by two."""
    monkeypatch.setattr(prove_module, "SHARED", shared)
    file = new / SAFETENSORS_FILE
    good = file.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    for at in range(start, len(good)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        with pytest.raises(ProofError):
            prove(change, str(new))
    file.write_bytes(good)
    prove(change, str(new))


@pytest.mark.parametrize("metadata", [None, {}, {"format": "np"}, {"format": "pt", "by": "a linter"}])
def test_metadata_that_differ(change: Change, new: Path, metadata: dict[str, str] | None) -> None:
    save_file(NEW, new / SAFETENSORS_FILE, metadata=metadata)
    with pytest.raises(ProofError, match="metadata"):
        prove(change, str(new))


@pytest.mark.parametrize("harm", ["truncated", "trailing", "leading", "unknown-field", "absent", "directory"])
def test_weights_that_are_not_sound(change: Change, new: Path, harm: str) -> None:
    file = new / SAFETENSORS_FILE
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].rstrip()
    if harm == "truncated":
        file.write_bytes(data[:-1])
    elif harm == "trailing":
        file.write_bytes(data + b"\0")
    elif harm == "absent":
        file.unlink()
    elif harm == "directory":
        file.unlink()
        file.mkdir()
    else:
        text = b" " + text if harm == "leading" else text.replace(b'"dtype"', b'"note":1,"dtype"', 1)
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
        assert load_file(file).keys() == NEW.keys()
    with pytest.raises(ProofError, match="not sound"):
        prove(change, str(new))


def test_a_base_that_changed(change: Change, new: Path) -> None:
    assert change.plan.base is not None
    file = Path(change.plan.base.path, "model.safetensors")
    save_file({"head": HEAD + 1}, file, metadata={"format": "pt"})
    with pytest.raises(ProofError, match="'h'"):
        prove(change, str(new))
    file.unlink()
    with pytest.raises(ProofError, match="cannot be read"):
        prove(change, str(new))


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text.replace('"r": 4', '"r": 8'),
        lambda text: text.replace('"r": 4', '"r": 4.0'),
        lambda text: text.replace('"r": 4', '"r": true'),
        lambda text: text.replace('"r": 4,', ""),
        lambda text: text.replace('"r": 4,', '"r": 4, "r": 4,'),
        lambda text: text.replace('"r": 4,', '"r": 4, "lora_alpha": 16,'),
        lambda text: text.replace('"LORA"', '"IA3"'),
        lambda text: text.replace('["q_proj"]', "[]"),
        lambda text: text.replace('["q_proj"]', "{}"),
        lambda text: text[:-3],
        lambda text: "\ufeff" + text,
    ],
)
def test_configs_that_differ(change: Change, new: Path, harm: Callable[[str], str]) -> None:
    """Both a file that is not what was meant to be written, and one that is, but says something else than the edits."""
    file = new / CONFIG_FILE
    good = file.read_text()
    text = harm(good)
    assert text != good
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ProofError, match="does not hold what was written"):
        prove(change, str(new))
    assert change.config is not None
    object.__setattr__(change.config, "after", text.encode())
    if text.startswith("\ufeff"):
        return
    with pytest.raises(ProofError, match=r"differs from the old one in more|cannot be read again"):
        prove(change, str(new))


def test_an_edit_of_the_text_that_does_too_much_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(data: bytes, _: object) -> bytes:
        return json.dumps({**json.loads(data), "r": 4, "fan_in_fan_out": False}).encode()

    monkeypatch.setattr("adapterlint.fixing.resolve.apply_edits", careless)
    path = make_adapter(tmp_path / "a", arrays("a"))
    with pytest.raises(ProofError, match="in more, or less, than the edits"):
        apply_all([AdapterEdits(path, (SetConfig("/r", 4),))])
    assert Path(path, CONFIG_FILE).read_text() == CONFIG


@pytest.mark.parametrize("output", [False, True])
def test_a_writer_that_fails_silently_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: bool
) -> None:
    """One flipped bit on the way to the disk is found before the old file goes."""
    path = make_adapter(tmp_path / "a", arrays("a", "b", rows=600, columns=700))
    before = Path(path, SAFETENSORS_FILE).read_bytes()
    real = build.write_weights

    def flipping(new: object, target: str) -> None:
        real(new, target)  # type: ignore[arg-type]
        with open(target, "r+b") as file:
            file.seek(2_000_000)
            byte = file.read(1)[0]
            file.seek(2_000_000)
            file.write(bytes([byte ^ 1]))

    monkeypatch.setattr(build, "write_weights", flipping)
    with pytest.raises(ProofError, match="the bytes of tensor 'b'"):
        apply_all([AdapterEdits(path, (RenameTensor("a", "x"),))], output=str(tmp_path / "out") if output else None)
    assert Path(path, SAFETENSORS_FILE).read_bytes() == before
    assert sorted(os.listdir(path)) == [CONFIG_FILE, SAFETENSORS_FILE] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", ["changed", "shorter", "absent", "more"])
def test_copies_of_other_files_that_differ(change: Change, new: Path, harm: str) -> None:
    shutil.copy(Path(change.root, "notes.txt"), new)
    assert prove(change, str(new), whole=True).bytes_compared == prove(change, str(new)).bytes_compared + 4
    if harm == "absent":
        (new / "notes.txt").unlink()
    elif harm == "more":
        (new / "more.txt").write_text("x")
    else:
        (new / "notes.txt").write_text("kepT" if harm == "changed" else "kep")
    with pytest.raises(ProofError, match=r"its copy is not the same|does not have the same files"):
        prove(change, str(new), whole=True)


def test_the_proof_shares_no_code_with_the_writer() -> None:
    """It would believe what it should check."""
    source = Path(apply.__file__).with_name("prove.py").read_text()
    for name in ("lay_out", "NewWeights", "rewrite", "jsonedit", "apply_edits", ".after.tensors"):
        assert name not in source
