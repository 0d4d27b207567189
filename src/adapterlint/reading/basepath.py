"""Where a base model lies on this machine: a local directory, or the local Hugging Face cache. No network."""

from __future__ import annotations

import os
import re
from functools import lru_cache

CONFIG = "config.json"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")


class BaseFinder:
    """Where the bases that adapters name are on this machine; what does not depend on the adapter is looked up once."""

    def __init__(self) -> None:
        self._here = lru_cache(maxsize=None)(_has_config)
        self._in_cache = lru_cache(maxsize=None)(_in_cache)

    def find(self, reference: str, adapter_dir: str) -> str | None:
        """The base's directory, or None.

        Looked for, without network: a directory with a config.json of that path, from the current directory and from
        the adapter's; then a repository of that name in the Hugging Face cache.

        Args:
            reference: ``base_model_name_or_path`` of the adapter.
            adapter_dir: the adapter's directory.
        """
        if not reference or "\0" in reference:
            return None
        if self._here(reference):
            return reference
        beside = os.path.join(adapter_dir, reference)
        return beside if _has_config(beside) else self._in_cache(reference)


def _in_cache(reference: str) -> str | None:
    """The snapshot of ``main`` of a repository, or its only one."""
    if not _REPOSITORY.fullmatch(reference) or "--" in reference or ".." in reference:
        return None
    repository = os.path.join(_cache(), "models--" + reference.replace("/", "--"))
    snapshots = os.path.join(repository, "snapshots")
    try:
        with open(os.path.join(repository, "refs", "main"), encoding="utf-8") as file:
            revision = file.read(200).strip()
    except (OSError, ValueError):
        try:
            found = os.listdir(snapshots)
        except OSError:
            return None
        if len(found) != 1:
            return None
        revision = found[0]
    if not revision or os.path.basename(revision) != revision or revision in (".", ".."):
        return None
    snapshot = os.path.join(snapshots, revision)
    return snapshot if _has_config(snapshot) else None


def _cache() -> str:
    """The cache's directory, by the rules of huggingface_hub (``constants.py``)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return _expanded(os.environ[name])
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "huggingface")
    return os.path.join(_expanded(home), "hub")


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))


def _has_config(directory: str) -> bool:
    return os.path.isfile(os.path.join(directory, CONFIG))
