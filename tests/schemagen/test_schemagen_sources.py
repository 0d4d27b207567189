"""The same sources from a wheel, an sdist and a checkout."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from schemagen_util import lora, tree

from adapterlint.schemagen.sources import load

TREE = tree(lora("r: int = 8"))


def wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**TREE, "peft-0.99.0.dist-info/METADATA": "Name: peft", "other/a.py": "x"}.items():
            archive.writestr(name, text)
    return path


def sdist(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in {
            **{f"src/{name}": text for name, text in TREE.items()},
            "setup.py": "x",
            "tests/peft/a.py": "x",
        }.items():
            entry = tarfile.TarInfo(f"peft-0.99.0/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def folder(path: Path, below: str) -> Path:
    for name, text in TREE.items():
        file = path / below / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return path


def test_every_origin_gives_the_same_tree(tmp_path: Path) -> None:
    origins = [
        wheel(tmp_path / "peft-0.99.0-py3-none-any.whl"),
        sdist(tmp_path / "peft-0.99.0.tar.gz"),
        folder(tmp_path / "checkout", "src"),
        folder(tmp_path / "site-packages", "."),
    ]
    for origin in origins:
        sources = load(origin)
        assert sources.release == "0.99.0", origin
        assert sources.tree == TREE, origin


def test_no_sources_no_version_no_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sources of PEFT"):
        load(tmp_path)
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "__init__.py").write_text("x = 1")
    with pytest.raises(ValueError, match="does not state its version"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a file"):
        load("somewhere/else")
