"""Adapters and bases on disk for the tests of fixing, and what is in them as the safetensors library sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from adapterlint.findings import CONFIG_FILE, SAFETENSORS_FILE

Arrays = dict[str, np.ndarray]

CONFIG = '{\n  "peft_type": "LORA",\n  "r": 8,\n  "lora_alpha": 16,\n  "target_modules": ["q_proj"]\n}\n'


def arrays(*names: str, rows: int = 4, columns: int = 6, seed: int = 0) -> Arrays:
    """Random float32 matrices."""
    random = np.random.default_rng(seed)
    return {name: random.standard_normal((rows, columns), dtype=np.float32) for name in names}


def make_adapter(path: Path, tensors: Mapping[str, np.ndarray], config: str = CONFIG, **files: str) -> str:
    """An adapter directory as the library writes it; ``files`` are others, by stem."""
    path.mkdir(parents=True)
    (path / CONFIG_FILE).write_text(config, encoding="utf-8", newline="")
    save_file(dict(tensors), path / SAFETENSORS_FILE, metadata={"format": "pt"})
    for stem, text in files.items():
        (path / f"{stem}.txt").write_text(text)
    return str(path)


def make_base(path: Path, tensors: Mapping[str, np.ndarray]) -> Any:
    """A base checkpoint of one file."""
    from adapterlint.reading.base import read_base

    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "llama"}')
    save_file(dict(tensors), path / "model.safetensors", metadata={"format": "pt"})
    return read_base(str(path))


def raw_file(entries: list[tuple[str, str, list[int], bytes]], *, metadata: object = ..., pad: int = 0) -> bytes:
    """A safetensors file with its tensors in this order, whatever the library would do."""
    header: dict[str, object] = {} if metadata is ... else {"__metadata__": metadata}
    at = 0
    for name, dtype, shape, data in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode() + b" " * pad
    return len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in entries)


def load(path: str | Path) -> Arrays:
    """The tensors of an adapter, read by the library."""
    return load_file(Path(path) / SAFETENSORS_FILE)


def metadata(path: str | Path) -> dict[str, str] | None:
    """The metadata, read by the library."""
    with safe_open(Path(path) / SAFETENSORS_FILE, "numpy") as file:
        found: dict[str, str] | None = file.metadata()
        return found


def header_of(file: str | Path) -> tuple[int, dict[str, Any]]:
    """Length of the header and its JSON."""
    data = Path(file).read_bytes()
    length = int.from_bytes(data[:8], "little")
    return length, json.loads(data[8 : 8 + length])


def assert_same(found: Arrays, wanted: Mapping[str, np.ndarray]) -> None:
    """Equal names, dtypes, shapes and bytes."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def snapshot(path: str | Path) -> dict[str, tuple[bytes | str, int]]:
    """Every entry below a directory: its bytes, or what it links to, and its mode."""
    found: dict[str, tuple[bytes | str, int]] = {}
    for directory, subdirectories, names in os.walk(path):
        for name in (*subdirectories, *names):
            entry = Path(directory, name)
            if entry.is_symlink():
                content: bytes | str = os.readlink(entry)
            else:
                content = entry.read_bytes() if entry.is_file() else "directory"
            found[str(entry.relative_to(path))] = (content, entry.lstat().st_mode)
    return found
