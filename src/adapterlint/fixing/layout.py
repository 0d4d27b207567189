"""What a new weights file holds: names, places and where each tensor's bytes come from. Pure: nothing is written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from adapterlint.findings import CopyTensor, DropTensor, MakeTensor, RenameTensor, Term, WeightsEdit, ZeroTensor
from adapterlint.fixing.errors import PlanError
from adapterlint.fixing.strided import Source, Strided
from adapterlint.fixing.values import ROUNDING, Stored, TermError, Values
from adapterlint.reading.base import BaseFiles, BaseTensor
from adapterlint.reading.safetensors import DTYPE_BITS, MAX_HEADER_BYTES, Header

PAGE = 4096
"""Data keeps its offset modulo this, so that a file system with shared extents need not copy it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor of the new file.

    Attributes:
        name: its name in the new file.
        dtype: safetensors dtype.
        shape: dimensions.
        begin: offset in the data section, in bytes.
        size: its bytes.
        source: where they come from, in one run or spread; None for zeros, and for what is computed.
        term: what is computed; None for all others.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int
    source: Source | Strided | None
    term: Term | None = None

    @property
    def itemsize(self) -> int:
        """Bytes an element, at least 1 (the sub-byte dtypes have no alignment)."""
        return max(1, DTYPE_BITS.get(self.dtype, 8) // 8)

    @property
    def aligned(self) -> bool:
        """Whether it begins on a multiple of its element size, so that it can be used in place."""
        return self.begin % self.itemsize == 0


class Run(NamedTuple):
    """Bytes that lie together in the source and in the new file. ``to`` counts from the start of the new file."""

    source: Source
    to: int
    size: int


@dataclass(frozen=True, slots=True)
class NewWeights:
    """A weights file to be written.

    Attributes:
        header: the length field and the JSON, padded.
        tensors: in the order of their offsets, which cover the data section without holes.
        values: of the computed ones.
    """

    header: bytes
    tensors: tuple[Placed, ...]
    values: Values

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(tensor.size for tensor in self.tensors)

    def runs(self) -> list[Run]:
        """The bytes to move in one run, neighbours joined. What neither a run nor :meth:`spread` covers is zero, or
        computed."""
        runs: list[Run] = []
        for tensor in self.tensors:
            if not isinstance(tensor.source, Source) or not tensor.size:
                continue
            to = len(self.header) + tensor.begin
            last = runs[-1] if runs else None
            if last and last.to + last.size == to and _follows(last, tensor.source):
                runs[-1] = last._replace(size=last.size + tensor.size)
            else:
                runs.append(Run(tensor.source, to, tensor.size))
        return runs

    def spread(self) -> Iterator[tuple[int, Strided]]:
        """Where in the file the elements go that have to be gathered, and where they are."""
        for tensor in self.tensors:
            if isinstance(tensor.source, Strided):
                yield len(self.header) + tensor.begin, tensor.source


def _follows(run: Run, source: Source) -> bool:
    return run.source.file == source.file and run.source.offset + run.size == source.offset


def lay_out(
    path: str,
    header: Header,
    edits: Iterable[WeightsEdit],
    base: BaseFiles | None,
    sources: Mapping[str, Source | Strided] | None = None,
) -> NewWeights:
    """The file that the edits make of the one at ``path``. All edits refer to the old names; their order is no matter.

    Tensors that stay keep their order in the header and in the data. Raises PlanError if the edits do not fit.

    Args:
        path: the file.
        header: its header.
        edits: what to change.
        base: where copied tensors come from.
        sources: where the tensors' bytes are, if they are not where the header of a safetensors file has them.
    """
    _require_readable(path, header)
    edits = tuple(dict.fromkeys(edits))
    renamed = _renamed(path, header, edits)
    dropped = _dropped(path, header, edits, renamed)
    kept = [
        Placed(renamed.get(name, name), entry.dtype, entry.shape, entry.begin, entry.end - entry.begin,
               sources[name] if sources else Source(path, header.data_start + entry.begin))
        for name, entry in header.tensors.items()
        if name not in dropped
    ]  # fmt: skip
    values = Values(stored_tensors(path, header, sources), base_tensors(base))
    added = [_added(path, edit, header, base) for edit in edits if isinstance(edit, CopyTensor | ZeroTensor)]
    added += [_made(path, edit, values) for edit in edits if isinstance(edit, MakeTensor)]
    _require_unique(path, [tensor.name for tensor in (*kept, *added)])
    in_place = sorted(kept, key=lambda tensor: (tensor.begin, tensor.size))
    placed = in_place if not dropped and not added and sources is None else _arranged(in_place, added)
    by_name = {tensor.name: tensor for tensor in placed}
    listed = [by_name[tensor.name] for tensor in (*kept, *added)]
    return NewWeights(_encoded(path, header, listed), tuple(placed), values)


def _require_readable(path: str, header: Header) -> None:
    if header.fatal is not None:
        raise PlanError(path, f"the file cannot be read, so it cannot be rewritten: {header.fatal.message}")


def _renamed(path: str, header: Header, edits: Sequence[WeightsEdit]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for edit in edits:
        if not isinstance(edit, RenameTensor):
            continue
        _require_tensor(path, header, edit.old, "rename")
        if edit.old in renamed:
            raise PlanError(path, f"two new names for tensor {edit.old!r}: {renamed[edit.old]!r} and {edit.new!r}")
        renamed[edit.old] = edit.new
    return renamed


def _dropped(path: str, header: Header, edits: Sequence[WeightsEdit], renamed: Mapping[str, str]) -> set[str]:
    dropped: set[str] = set()
    for edit in edits:
        if not isinstance(edit, DropTensor):
            continue
        _require_tensor(path, header, edit.name, "drop")
        if edit.name in renamed:
            raise PlanError(path, f"tensor {edit.name!r} is to be dropped and to be renamed")
        dropped.add(edit.name)
    return dropped


def _require_tensor(path: str, header: Header, name: str, verb: str) -> None:
    if name not in header.tensors:
        raise PlanError(path, f"there is no tensor {name!r} to {verb}")


def _require_unique(path: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise PlanError(path, f"two tensors would be named {name!r}")
        if name == "__metadata__":
            raise PlanError(path, "no tensor can be named '__metadata__'")
        seen.add(name)


def _added(path: str, edit: CopyTensor | ZeroTensor, header: Header, base: BaseFiles | None) -> Placed:
    if isinstance(edit, ZeroTensor):
        size = tensor_bytes(edit.dtype, edit.shape)
        if size is None:
            raise PlanError(path, f"tensor {edit.name!r} cannot be made: no size for {edit.dtype} {list(edit.shape)}")
        return Placed(edit.name, edit.dtype, edit.shape, 0, size, None)
    if base is None:
        raise PlanError(path, f"tensor {edit.name!r} is to be copied from the base, and no base was given")
    found = base.tensors.get(edit.base_name)
    if found is None:
        raise PlanError(path, f"tensor {edit.name!r}: the base {base.path} has no tensor {edit.base_name!r}")
    shape = tuple(found.shape)
    if tensor_bytes(found.dtype, shape) != found.nbytes:
        raise PlanError(path, f"tensor {edit.base_name!r} of the base: {found.nbytes} bytes do not hold "
                              f"{found.dtype} {list(shape)}")  # fmt: skip
    replaced = header.tensors.get(edit.name)
    if replaced is not None and (replaced.dtype, tuple(replaced.shape)) != (found.dtype, shape):
        raise PlanError(path, f"tensor {edit.name!r} is {replaced.dtype} {list(replaced.shape)}, and the base's "
                              f"{edit.base_name!r}, which is to replace it, {found.dtype} {list(shape)}")  # fmt: skip
    return Placed(edit.name, found.dtype, shape, 0, found.nbytes, Source(base_file(base, found), found.offset))


def _made(path: str, edit: MakeTensor, values: Values) -> Placed:
    size = tensor_bytes(edit.dtype, edit.shape)
    if size is None or edit.dtype not in ROUNDING:
        raise PlanError(path, f"tensor {edit.name!r} cannot be computed as {edit.dtype} {list(edit.shape)}")
    try:
        shape = values.shape(edit.term)
    except TermError as error:
        raise PlanError(path, f"tensor {edit.name!r} cannot be computed: {error}") from error
    if shape != tuple(edit.shape):
        raise PlanError(path, f"tensor {edit.name!r} is computed as {list(shape)}, and should be {list(edit.shape)}")
    return Placed(edit.name, edit.dtype, shape, 0, size, None, edit.term)


def stored_tensors(
    path: str, header: Header, sources: Mapping[str, Source | Strided] | None = None
) -> dict[str, Stored]:
    """The tensors of a file, for terms over them; ``sources`` as in :func:`lay_out`."""
    found = {}
    for name, entry in header.tensors.items():
        source = sources[name] if sources is not None else Source(path, header.data_start + entry.begin)
        offset = source.offset if isinstance(source, Source) else -1
        found[name] = Stored(source.file, offset, entry.dtype, tuple(entry.shape))
    return found


def base_tensors(base: BaseFiles | None) -> dict[str, Stored]:
    """The tensors of a base, for terms over them."""
    if base is None:
        return {}
    return {
        name: Stored(base_file(base, tensor), tensor.offset, tensor.dtype, tuple(tensor.shape))
        for name, tensor in base.tensors.items()
    }


def base_file(base: BaseFiles, tensor: BaseTensor) -> str:
    """Path of the file that holds a tensor of the base."""
    return os.path.join(base.path, tensor.file)


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int | None:
    """Bytes of a tensor; None if the dtype is unknown, a dimension negative or the last byte not full."""
    bits = DTYPE_BITS.get(dtype)
    if bits is None or any(dimension < 0 for dimension in shape):
        return None
    total = bits * prod(shape)
    return total // 8 if total % 8 == 0 else None


def _arranged(kept: Sequence[Placed], added: Sequence[Placed]) -> list[Placed]:
    """Offsets without holes: kept ones in their old order, added ones behind them.

    The format allows no padding between tensors. So if an element would come to lie across its natural boundary, the
    wide dtypes go first, as the library itself writes them, which aligns all.
    """
    # Whole words first: as many added tensors as possible begin on a multiple of 8 bytes.
    behind = sorted(added, key=lambda tensor: (tensor.size % 8 != 0, -tensor.itemsize, tensor.name))
    placed = _consecutive((*kept, *behind))
    if all(tensor.aligned for tensor in placed):
        return placed
    return _consecutive(sorted(placed, key=lambda tensor: -tensor.itemsize))


def _consecutive(tensors: Iterable[Placed]) -> list[Placed]:
    placed, at = [], 0
    for tensor in tensors:
        placed.append(replace(tensor, begin=at))
        at += tensor.size
    return placed


def _encoded(path: str, old: Header, tensors: Iterable[Placed]) -> bytes:
    """Length field and JSON, padded so that the data begins at the old offset modulo a page, or on a multiple of 8."""
    document: dict[str, object] = {}
    if has_metadata(old):
        document["__metadata__"] = dict(old.metadata)
    for tensor in tensors:
        offsets = [tensor.begin, tensor.begin + tensor.size]
        document[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    # A header without text is that of another container, whose offsets nothing can share.
    step = PAGE if old.raw and old.data_start % 8 == 0 else 8
    padding = (old.data_start - 8 - len(text)) % PAGE if step == PAGE else -len(text) % 8
    length = len(text) + padding
    if length > MAX_HEADER_BYTES:
        raise PlanError(path, f"the new header would have {length} bytes, more than the {MAX_HEADER_BYTES} that load")
    return length.to_bytes(8, "little") + text + b" " * padding


def has_metadata(header: Header) -> bool:
    """Whether the file has a ``__metadata__`` object, be it an empty one (``null`` is none)."""
    if header.metadata:
        return True
    return b"__metadata__" in header.raw and isinstance(json.loads(header.raw).get("__metadata__"), dict)
