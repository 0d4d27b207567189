"""Where sources come from: a wheel, an sdist, a checkout, or a release that pip downloads. Nothing is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_PACKAGE = "peft"


@dataclass(frozen=True, slots=True)
class Sources:
    """A tree of sources.

    Attributes:
        release: the version that the tree itself states.
        tree: ``peft/...`` path -> text.
    """

    release: str
    tree: dict[str, str]


def load(path_or_version: str | Path) -> Sources:
    """Read sources from a path, or download the wheel of a release.

    Args:
        path_or_version: a ``.whl`` or ``.tar.gz`` file, a directory (a checkout, or one that holds ``peft/``), or a
            version.

    Raises:
        ValueError: no sources of PEFT in there.
        FileNotFoundError: neither a path nor a version.
        subprocess.CalledProcessError: pip could not get the release.
    """
    path = Path(path_or_version)
    if path.is_dir():
        found = _from_directory(path)
    elif path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".py")]
            found = {name: archive.read(name).decode("utf-8") for name in names}
    elif path.name.endswith((".tar.gz", ".tgz")):
        found = _from_tar(path)
    elif re.fullmatch(r"\d+(\.\d+)+\w*", str(path_or_version)):
        return download(str(path_or_version))
    else:
        raise FileNotFoundError(f"neither a file, a directory nor a release: {path_or_version}")
    return _sources(found, str(path_or_version))


def download(version: str, folder: Path | None = None) -> Sources:
    """Get the wheel of a release with pip and read it.

    Args:
        version: such as ``0.21.2``.
        folder: where the wheel is kept; None for a temporary place.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(place)]
        subprocess.run([*command, f"{_PACKAGE}=={version}"], check=True, stdout=subprocess.DEVNULL)
        return load(wheel_path(place, version))


def wheel_path(folder: Path, version: str) -> Path:
    """The name that pip gives to the wheel of a release."""
    return folder / f"{_PACKAGE}-{version}-py3-none-any.whl"


def _from_directory(path: Path) -> dict[str, str]:
    found = {}
    for root in (path / "src", path):
        if (root / _PACKAGE / "__init__.py").is_file():
            files = sorted((root / _PACKAGE).rglob("*.py"))
            found = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}
            break
    return found


def _from_tar(path: Path) -> dict[str, str]:
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts[1:]
            parts = parts[1:] if parts[:1] == ("src",) else parts
            content = archive.extractfile(member) if parts[:1] == (_PACKAGE,) and member.name.endswith(".py") else None
            if content is not None:
                found["/".join(parts)] = content.read().decode("utf-8")
    return found


def _sources(found: dict[str, str], origin: str) -> Sources:
    tree = {name: text for name, text in found.items() if name.startswith(f"{_PACKAGE}/")}
    if f"{_PACKAGE}/__init__.py" not in tree:
        raise ValueError(f"no sources of PEFT in {origin}")
    return Sources(_release(tree[f"{_PACKAGE}/__init__.py"], origin), tree)


def _release(text: str, origin: str) -> str:
    stated = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
    if stated is None:
        raise ValueError(f"{origin} does not state its version in {_PACKAGE}/__init__.py")
    return stated.group(1)
