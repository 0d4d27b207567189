"""Sources -> model: with ``filepayload`` the only place that knows both how files are read and what adapters are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from adapterlint.discover import Found
from adapterlint.filepayload import FilePayload
from adapterlint.findings import CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.subject import Subject
from adapterlint.model.tensor import Tensor, TensorTable
from adapterlint.reading import jsontext, safetensors
from adapterlint.reading.basepath import BaseFinder as BaseFinder
from adapterlint.reading.plainfile import read_small
from adapterlint.reading.problems import Problem

if TYPE_CHECKING:
    from adapterlint.reading.pickled import Archive, PickledTensor

PayloadDepth: TypeAlias = Literal["none", "quick", "full"]

QUICK_BYTES = 4 << 20
"""Tensor data of one adapter that is searched for NaN by default, in bytes: a few milliseconds."""

_TORCH_SUFFIXES = (".bin", ".pt", ".pth")
# Training state that lies beside adapters, by the start of its name: never an adapter under another name.
_TRAINING_STATE = ("optimizer", "scheduler", "scaler", "training", "trainer", "rng_state", "random_states")
_MAX_CANDIDATES = 16
# Fatal, so that nothing is concluded from tensors that were not read.
_NOT_FOLLOWED = Problem("not-followed", "the file could not be followed to its end: what torch does with it is open")


def read_adapter(found: Found, base: Base | None = None) -> Adapter:
    """Read one adapter directory: its listing, its config, the headers of its weights.

    Never raises on bad content: what is wrong is in the adapter's problem records.
    """
    files, listing_problems = _listing(found.path)
    document = _config(found.path, files)
    value = document.value if document is not None and document.readable else None
    weights = next((name for name in (SAFETENSORS_FILE, PICKLE_FILE) if name in files), None)
    read = _weights(found.path, weights)
    name = (
        os.path.basename(os.path.realpath(found.path))
        if found.path in (".", "..")
        else os.path.basename(found.path.rstrip("/"))
    )
    return Adapter(
        path=found.path,
        name=name,
        files=files,
        config=value if isinstance(value, dict) else None,
        config_problems=_config_problems(found.path, document),
        config_value=value,
        weights_file=weights,
        tensors=read.tensors,
        weights_problems=listing_problems + read.problems,
        metadata=read.metadata,
        nested_under=read.nested_under,
        nested=read.nested,
        explicit=found.explicit,
        other_tensors=_others(found.path, files, weights, read.problems),
        keep=base.wrappers if base else frozenset(),
    )


def _listing(path: str) -> tuple[dict[str, int], tuple[Problem, ...]]:
    """Files by name, as far as PEFT sees them: a link that leads nowhere is no file to it, only a note."""
    files: dict[str, int] = {}
    problems: list[Problem] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    # PEFT opens whatever bears the name of the weights, a directory too.
                    if not entry.is_dir() or entry.name in (SAFETENSORS_FILE, PICKLE_FILE):
                        files[entry.name] = entry.stat().st_size
                except OSError:
                    message = f"{entry.name} is a symbolic link to a file that is not there"
                    problems.append(Problem("broken-link", message, fatal=False, detail=entry.name))
    except OSError as error:
        return {}, (Problem("unlistable", f"the directory cannot be listed: {error.strerror}"),)
    return dict(sorted(files.items())), tuple(problems)


def _config(path: str, files: Mapping[str, int]) -> jsontext.Document | None:
    if CONFIG_FILE not in files:
        return None
    return read_config(path)


def _config_problems(path: str, document: jsontext.Document | None) -> tuple[Problem, ...]:
    """What is wrong with the config; of a Git LFS pointer also what it points to."""
    if document is None:
        return ()
    problems: tuple[Problem, ...] = ()
    for problem in document.problems:
        if problem.kind == "lfs-pointer":
            from adapterlint.reading import lfs  # this and the next: rare

            pointer = lfs.parse_pointer(document.text.encode("utf-8", "replace")[: lfs.MAX_POINTER_BYTES])
            if pointer is not None:
                size = "no size" if pointer.size is None else f"{pointer.size} bytes"
                oid = f"oid {pointer.oid}" if pointer.oid else "no oid"
                problem = problem._replace(message=f"the file is a Git LFS pointer ({oid}, {size}), not the config")
            problems += (*_tracked(path, CONFIG_FILE),)
        problems += (problem,)
    return problems


def _tracked(path: str, name: str) -> Iterator[Problem]:
    """A note where the checkout itself says that the file is kept in Git LFS."""
    from adapterlint.reading import gitattributes

    attributes = gitattributes.tracked_by(path, name)
    if attributes is not None:
        yield Problem("lfs-tracked", f"{attributes} keeps {name} in Git LFS", fatal=False, detail=attributes)


def read_config(path: str) -> jsontext.Document:
    """The config document of an adapter directory, with positions; an unreadable file is a problem record."""
    try:
        return jsontext.read_text(read_small(os.path.join(path, CONFIG_FILE)))
    except OSError as error:
        problem = Problem("unreadable", f"{CONFIG_FILE} cannot be read: {error.strerror}")
        return jsontext.Document("", problems=(problem,), readable=False)


class _Weights(NamedTuple):
    """What the file that PEFT reads holds; fields as in :class:`Adapter`."""

    tensors: Mapping[str, Tensor]
    problems: tuple[Problem, ...]
    metadata: dict[str, str]
    nested_under: str | None
    nested: dict[str, Tensor]


def _weights(path: str, name: str | None) -> _Weights:
    if name is None:
        return _Weights({}, (), {}, None, {})
    if name == SAFETENSORS_FILE:
        header = safetensors.read_header(os.path.join(path, name))
        found = _Weights(_tensors(header, name), header.problems, header.metadata, None, {})
    else:
        archive, tensors = _torch_tensors(path, name)
        problems = archive.problems
        if archive.fatal is None and not archive.complete:
            problems += (_NOT_FOLLOWED,)
        nested = {item.name: _from_pickle(item, name) for item in archive.nested.values()}
        found = _Weights(tensors, problems, {}, archive.nested_under, nested)
    if any(problem.kind == "lfs-pointer" for problem in found.problems):
        return found._replace(problems=(*found.problems, *_tracked(path, name)))
    return found


def _torch_tensors(path: str, name: str) -> tuple[Archive, dict[str, Tensor]]:
    """A torch file, and its tensors with the places of their bytes where those lie in one run."""
    from adapterlint.reading import pickled  # zipfile and pickletools cost 15 ms, and few adapters need them
    from adapterlint.reading.ziplist import BrokenZip

    archive = pickled.read_archive(os.path.join(path, name))
    places: dict[str, int] = {}
    if archive.tensors and archive.little_endian:
        odd = {problem.tensor for problem in archive.problems if problem.kind == "special-tensor"}
        try:
            with open(os.path.join(path, name), "rb") as file:
                for item in archive.tensors.values():
                    if item.contiguous and item.name not in odd:
                        place = pickled.tensor_position(file, archive, item)
                        places[item.name] = -1 if place is None else place
        except (OSError, BrokenZip):  # a broken member: its tensors are known, their bytes are not
            places.clear()
    items = archive.tensors.values()
    return archive, {item.name: _from_pickle(item, name, places.get(item.name, -1)) for item in items}


def _from_pickle(item: PickledTensor, file: str, offset: int = -1) -> Tensor:
    bits = safetensors.DTYPE_BITS.get(item.dtype)
    if bits is None:
        return Tensor(item.name, item.dtype, item.shape, file)
    return Tensor(item.name, item.dtype, item.shape, file, offset, bits * prod(item.shape) // 8)


def _tensors(header: safetensors.Header, file: str) -> TensorTable:
    names, dtypes, shapes, begins, ends = safetensors.columns_of(header.tensors)
    return TensorTable(names, dtypes, shapes, file, header.data_start, begins, ends)


def _others(
    path: str, files: Mapping[str, int], weights: str | None, problems: tuple[Problem, ...]
) -> dict[str, Mapping[str, Tensor]]:
    """Headers of weights that PEFT does not read: misplaced ones, a rival, or one file in the other container.

    A file of the adapter's own name stands here if it is sound in the other format than its name says.
    """
    if weights is None:
        names = [*_candidates(files), *_nested_weights(path)][:_MAX_CANDIDATES]
        return {name: found for name in names if (found := _sound(path, name, name.endswith(_TORCH_SUFFIXES)))}
    others = {}
    kinds = {problem.kind for problem in problems if problem.fatal}
    if kinds & {"zip", "pickle", "safetensors-bytes"}:
        others[weights] = _sound(path, weights, torch_file=weights == SAFETENSORS_FILE)
    if weights == SAFETENSORS_FILE and PICKLE_FILE in files:
        others[PICKLE_FILE] = _sound(path, PICKLE_FILE, torch_file=True)
    return {name: found for name, found in others.items() if found}


def _candidates(files: Mapping[str, int]) -> Iterator[str]:
    """Files that may be the weights under another name."""
    for name, size in files.items():
        named = name.endswith((".safetensors", *_TORCH_SUFFIXES)) or name.startswith("adapter_model")
        if size and named and not name.startswith(_TRAINING_STATE) and not name.endswith((".json", ".md", ".txt")):
            yield name


def _nested_weights(path: str) -> Iterator[str]:
    """Weights one directory further down."""
    try:
        with os.scandir(path) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return
    for folder in folders:
        for name in (SAFETENSORS_FILE, PICKLE_FILE):
            if os.path.isfile(os.path.join(path, folder, name)):
                yield f"{folder}/{name}"
                break


def _sound(path: str, name: str, torch_file: bool) -> Mapping[str, Tensor]:
    """The tensors of a file; none if it does not load."""
    if torch_file:
        archive, tensors = _torch_tensors(path, name)
        return tensors if archive.fatal is None and archive.complete else {}
    header = safetensors.read_header(os.path.join(path, name))
    return _tensors(header, name) if header.readable else {}


def read_base(path: str) -> tuple[Base, tuple[Problem, ...]]:
    """A base model from its directory, with what its reader complained about."""
    from adapterlint.reading import base as base_reader  # many checks have no base

    files = base_reader.read_base(path)
    stored = {
        name: Tensor(name, item.dtype, item.shape, item.file, item.offset, item.nbytes)
        for name, item in files.tensors.items()
    }
    return Base(path, files.config, stored), files.problems


def find_base(adapter: Adapter, finder: BaseFinder) -> str | None:
    """Where the adapter's ``base_model_name_or_path`` lies: a local directory or the local Hugging Face cache."""
    reference = adapter.get("base_model_name_or_path")
    if not isinstance(reference, str) or not reference:
        return None
    return finder.find(reference, adapter.path)


def subject(adapter: Adapter, base: Base | None, depth: PayloadDepth = "quick") -> Subject:
    """A rule's subject, with its accessors filled in.

    Args:
        adapter: the adapter.
        base: its base.
        depth: how much tensor data may be read: ``none``, ``quick`` (what costs milliseconds) or ``full``.
    """
    if base is not None and ("vision_config" in base.config or "text_config" in base.config):
        from adapterlint.model.layouts import fitting  # few models have had two sets of module paths

        base = fitting(adapter, base)
    if depth == "none":
        return Subject(adapter, base)
    budget = QUICK_BYTES if depth == "quick" else None
    return Subject(adapter, base, FilePayload(adapter.path, base.path if base else None, budget))
