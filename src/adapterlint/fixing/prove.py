"""The proof of a fix: the new files are read again and compared with the old ones and with the edits.

Nothing that worked out or wrote the new files is used here: names, dtypes and shapes follow from the edits alone, and
bytes are compared, not hashed: that is cheaper and leaves no doubt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from adapterlint.findings import (
    SAFETENSORS_FILE,
    ConvertWeights,
    CopyTensor,
    DropTensor,
    MakeTensor,
    RenameTensor,
    ZeroTensor,
)
from adapterlint.fixing.configvalue import describe, parse, wanted
from adapterlint.fixing.errors import ProofError
from adapterlint.fixing.layout import base_file, base_tensors, stored_tensors
from adapterlint.fixing.resolve import Change, ConfigChange, WeightsChange
from adapterlint.fixing.strided import Source, Strided, differs
from adapterlint.fixing.system import STAGE, meanwhile
from adapterlint.fixing.values import TermError, Values
from adapterlint.reading import payload
from adapterlint.reading.base import BaseFiles
from adapterlint.reading.safetensors import Header, read_header

if TYPE_CHECKING:
    from adapterlint.fixing.meaning import Equality

SHARED = 8 << 20
"""Bytes from which on a second thread is worth its start."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found equal when a fix was proved.

    Attributes:
        path: the adapter directory as given.
        untouched: tensors with their old name and, byte for byte, their old bytes, in a rewritten weights file.
        renamed: tensors with a new name and, byte for byte, their old bytes.
        dropped: tensors that are gone as planned.
        copied: added tensors that equal the base's byte for byte.
        zeroed: added tensors that are all zero.
        computed: added tensors that hold, rounded once, what their terms say.
        config_changes: the config's differences, in words; its other values are equal.
        files: files that got another name: old and new one.
        converted: files whose tensors are in a new one of another format: old and new one.
        removed: files that are gone.
        bytes_compared: bytes read on the new side for all this.
        equality: for a form: how far what is added to the base's modules differs from before.
    """

    path: str
    untouched: int = 0
    renamed: int = 0
    dropped: int = 0
    copied: int = 0
    zeroed: int = 0
    computed: int = 0
    config_changes: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    converted: tuple[tuple[str, str], ...] = ()
    removed: tuple[str, ...] = ()
    bytes_compared: int = 0
    equality: Equality | None = None


class _Pair(NamedTuple):
    """Bytes of a tensor of the new file that must equal those at ``offset`` of another one."""

    name: str
    new_offset: int
    file: str
    offset: int
    size: int


def prove(change: Change, directory: str, *, whole: bool = False) -> Proof:
    """Proves that ``directory`` holds what the edits make of the adapter. Raises ProofError.

    Args:
        change: the edits and the old files, which must still be in their place.
        directory: where the new files are.
        whole: whether the other files were copied as well, so that they must be compared.
    """
    proof = Proof(change.plan.path)
    try:
        if change.weights is not None:
            proof = _weights(change.plan.path, change.weights, change.plan.base, directory, proof)
        if change.config is not None:
            proof = _config(change.plan.path, change.config, directory, proof)
        for name, twin in change.twins:
            proof = replace(proof, bytes_compared=proof.bytes_compared + prove_twins(change.root, name, twin))
        if whole:
            proof = replace(proof, bytes_compared=proof.bytes_compared + _others(change, directory))
    except (OSError, EOFError) as error:
        raise ProofError(change.plan.path, f"the new files cannot be read: {error}") from error
    renamed = ((each.old, each.new) for each in change.rewritten if each.old != each.new and each != change.weights)
    return replace(proof, files=(*change.moves, *renamed, *_renamed_weights(change)), converted=_converted(change),
                   removed=tuple(name for name, _ in change.twins))  # fmt: skip


def _renamed_weights(change: Change) -> tuple[tuple[str, str], ...]:
    weights = change.weights
    if weights is None or weights.sources is not None or weights.old == weights.new:
        return ()
    return ((weights.old, weights.new),)


def _converted(change: Change) -> tuple[tuple[str, str], ...]:
    edits = change.weights.edits if change.weights is not None else ()
    return tuple((name, SAFETENSORS_FILE) for edit in edits if isinstance(edit, ConvertWeights) for name in edit.files)


def prove_twins(root: str, name: str, twin: str) -> int:
    """Proves that two weights files hold the same tensors. Raises ProofError; returns the bytes compared."""
    from adapterlint.fixing.conversion import convert  # with all of the reader of torch files

    one, other = (convert(root, ConvertWeights((each,))) for each in (name, twin))
    path = os.path.join(root, name)
    if {tensor: entry[1:3] for tensor, entry in one.header.tensors.items()} != {
        tensor: entry[1:3] for tensor, entry in other.header.tensors.items()
    }:
        raise ProofError(path, f"it does not have the tensors of {twin}")
    compared = 0
    for tensor, entry in one.header.tensors.items():
        size = entry.end - entry.begin
        source = other.sources[tensor]
        assert isinstance(source, Source)  # a safetensors file has no others
        if not _holds(one.sources[tensor], source.file, source.offset, size):
            raise ProofError(path, f"tensor {tensor!r} does not have the bytes that it has in {twin}")
        compared += size
    return compared


def _holds(source: Source | Strided, path: str, offset: int, size: int) -> bool:
    if isinstance(source, Strided):
        return not differs(source, path, offset)
    return payload.equal(path, offset, source.file, source.offset, size)


def _weights(root: str, change: WeightsChange, base: BaseFiles | None, directory: str, proof: Proof) -> Proof:
    old_path, new_path = os.path.join(root, change.old), os.path.join(directory, change.new)
    old, new = change.before, read_header(new_path)
    renamed = {edit.old: edit.new for edit in change.edits if isinstance(edit, RenameTensor)}
    dropped = {edit.name for edit in change.edits if isinstance(edit, DropTensor)}
    copies = {edit.name: edit.base_name for edit in change.edits if isinstance(edit, CopyTensor)}
    zeros = {edit.name: edit for edit in change.edits if isinstance(edit, ZeroTensor)}
    made = {edit.name: edit for edit in change.edits if isinstance(edit, MakeTensor)}
    kept = {name: renamed.get(name, name) for name in old.tensors if name not in dropped}
    _require_clean(old_path, old, new)
    wanted = {new_name: (old.tensors[name].dtype, old.tensors[name].shape) for name, new_name in kept.items()}
    wanted |= {name: (edit.dtype, edit.shape) for name, edit in zeros.items()}
    wanted |= {name: (edit.dtype, edit.shape) for name, edit in made.items()}
    pairs, spread = [], []
    for name, new_name in kept.items():
        source = change.sources[name] if change.sources is not None else Source(old_path, _start(old, name))
        if new_name not in new.tensors:
            continue
        if isinstance(source, Source):
            pairs.append(_Pair(new_name, _start(new, new_name), source.file, source.offset, _size(old, name)))
        else:
            spread.append((new_name, source))
    for name, base_name in copies.items():
        if base is None:
            raise ProofError(old_path, f"tensor {name!r} cannot be compared without the base")
        copied = base.tensors[base_name]
        wanted[name] = (copied.dtype, tuple(copied.shape))
        if name in new.tensors:
            pairs.append(_Pair(name, _start(new, name), base_file(base, copied), copied.offset, copied.nbytes))
    _require_same_structure(old_path, wanted, new)
    compared = _require_equal(new_path, pairs)
    for name, view in spread:
        if differs(view, new_path, _start(new, name)):
            raise ProofError(new_path, f"the elements of tensor {name!r} are not those in {view.file}")
        compared += _size(new, name)
    for name in zeros:
        compared += _require_zero(new_path, name, _start(new, name), _size(new, name))
    values = Values(stored_tensors(old_path, old, change.sources), base_tensors(base))
    for edit in made.values():
        compared += _require_computed(new_path, edit, _start(new, edit.name), values)
    moved = sum(name != new_name for name, new_name in kept.items())
    return replace(proof, untouched=len(kept) - moved, renamed=moved, dropped=len(dropped), copied=len(copies),
                   zeroed=len(zeros), computed=len(made), bytes_compared=proof.bytes_compared + compared)  # fmt: skip


def _start(header: Header, name: str) -> int:
    return header.data_start + header.tensors[name].begin


def _size(header: Header, name: str) -> int:
    entry = header.tensors[name]
    return entry.end - entry.begin


def _require_clean(path: str, old: Header, new: Header) -> None:
    """The new header has no problem; only tensors that lay askew may go on doing so."""
    known = {"misaligned"} & {problem.kind for problem in old.problems}
    for problem in new.problems:
        if problem.kind not in known:
            raise ProofError(path, f"the new file is not sound: {problem.message}")
    if new.metadata != old.metadata:
        raise ProofError(path, "the metadata of the new file are not those of the old one")


def _require_same_structure(path: str, wanted: dict[str, tuple[str, tuple[int, ...]]], new: Header) -> None:
    found = {name: (entry.dtype, entry.shape) for name, entry in new.tensors.items()}
    if found == wanted:
        return
    for name in wanted.keys() | found.keys():
        if wanted.get(name) != found.get(name):
            said = f"is {found.get(name, 'absent')}, and should be {wanted.get(name, 'absent')}"
            raise ProofError(path, f"tensor {name!r} of the new file {said}")


def _require_equal(path: str, tensors: Sequence[_Pair]) -> int:
    """Compares bytes of the new file with those that they should be. Returns how many there were."""

    compared = 0
    for run in _runs(tensors):
        if not _equal(path, run):
            wrong = next((pair for pair in tensors if not _equal(path, pair)), run)
            raise ProofError(path, f"the bytes of tensor {wrong.name!r} are not those in {wrong.file}")
        compared += run.size
    return compared


def _equal(path: str, pair: _Pair) -> bool:
    """Whether the new file has the bytes; two threads look at many."""
    half = pair.size // 2
    if half < SHARED:
        return _all_equal(path, pair)
    rest = pair._replace(new_offset=pair.new_offset + half, offset=pair.offset + half, size=pair.size - half)
    found = []
    with meanwhile(lambda: found.append(_all_equal(path, rest))):
        found.append(_all_equal(path, pair._replace(size=half)))
    return all(found) and len(found) == 2


def _all_equal(path: str, pair: _Pair) -> bool:
    return payload.equal(path, pair.new_offset, pair.file, pair.offset, pair.size)


def _runs(tensors: Iterable[_Pair]) -> list[_Pair]:
    """Tensors that follow one another both here and there joined to one, in the order of the new file."""
    runs: list[_Pair] = []
    for pair in sorted(tensors, key=lambda pair: pair.new_offset):
        last = runs[-1] if runs else None
        if (
            last is not None
            and last.file == pair.file
            and last.new_offset + last.size == pair.new_offset
            and last.offset + last.size == pair.offset
        ):
            runs[-1] = last._replace(size=last.size + pair.size)
        else:
            runs.append(pair)
    return runs


def _require_zero(path: str, name: str, offset: int, size: int) -> int:
    zeros = bytes(min(payload.BLOCK_BYTES, size))
    if not all(zeros.startswith(block) for block in payload.read_blocks(path, offset, size)):
        raise ProofError(path, f"tensor {name!r} should be zero, and is not")
    return size


def _require_computed(path: str, edit: MakeTensor, offset: int, values: Values) -> int:
    """Works the tensor out again. That old and new tensors mean the same, the form that made the edit proves."""
    size = 0
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            for block in values.encoded(edit.term, edit.dtype):
                if file.read(len(block)) != block:
                    raise ProofError(path, f"tensor {edit.name!r} does not hold what was computed")
                size += len(block)
    except TermError as error:
        raise ProofError(path, f"tensor {edit.name!r} cannot be computed again: {error}") from error
    return size


def _config(root: str, change: ConfigChange, directory: str, proof: Proof) -> Proof:
    path = os.path.join(root, change.old)
    with open(os.path.join(directory, change.new), "rb") as file:
        after = file.read()
    if after != change.after:
        raise ProofError(path, "the new file does not hold what was written to it")
    try:
        expected, found = wanted(change.before, change.edits), parse(after)
    except ValueError as error:
        raise ProofError(path, f"the edited config cannot be read again: {error}") from error
    if expected != found:
        raise ProofError(path, "the edited config differs from the old one in more, or less, than the edits")
    changes = (*proof.config_changes, *(describe(edit) for edit in change.edits))
    return replace(proof, config_changes=changes, bytes_compared=proof.bytes_compared + len(after))


def _others(change: Change, directory: str) -> int:
    """Compares every file that the edits leave alone with its copy."""
    names = {**dict(change.moves), **{each.old: each.new for each in change.rewritten}}
    rewritten = {each.new for each in change.rewritten}
    wanted = {names.get(name, name): name for name in _files(change.root) if name not in change.removed}
    fresh = {change.config.new} if change.config is not None and change.config.fresh else set()
    if wanted.keys() | fresh != set(_files(directory)):
        raise ProofError(change.plan.path, "the copy does not have the same files")
    compared = 0
    for new, old in wanted.items():
        old_path, new_path = os.path.join(change.root, old), os.path.join(directory, new)
        if new in rewritten:
            continue
        size = os.path.getsize(old_path)
        if os.path.getsize(new_path) != size or not payload.equal(new_path, 0, old_path, 0, size):
            raise ProofError(old_path, "its copy is not the same")
        compared += size
    return compared


def _files(root: str) -> list[str]:
    """Relative paths of all files that can be read, links followed."""
    found = []
    for directory, subdirectories, names in os.walk(root, followlinks=True):
        subdirectories[:] = [name for name in subdirectories if name != STAGE]
        paths = (os.path.join(directory, name) for name in names)
        found += [os.path.relpath(path, root) for path in paths if os.path.isfile(path)]
    return found
