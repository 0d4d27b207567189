"""The base model's files, against transformers where it has a say."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import bin_samples as samples
import pytest

from adapterlint.reading.base import BaseFiles, read_base
from adapterlint.reading.basepath import BaseFinder

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

CONFIG = {"model_type": "bert", "hidden_size": 8}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def state() -> dict[str, Any]:
    return {
        "a.weight": torch.arange(12.0).reshape(3, 4),
        "b.bias": torch.arange(4, dtype=torch.bfloat16),
        "c.index": torch.arange(3),
    }


def make(path: Path, config: Any = CONFIG) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def single(path: Path) -> Path:
    safetensors.save_file(state(), make(path) / "model.safetensors", {"format": "pt"})
    return path


def sharded(path: Path, suffix: str = ".safetensors") -> Path:
    make(path)
    weight_map = {}
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    for number, names in enumerate((["a.weight", "c.index"], ["b.bias"]), 1):
        name = f"{stem}-0000{number}-of-00002{suffix}"
        part = {key: state()[key] for key in names}
        if suffix == ".safetensors":
            safetensors.save_file(part, path / name)
        else:
            torch.save(part, path / name)
        weight_map |= dict.fromkeys(names, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (path / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return path


def pickled(path: Path) -> Path:
    torch.save(state(), make(path) / "pytorch_model.bin")
    return path


def legacy(path: Path) -> Path:
    torch.save(state(), make(path) / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return path


def kinds(base: BaseFiles) -> list[str]:
    return [problem.kind for problem in base.problems]


class TestRead:
    @pytest.mark.parametrize("build", [single, sharded, pickled, legacy, lambda path: sharded(path, ".bin")])
    def test_every_layout(self, tmp_path: Path, build: Any) -> None:
        """Names, shapes, and the very bytes."""
        base = read_base(str(build(tmp_path / "base")))
        assert (base.problems, base.config) == ((), CONFIG)
        assert set(base.tensors) == set(state())
        dtypes = {"a.weight": "F32", "b.bias": "BF16", "c.index": "I64"}
        for name, value in state().items():
            item = base.tensors[name]
            assert (item.name, item.dtype, item.shape) == (name, dtypes[name], tuple(value.shape))
            data = Path(base.path, item.file).read_bytes()[item.offset : item.offset + item.nbytes]
            assert torch.frombuffer(bytearray(data), dtype=value.dtype).reshape(value.shape).equal(value)

    def test_safetensors_come_first(self, tmp_path: Path) -> None:
        """transformers looks for the files in this order."""
        path = single(pickled(sharded(sharded(tmp_path / "base"), ".bin")))
        for kept, removed in (
            ("model.safetensors", "model.safetensors"),
            ("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
            ("pytorch_model.bin", "pytorch_model.bin"),
            ("pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"),
        ):
            assert read_base(str(path)).tensors["a.weight"].file == kept
            (path / removed).unlink()
        assert kinds(read_base(str(path))) == ["no-weights"]

    def test_a_transposed_tensor_has_no_place(self, tmp_path: Path) -> None:
        torch.save({"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2)}, make(tmp_path) / "pytorch_model.bin")
        base = read_base(str(tmp_path))
        assert base.tensors["a"][1:] == ("F32", (3, 2), "pytorch_model.bin", -1, 24)
        assert base.tensors["b"].offset > 0

    def test_transformers_loads_what_we_read(self, tmp_path: Path) -> None:
        """A sharded checkpoint as transformers writes it."""
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=50
        )
        model = transformers.BertModel(config)
        model.save_pretrained(tmp_path, max_shard_size="2KB")
        base = read_base(str(tmp_path))
        assert not base.problems and base.config["model_type"] == "bert"
        assert len({item.file for item in base.tensors.values()}) > 1
        expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        assert {name: item.shape for name, item in base.tensors.items()} == expected


class TestProblems:
    def test_no_directory(self, tmp_path: Path) -> None:
        base = read_base(str(tmp_path / "none"))
        assert (base.config, base.tensors, kinds(base)) == ({}, {}, ["no-config", "no-weights"])

    def test_config_only(self, tmp_path: Path) -> None:
        base = read_base(str(make(tmp_path)))
        assert (base.config, kinds(base)) == (CONFIG, ["no-weights"])

    @pytest.mark.parametrize(
        ("raw", "kind"),
        [
            (b"", "bad-config"),
            (b"{", "bad-config"),
            (b"[]", "bad-config"),
            (b"\xff\xfe", "bad-config"),
            (b"[" * 100_000, "bad-config"),
            (POINTER, "lfs-pointer"),
        ],
    )
    def test_bad_config(self, tmp_path: Path, raw: bytes, kind: str) -> None:
        (single(tmp_path) / "config.json").write_bytes(raw)
        base = read_base(str(tmp_path))
        assert (base.config, kinds(base), len(base.tensors)) == ({}, [kind], 3)
        assert "config.json" in base.problems[0].message

    def test_a_byte_order_mark_is_read_over(self, tmp_path: Path) -> None:
        (single(tmp_path) / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(CONFIG).encode())
        assert read_base(str(tmp_path)).config == CONFIG

    def test_missing_shard(self, tmp_path: Path) -> None:
        (sharded(tmp_path) / "model-00002-of-00002.safetensors").unlink()
        base = read_base(str(tmp_path))
        assert kinds(base) == ["missing-shard"] and "model-00002-of-00002.safetensors" in base.problems[0].message
        assert set(base.tensors) == {"a.weight", "c.index"}

    def test_shard_is_a_pointer(self, tmp_path: Path) -> None:
        (sharded(tmp_path) / "model-00001-of-00002.safetensors").write_bytes(POINTER)
        base = read_base(str(tmp_path))
        assert kinds(base) == ["lfs-pointer"] and base.problems[0].message.startswith(
            "model-00001-of-00002.safetensors: "
        )
        assert set(base.tensors) == {"b.bias"}

    @pytest.mark.parametrize("cut", [0, 4, 30, 300])
    def test_broken_header(self, tmp_path: Path, cut: int) -> None:
        path = single(tmp_path) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:cut])
        base = read_base(str(tmp_path))
        assert len(base.problems) == 1 and base.problems[0].fatal and not base.tensors
        with pytest.raises(Exception, match=r"header|covered"):
            safetensors.load_file(path)

    def test_unsafe_pickle(self, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        (make(tmp_path) / "pytorch_model.bin").write_bytes(samples.attacks(str(canary))["zip_os_system"])
        base = read_base(str(tmp_path))
        assert kinds(base) == ["unsafe-global"] and not canary.exists()

    def test_pickle_too_large(self, tmp_path: Path) -> None:
        (make(tmp_path) / "pytorch_model.bin").write_bytes(samples.bombs()["deflated_60_mb"]())
        assert kinds(read_base(str(tmp_path))) == ["not-followed"]

    @pytest.mark.parametrize(
        "index",
        [
            b"{}",
            b"[]",
            b"{",
            b'{"weight_map": []}',
            b'{"weight_map": {"a": 1}}',
            b'{"weight_map": {"a": "../secret.safetensors"}}',
            b'{"weight_map": {"a": "/etc/passwd"}}',
            b'{"weight_map": {"a": ".."}}',
            b'{"weight_map": {"a": ""}}',
            POINTER,
        ],
    )
    def test_bad_index(self, tmp_path: Path, index: bytes) -> None:
        (make(tmp_path) / "model.safetensors.index.json").write_bytes(index)
        base = read_base(str(tmp_path))
        assert kinds(base) == ["lfs-pointer" if index == POINTER else "bad-index"] and not base.tensors
        assert "model.safetensors.index.json" in base.problems[0].message

    def test_a_bad_config_does_not_hide_a_bad_index(self, tmp_path: Path) -> None:
        make(tmp_path, None)
        (tmp_path / "model.safetensors.index.json").write_bytes(b"{}")
        assert kinds(read_base(str(tmp_path))) == ["no-config", "bad-index"]

    def test_index_promises_more(self, tmp_path: Path) -> None:
        path = sharded(tmp_path) / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        index["weight_map"] |= {f"x{number}": "model-00001-of-00002.safetensors" for number in range(5)}
        path.write_text(json.dumps(index))
        base = read_base(str(tmp_path))
        assert kinds(base) == ["missing-tensor"] and "`x0`, `x1`, `x2` and 2 more" in base.problems[0].message

    def test_one_tensor_in_two_shards(self, tmp_path: Path) -> None:
        safetensors.save_file({"b.bias": torch.ones(1), "c.index": torch.ones(1)}, sharded(tmp_path) / "x.safetensors")
        os.replace(tmp_path / "x.safetensors", tmp_path / "model-00002-of-00002.safetensors")
        base = read_base(str(tmp_path))
        assert [(problem.kind, problem.fatal, problem.tensor) for problem in base.problems] == [
            ("duplicate-tensor", False, "c.index")
        ]

    @pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
    def test_a_link_to_nowhere_is_a_missing_file(self, tmp_path: Path) -> None:
        os.symlink(tmp_path / "blob", make(tmp_path) / "model.safetensors")
        assert kinds(read_base(str(tmp_path))) == ["missing-shard"]

    def test_noise(self, tmp_path: Path) -> None:
        """Whatever stands in the files: no exception."""
        contents = [b"", b"\0", b"{}", b"[1]", b"\xff" * 50, POINTER, b'{"weight_map": {"a": "config.json"}}']
        contents += [struct.pack("<Q", 2) + b"{}", b"PK\x03\x04", b"\x80\x02N."]
        names = ["config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
        for first in contents:
            for second in contents:
                for name in names[1:]:
                    for old in names:
                        (tmp_path / old).unlink(missing_ok=True)
                    (tmp_path / "config.json").write_bytes(first)
                    (tmp_path / name).write_bytes(second)
                    read_base(str(tmp_path))


def cached(root: Path, repository: str, revisions: dict[str, bool], main: str | None) -> Path:
    """A repository in a fake cache; ``revisions`` says which snapshots hold a config."""
    folder = root / ("models--" + repository.replace("/", "--"))
    for revision, has_config in revisions.items():
        make(folder / "snapshots" / revision, CONFIG if has_config else None)
    if main is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(main)
    return folder


class TestFind:
    @pytest.fixture(autouse=True)
    def no_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")

    def test_absolute(self, tmp_path: Path) -> None:
        base = make(tmp_path / "base")
        assert BaseFinder().find(str(base), "adapter") == str(base)

    def test_from_the_current_directory(self, tmp_path: Path) -> None:
        make(tmp_path / "work" / "base")
        assert BaseFinder().find("base", str(tmp_path)) == "base"
        assert BaseFinder().find("./base", str(tmp_path)) == "./base"

    def test_from_the_adapter(self, tmp_path: Path) -> None:
        make(tmp_path / "models" / "base")
        (tmp_path / "models" / "adapter").mkdir()
        found = BaseFinder().find("../base", str(tmp_path / "models" / "adapter"))
        assert found is not None and Path(found).resolve() == (tmp_path / "models" / "base").resolve()

    def test_a_directory_without_config_is_none(self, tmp_path: Path) -> None:
        make(tmp_path / "base", None)
        assert BaseFinder().find(str(tmp_path / "base"), ".") is None

    @pytest.mark.parametrize(
        "reference", ["", "a/b/c", "../x", "x\0y", "a--b", "..", ".", "C:\\models\\x", "/nowhere", "a b"]
    )
    def test_no_repository(self, tmp_path: Path, reference: str) -> None:
        assert BaseFinder().find(reference, str(tmp_path)) is None

    @pytest.mark.parametrize(
        ("variables", "place"),
        [
            ({"HF_HUB_CACHE": "{root}/hub"}, "hub"),
            ({"HUGGINGFACE_HUB_CACHE": "{root}/hub"}, "hub"),
            ({"HF_HOME": "{root}/hf"}, "hf/hub"),
            ({"HF_HOME": "{root}/no", "HF_HUB_CACHE": "{root}/hub"}, "hub"),
            ({"XDG_CACHE_HOME": "{root}/xdg"}, "xdg/huggingface/hub"),
            ({"HF_HUB_CACHE": "~/hub"}, "home/hub"),
            ({}, "home/.cache/huggingface/hub"),
        ],
    )
    def test_cache_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(root=tmp_path))
        folder = cached(tmp_path / place, "org/base-1.5", {"abc": True, "def": True}, "abc")
        assert BaseFinder().find("org/base-1.5", ".") == str(folder / "snapshots" / "abc")

    @pytest.mark.parametrize(
        ("revisions", "main", "expected"),
        [
            ({"abc": True, "def": True}, "def\n", "def"),
            ({"abc": True}, None, "abc"),
            ({"abc": True, "def": True}, None, None),
            ({"abc": False}, "abc", None),
            ({"abc": True}, "gone", None),
            ({"abc": True}, "../../../x", None),
            ({"abc": True}, "", None),
            ({}, None, None),
        ],
    )
    def test_snapshot(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        revisions: dict[str, bool],
        main: str | None,
        expected: str | None,
    ) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        folder = cached(tmp_path, "gpt2", revisions, main)
        found = BaseFinder().find("gpt2", ".")
        assert found == (str(folder / "snapshots" / expected) if expected else None)

    def test_as_huggingface_hub(self, tmp_path: Path) -> None:
        """The library finds the same snapshot in the same tree."""
        hub = pytest.importorskip("huggingface_hub")
        revision = "0" * 40
        cached(tmp_path / "home/.cache/huggingface/hub", "org/base", {revision: True}, revision)
        cache = str(tmp_path / "home/.cache/huggingface/hub")
        found = hub.snapshot_download("org/base", cache_dir=cache, local_files_only=True)
        assert BaseFinder().find("org/base", ".") == found

    def test_a_local_directory_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        cached(tmp_path, "org/base", {"abc": True}, "abc")
        make(tmp_path / "work" / "org" / "base")
        assert BaseFinder().find("org/base", str(tmp_path)) == "org/base"
