"""What the wheel holds: every package and every data file of the source tree."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_every_package_and_every_data_file_is_listed() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    source = ROOT / "src"
    packages = {".".join(path.parent.relative_to(source).parts) for path in source.rglob("__init__.py")}
    assert packages == {name for name in settings["packages"] if not name.startswith("adapterlint.schemas")}
    data = {
        (".".join(path.parent.relative_to(source).parts), path.name)
        for path in (source / "adapterlint").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    listed = {(package, name) for package, names in settings["package-data"].items() for name in names}
    assert data <= listed
