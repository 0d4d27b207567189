"""Sources -> model. The only place that knows both how files are read and what adapters are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from adapterlint.discover import Found
from adapterlint.findings import CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE
from adapterlint.model import keys
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.subject import Subject
from adapterlint.model.tensor import Tensor
from adapterlint.reading import base as base_reader
from adapterlint.reading import jsontext, safetensors
from adapterlint.reading.problems import Problem


def read_adapter(found: Found, base: Base | None = None) -> Adapter:
    """Read one adapter directory: its listing, its config, the headers of its weights.

    Never raises on bad content: what is wrong is in the adapter's problem records.
    """
    files, listing_problems = _listing(found.path)
    document = _config(found.path, files)
    value = document.value if document is not None and document.readable else None
    weights = next((name for name in (SAFETENSORS_FILE, PICKLE_FILE) if name in files), None)
    tensors, problems, extra = _weights(found.path, weights)
    name = os.path.basename(os.path.realpath(found.path)) if found.path in (".", "..") else os.path.basename(found.path.rstrip("/"))
    return Adapter(
        path=found.path,
        name=name,
        files=files,
        config=value if isinstance(value, dict) else None,
        config_problems=document.problems if document is not None else (),
        config_value=value,
        weights_file=weights,
        tensors=tensors,
        weights_problems=listing_problems + problems,
        explicit=found.explicit,
        other_tensors=_others(found.path, files, weights),
        keep=_owned_wrappers(base),
        **extra,
    )


def _owned_wrappers(base: Base | None) -> frozenset[str]:
    """Components that look like wrappers but that the base itself owns."""
    if base is None:
        return frozenset()
    owned = {part for name in base.parameters for part in name.split(".")}
    return frozenset(owned & (keys.WRAPPERS | {keys.SOFT_WRAPPER}))


def _listing(path: str) -> tuple[dict[str, int], tuple[Problem, ...]]:
    files: dict[str, int] = {}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    if not entry.is_dir():
                        files[entry.name] = entry.stat().st_size
                except OSError:
                    files[entry.name] = 0
    except OSError as error:
        return {}, (Problem("unreadable", f"the directory cannot be listed: {error.strerror}"),)
    return dict(sorted(files.items())), ()


def _config(path: str, files: Mapping[str, int]) -> jsontext.Document | None:
    if CONFIG_FILE not in files:
        return None
    return read_config(path)


def read_config(path: str) -> jsontext.Document:
    """The config document of an adapter directory, with positions; an unreadable file is a problem record."""
    try:
        with open(os.path.join(path, CONFIG_FILE), "rb") as file:
            return jsontext.read_text(file.read())
    except OSError as error:
        problem = Problem("unreadable", f"{CONFIG_FILE} cannot be read: {error.strerror}")
        return jsontext.Document("", problems=(problem,), readable=False)


def _weights(path: str, name: str | None) -> tuple[dict[str, Tensor], tuple[Problem, ...], dict[str, object]]:
    if name is None:
        return {}, (), {}
    if name == SAFETENSORS_FILE:
        header = safetensors.read_header(os.path.join(path, name))
        return _tensors(header, name), header.problems, {"metadata": header.metadata}
    from adapterlint.reading import pickled  # zipfile and pickletools cost 15 ms, and few adapters need them

    archive = pickled.read_archive(os.path.join(path, name))
    nested = {item.name: _from_pickle(item, name) for item in archive.nested.values()}
    tensors = {item.name: _from_pickle(item, name) for item in archive.tensors.values()}
    return tensors, archive.problems, {"nested_under": archive.nested_under, "nested": nested}


def _from_pickle(item: object, file: str) -> Tensor:
    return Tensor(item.name, item.dtype, item.shape, file)  # type: ignore[attr-defined]


def _tensors(header: safetensors.Header, file: str) -> dict[str, Tensor]:
    start = header.data_start
    return {
        entry.name: Tensor(entry.name, entry.dtype, entry.shape, file, start + entry.begin, entry.end - entry.begin)
        for entry in header.tensors.values()
    }


def _others(path: str, files: Mapping[str, int], weights: str | None) -> dict[str, dict[str, Tensor]]:
    """Headers of safetensors files that PEFT does not read, where they may be misplaced or rival weights."""
    found = {}
    for name in files:
        if name != weights and name.endswith(".safetensors") and (weights is None or name == SAFETENSORS_FILE):
            header = safetensors.read_header(os.path.join(path, name))
            if header.readable:
                found[name] = _tensors(header, name)
    if weights == SAFETENSORS_FILE and PICKLE_FILE in files:
        from adapterlint.reading import pickled

        archive = pickled.read_archive(os.path.join(path, PICKLE_FILE))
        found[PICKLE_FILE] = {item.name: _from_pickle(item, PICKLE_FILE) for item in archive.tensors.values()}
    return found


@lru_cache(maxsize=64)
def read_base(path: str) -> tuple[Base, tuple[Problem, ...]]:
    """A base model from its directory, with what its reader complained about."""
    files = base_reader.read_base(path)
    stored = {
        name: Tensor(name, item.dtype, item.shape, item.file, item.offset, item.nbytes)
        for name, item in files.tensors.items()
    }
    return Base(path, files.config, stored), files.problems


def find_base(adapter: Adapter) -> str | None:
    """Where the adapter's ``base_model_name_or_path`` lies: a local directory or the local Hugging Face cache."""
    reference = adapter.get("base_model_name_or_path")
    if not isinstance(reference, str) or not reference:
        return None
    return base_reader.find_base(reference, adapter.path)


class FilePayload:
    """Answers questions about tensor bytes by reading them in blocks.

    Args:
        directory: the adapter directory.
        base_directory: the base's directory, if there is one.
    """

    def __init__(self, directory: str, base_directory: str | None) -> None:
        self._directory = directory
        self._base = base_directory

    def is_zero(self, tensor: Tensor) -> bool | None:
        """Whether every element is zero; None when it cannot be read."""
        from adapterlint.reading import payload

        if tensor.offset < 0:
            return None
        try:
            return payload.is_zero(self._path(tensor), tensor.offset, tensor.nbytes, tensor.dtype)
        except OSError:
            return None

    def is_finite(self, tensor: Tensor) -> bool | None:
        """Whether no element is NaN or infinite; None when it cannot be read."""
        from adapterlint.reading import payload

        if tensor.offset < 0:
            return None
        try:
            return payload.is_finite(self._path(tensor), tensor.offset, tensor.nbytes, tensor.dtype)
        except OSError:
            return None

    def equals_base(self, tensor: Tensor, other: Tensor) -> bool | None:
        """Whether an adapter tensor holds the bytes of a base tensor; None when either cannot be read."""
        if self._base is None:
            return None
        return self._equal(tensor, self._path(tensor), other, os.path.join(self._base, other.file))

    def equal(self, tensor: Tensor, other: Tensor) -> bool | None:
        """Whether two tensors of this adapter hold the same bytes; None when either cannot be read."""
        return self._equal(tensor, self._path(tensor), other, self._path(other))

    def _path(self, tensor: Tensor) -> str:
        return os.path.join(self._directory, tensor.file)

    def _equal(self, tensor: Tensor, path: str, other: Tensor, other_path: str) -> bool | None:
        from adapterlint.reading import payload

        if tensor.offset < 0 or other.offset < 0:
            return None
        if tensor.shape != other.shape:
            return False
        if tensor.dtype != other.dtype:
            return None
        try:
            return payload.equal(path, tensor.offset, other_path, other.offset, tensor.nbytes)
        except OSError:
            return None


def subject(adapter: Adapter, base: Base | None, with_payload: bool = True) -> Subject:
    """A rule's subject, with its accessors filled in."""
    if not with_payload:
        return Subject(adapter, base)
    return Subject(adapter, base, FilePayload(adapter.path, base.path if base else None))
