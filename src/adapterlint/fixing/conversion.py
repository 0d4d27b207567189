"""Weights files in other containers, as what a new safetensors file can be laid out from: names and places of bytes.

Nothing is unpickled. Tensors that lie in one run are moved as they are; others (transposed, expanded, strided views)
are gathered element by element, in blocks. What cannot be taken over exactly is refused, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from typing import BinaryIO, NamedTuple

from adapterlint.findings import ConvertWeights
from adapterlint.fixing.errors import PlanError
from adapterlint.fixing.records import is_inside, is_plain_name
from adapterlint.fixing.strided import Source, Strided
from adapterlint.reading import pickled
from adapterlint.reading.pickled import Archive, PickledTensor, shown
from adapterlint.reading.safetensors import DTYPE_BITS, Header, TensorEntry, read_header
from adapterlint.reading.ziplist import DEFLATED

METADATA = {"format": "pt"}
"""What PEFT writes into the header."""

SPARE_BYTES = 64 << 20
MAX_GROWTH = 4
"""Views may share bytes, so that a small file can describe any amount: beyond this factor it is refused."""

MAX_SPREAD = 16
"""Bytes of a file that a view may be spread over, for each byte of its own, beyond the spare ones."""

_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


class Converted(NamedTuple):
    """What the files hold, as if they were one safetensors file.

    Attributes:
        header: names, dtypes, shapes; the offsets are those of a file without gaps, which is not there.
        sources: where the bytes of each tensor are.
    """

    header: Header
    sources: Mapping[str, Source | Strided]


def convert(root: str, edit: ConvertWeights) -> Converted:
    """Read what the edit takes. Raises PlanError with the reason if it cannot be taken over exactly."""
    sources: dict[str, Source | Strided] = {}
    entries: dict[str, TensorEntry] = {}
    metadata = dict(METADATA)
    size = at = 0
    for name in (*edit.files, *edit.remove):
        if not is_plain_name(name) and not (edit.files == (name,) and is_inside(os.path.realpath(root), name)):
            raise PlanError(root, f"{name!r} is not the name of a file in the directory")
    for name in edit.files:
        path = os.path.join(root, name)
        found = _safetensors(path, metadata) if _is_safetensors(path, name) else _torch(path, edit)
        for tensor, (dtype, shape, source) in found.items():
            if tensor in entries:
                raise PlanError(path, f"tensor `{shown(tensor)}` is in more than one file")
            _require_storable(path, tensor, dtype)
            nbytes = DTYPE_BITS[dtype] * prod(shape) // 8
            entries[tensor] = TensorEntry(tensor, dtype, shape, at, at + nbytes)
            sources[tensor] = source
            at += nbytes
        size += os.path.getsize(path)
    if at > MAX_GROWTH * size + SPARE_BYTES:
        reason = f"its tensors, views of shared bytes, would take {at} bytes, and the file has {size}"
        raise PlanError(os.path.join(root, edit.files[0]), reason)
    return Converted(Header(entries, metadata, (), 0, at, b""), sources)


_Found = dict[str, tuple[str, tuple[int, ...], Source | Strided]]


def _is_safetensors(path: str, name: str) -> bool:
    return not name.endswith(_TORCH_SUFFIXES) and read_header(path).readable


def _safetensors(path: str, metadata: dict[str, str]) -> _Found:
    header = read_header(path)
    for key, value in header.metadata.items():
        if metadata.setdefault(key, value) != value:
            raise PlanError(path, f"the metadata {key!r} of the files differ")
    return {
        name: (entry.dtype, tuple(entry.shape), Source(path, header.data_start + entry.begin))
        for name, entry in header.tensors.items()
    }


def _require_storable(path: str, name: str, dtype: str) -> None:
    if dtype not in DTYPE_BITS:
        raise PlanError(path, f"tensor `{shown(name)}` has dtype {dtype}, which safetensors cannot hold")
    if name == "__metadata__" or not _is_text(name):
        raise PlanError(path, f"tensor `{shown(name)}` has a name that safetensors cannot hold")


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _torch(path: str, edit: ConvertWeights) -> _Found:
    archive = pickled.read_archive(path, lenient=edit.salvage)
    _require_followed(path, archive)
    tensors = archive.tensors
    if edit.under is not None:
        if archive.nested_under != edit.under:
            raise PlanError(path, f"there is no dictionary of tensors under the key {shown(edit.under)!r}")
        tensors = archive.nested
    if not tensors:
        raise PlanError(path, "there are no tensors in it")
    odd = next((problem for problem in archive.problems if problem.kind == "special-tensor"), None)
    if odd is not None:
        raise PlanError(path, odd.message)
    with open(path, "rb") as file:
        return {
            name: (tensor.dtype, tuple(tensor.shape), _place(path, file, archive, tensor))
            for name, tensor in tensors.items()
        }


def _require_followed(path: str, archive: Archive) -> None:
    if archive.fatal is not None:
        raise PlanError(path, archive.fatal.message)
    if not archive.complete:
        raise PlanError(
            path, archive.problems[0].message if archive.problems else "it could not be followed to its end"
        )
    if not archive.little_endian:
        raise PlanError(path, "its numbers are stored big-endian, and safetensors holds little-endian ones")


def _place(path: str, file: BinaryIO, archive: Archive, tensor: PickledTensor) -> Source | Strided:
    position = pickled.tensor_position(file, archive, tensor)
    if position is None:
        member = archive.members.get(tensor.entry)
        what = "is compressed" if member is not None and member.method == DEFLATED else "has no bytes in the file"
        raise PlanError(path, f"tensor `{shown(tensor.name)}` {what}, and only stored bytes can be moved")
    if tensor.contiguous:
        return Source(path, position)
    itemsize = DTYPE_BITS.get(tensor.dtype, 8) // 8
    view = Strided(path, position, itemsize, tuple(tensor.shape), tuple(tensor.strides))
    if view.span * itemsize > SPARE_BYTES + MAX_SPREAD * view.numel * itemsize:
        raise PlanError(path, f"tensor `{shown(tensor.name)}` is spread over {view.span * itemsize} bytes of the file")
    return view
