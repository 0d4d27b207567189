"""The base model as far as its files tell without loading it: config.json and the headers of its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from .lfs import parse_pointer
from .plainfile import read_small
from .problems import Problem
from .safetensors import DTYPE_BITS, read_header

CONFIG = "config.json"
SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

MAX_JSON_BYTES = 64 << 20
"""Longest config or index that is read."""
MAX_SHARDS = 4096

_SHOWN = 3


class BaseTensor(NamedTuple):
    """A stored tensor of the base.

    Attributes:
        name: its name in the checkpoint.
        dtype: safetensors dtype name.
        shape: dimensions.
        file: the file that holds it, relative to the base's directory.
        offset: where its bytes start in that file; -1 where they do not lie there in one run, little-endian.
        nbytes: how many they are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int


class BaseFiles(NamedTuple):
    """What the files of a base model say.

    Attributes:
        path: its directory.
        config: its config.json; empty if that cannot be read.
        tensors: the tensors of all its files, by name.
        problems: what is wrong, each with the name of the file: ``no-config``, ``bad-config``, ``no-weights``,
            ``bad-index``, ``missing-shard``, ``missing-tensor``, ``duplicate-tensor`` (a note), and the kinds of the
            readers of the single files where those are fatal.
    """

    path: str
    config: dict[str, Any]
    tensors: dict[str, BaseTensor]
    problems: tuple[Problem, ...]


def read_base(path: str) -> BaseFiles:
    """Read a base model's directory; whatever is wrong with it becomes a problem.

    The files are looked for in the order of transformers: one safetensors file, safetensors shards, one torch file,
    torch shards.
    """
    problems: list[Problem] = []
    config = _read_object(path, CONFIG, problems) or {}
    tensors: dict[str, BaseTensor] = {}
    names = _weight_files(path, problems)
    for name in names:
        for tensor in _read_weights(path, name, problems):
            if tensor.name in tensors:
                message = f"tensor `{tensor.name}` is in {tensors[tensor.name].file} and in {name}"
                problems.append(Problem("duplicate-tensor", message, fatal=False, tensor=tensor.name))
            tensors[tensor.name] = tensor
    if isinstance(names, dict) and not any(problem.fatal for problem in problems):
        problems += _missing(names, tensors)
    return BaseFiles(path, config, tensors, tuple(problems))


def _weight_files(path: str, problems: list[Problem]) -> Mapping[str, list[str]]:
    """Files that hold the weights; for shards with the tensors that the index promises in each."""
    for single, index in ((SAFETENSORS, SAFETENSORS_INDEX), (PICKLE, PICKLE_INDEX)):
        if os.path.lexists(os.path.join(path, single)):
            return {single: []}
        if os.path.lexists(os.path.join(path, index)):
            found = _read_object(path, index, problems)
            return {} if found is None else _shards(found, index, problems)
    message = f"{path} holds no weights: no {SAFETENSORS}, no {PICKLE}, no index of shards"
    detail = f"OSError: Error no file named {PICKLE}, {SAFETENSORS}"
    problems.append(Problem("no-weights", message, detail=detail))
    return {}


def _shards(index: dict[str, Any], name: str, problems: list[Problem]) -> dict[str, list[str]]:
    """Tensor names by shard."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        problems.append(Problem("bad-index", f"{name} has no `weight_map` from tensor names to file names"))
        return {}
    shards: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        shards.setdefault(shard, []).append(tensor)
    outside = [shard for shard in shards if os.path.basename(shard) != shard or shard in ("", ".", "..")]
    if outside or len(shards) > MAX_SHARDS:
        what = f"`{outside[0][:80]}`, which is no name of a file" if outside else f"{len(shards)} shards"
        problems.append(Problem("bad-index", f"{name} lists {what}"))
        return {}
    return shards


def _missing(promised: Mapping[str, list[str]], tensors: Mapping[str, BaseTensor]) -> Iterable[Problem]:
    """Tensors that the index lists and that no shard holds."""
    for shard, names in promised.items():
        missing = [name for name in names if name not in tensors]
        if missing:
            shown = ", ".join(f"`{name}`" for name in missing[:_SHOWN])
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            yield Problem("missing-tensor", f"{shard} does not hold {shown}{more}, which the index says it does")


def _read_weights(path: str, name: str, problems: list[Problem]) -> list[BaseTensor]:
    full = os.path.join(path, name)
    if not os.path.exists(full):
        message = f"{name} is missing: the download or copy of the base is incomplete"
        problems.append(Problem("missing-shard", message))
        return []
    if name.endswith(".safetensors"):
        return _from_safetensors(full, name, problems)
    return _from_pickle(full, name, problems)


def _from_safetensors(full: str, name: str, problems: list[Problem]) -> list[BaseTensor]:
    header = read_header(full)
    if header.fatal is not None:
        problems.append(_named(header.fatal, name))
        return []
    start = header.data_start
    return [
        BaseTensor(entry.name, entry.dtype, entry.shape, name, start + entry.begin, entry.end - entry.begin)
        for entry in header.tensors.values()
    ]


def _from_pickle(full: str, name: str, problems: list[Problem]) -> list[BaseTensor]:
    from .pickled import read_archive, tensor_position  # few bases need it

    archive = read_archive(full)
    if archive.fatal is not None:
        problems.append(_named(archive.fatal, name))
        return []
    if not archive.complete:
        problems.append(Problem("not-followed", f"{name}: {archive.problems[-1].message}"))
        return []
    odd = {problem.tensor for problem in archive.problems if problem.kind == "special-tensor"}
    found = []
    try:
        with open(full, "rb") as file:
            for item in archive.tensors.values():
                plain = item.contiguous and archive.little_endian and item.name not in odd
                place = tensor_position(file, archive, item) if plain else None
                nbytes = prod(item.shape) * DTYPE_BITS.get(item.dtype, 0) // 8
                found.append(
                    BaseTensor(item.name, item.dtype, item.shape, name, -1 if place is None else place, nbytes)
                )
    except OSError as error:
        problems.append(Problem("unreadable", f"{name} cannot be read: {error.strerror}"))
    return found


def _named(problem: Problem, name: str) -> Problem:
    return problem._replace(message=f"{name}: {problem.message}")


def _read_object(path: str, name: str, problems: list[Problem]) -> dict[str, Any] | None:
    """A JSON object from a file; None, and a problem, if it is none."""
    kind = "config" if name == CONFIG else "index"
    try:
        raw = read_small(os.path.join(path, name), MAX_JSON_BYTES)
        pointer = parse_pointer(raw)
        if pointer is not None:
            message = f"{name} is a Git LFS pointer, not the file itself: run `git lfs pull`"
            problems.append(Problem("lfs-pointer", message))
            return None
        value = json.loads(raw.decode("utf-8-sig"))
    except OSError as error:
        problems.append(Problem(f"no-{kind}", f"{name} cannot be read: {error.strerror}"))
        return None
    except (ValueError, RecursionError) as error:
        problems.append(Problem(f"bad-{kind}", f"{name} is not valid JSON: {error}"))
        return None
    if not isinstance(value, dict):
        problems.append(Problem(f"bad-{kind}", f"{name} is not a JSON object but a {type(value).__name__}"))
        return None
    return value
