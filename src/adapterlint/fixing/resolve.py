"""From edits to file changes: which files of an adapter become what. Nothing is written here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from adapterlint.findings import (
    CONFIG_FILE,
    SAFETENSORS_FILE,
    ConfigEdit,
    ConvertWeights,
    CopyTensor,
    DropTensor,
    Edit,
    MakeTensor,
    RemoveFile,
    RenameFile,
    RenameTensor,
    SetConfig,
    TensorEdit,
    WeightsEdit,
    ZeroTensor,
)
from adapterlint.fixing.errors import PlanError
from adapterlint.fixing.layout import NewWeights, lay_out
from adapterlint.fixing.records import is_plain_name
from adapterlint.fixing.strided import Source, Strided
from adapterlint.fixing.system import STAGE, writing
from adapterlint.reading.base import BaseFiles
from adapterlint.reading.jsonedit import apply_edits
from adapterlint.reading.safetensors import Header, read_header


@dataclass(frozen=True, slots=True)
class AdapterEdits:
    """What is to be done to one adapter.

    The edits of tensors refer to the names in the file, whatever their order; those of the config are made one after
    another; both mean the file that bears the canonical name in the end, if a file is renamed to it.

    Attributes:
        path: the adapter directory.
        edits: what to change; a repeated tensor edit counts once.
        base: where copied tensors come from; needed only for those.
    """

    path: str
    edits: tuple[Edit, ...]
    base: BaseFiles | None = None


_NO_CONFIG = b'{\n  "peft_type": null\n}\n'

Identities: TypeAlias = dict[str, tuple[int, ...]]
"""Files of a directory by name, with what changes when somebody writes to them."""


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A config file that gets another text.

    Attributes:
        old: its name now.
        new: its name afterwards.
        before: its bytes now; of one that is not there, an object for the edits to replace.
        after: its bytes afterwards.
        edits: what makes the one of the other.
        fresh: whether there is no such file now.
    """

    old: str
    new: str
    before: bytes
    after: bytes
    edits: tuple[ConfigEdit, ...]
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class WeightsChange:
    """A safetensors file that gets another header, or other tensors, or that is made from files of another format.

    Attributes:
        old: its name now.
        new: its name afterwards.
        before: its header now.
        after: the file that it becomes.
        edits: what makes the one of the other.
        sources: where the old tensors are, if ``before`` is not the header of a file.
    """

    old: str
    new: str
    before: Header
    after: NewWeights
    edits: tuple[WeightsEdit, ...]
    sources: Mapping[str, Source | Strided] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to the files of one adapter.

    Attributes:
        plan: the edits.
        root: the adapter directory, a real path.
        name: the adapter's name, which is that of the directory as given.
        config: its new config; None if it stays.
        weights: its new weights; None if they stay.
        moves: files that only get another name: old and new one.
        removed: files that go, beside those that get another name.
        twins: those of them whose tensors another file holds too, with that file.
        seen: what the files of the directory were when they were read.
    """

    plan: AdapterEdits
    root: str
    name: str
    config: ConfigChange | None
    weights: WeightsChange | None
    moves: tuple[tuple[str, str], ...]
    removed: tuple[str, ...]
    twins: tuple[tuple[str, str], ...]
    seen: Identities

    @property
    def rewritten(self) -> list[ConfigChange | WeightsChange]:
        """The files that get other bytes."""
        return [change for change in (self.weights, self.config) if change is not None]

    @property
    def empty(self) -> bool:
        """Whether every file is as the edits want it already."""
        return not self.rewritten and not self.moves and not self.removed


def resolve(plan: AdapterEdits) -> Change:
    """Works out what the edits make of an adapter's files. Raises PlanError if they do not fit."""
    root = os.path.realpath(plan.path)
    if not os.path.isdir(root):
        raise PlanError(plan.path, "there is no such directory")
    name = os.path.basename(os.path.abspath(plan.path)) or "adapter"
    seen = identities(root)
    renames = _renames(plan)
    config = _config(plan, renames)
    conversion = next((edit for edit in plan.edits if isinstance(edit, ConvertWeights)), None)
    weights = _weights(plan, renames) if conversion is None else _converted(plan, conversion)
    twins = tuple((edit.name, edit.twin) for edit in plan.edits if isinstance(edit, RemoveFile))
    removed = [name for name, _ in twins]
    if conversion is not None:
        removed += [name for name in (*conversion.files[1:], *conversion.remove) if name != SAFETENSORS_FILE]
    _require_files(plan, (*removed, *(twin for _, twin in twins)))
    rewritten = {change.old for change in (config, weights) if change is not None}
    moves = tuple((old, new) for old, new in renames.items() if old not in rewritten)
    return Change(plan, root, name, config, weights, moves, tuple(removed), twins, seen)


def _require_files(plan: AdapterEdits, names: Iterable[str]) -> None:
    for name in names:
        if not is_plain_name(name):
            raise PlanError(plan.path, f"{name!r} is not the name of a file in the directory")
        if not os.path.isfile(os.path.join(plan.path, name)):
            raise PlanError(os.path.join(plan.path, name), "there is no such file")


def identities(root: str) -> Identities:
    """What :attr:`Change.seen` holds, as it is now. Raises WriteError if the directory cannot be read."""
    found: Identities = {}
    with writing(root):
        for name in os.listdir(root):
            path = os.path.join(root, name)
            if name != STAGE and os.path.isfile(path):
                status = os.stat(path)
                found[name] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def _renames(plan: AdapterEdits) -> dict[str, str]:
    renames: dict[str, str] = {}
    for edit in dict.fromkeys(edit for edit in plan.edits if isinstance(edit, RenameFile)):
        path = os.path.join(plan.path, edit.old)
        for name in (edit.old, edit.new):
            if not is_plain_name(name):
                raise PlanError(plan.path, f"{name!r} is not the name of a file in the directory")
        if edit.old in renames:
            raise PlanError(path, f"two new names for the file: {renames[edit.old]!r} and {edit.new!r}")
        if not os.path.isfile(path):
            raise PlanError(path, "there is no such file to rename")
        if edit.new in renames.values() or os.path.lexists(os.path.join(plan.path, edit.new)):
            raise PlanError(path, f"it cannot be renamed to {edit.new!r}, which exists")
        renames[edit.old] = edit.new
    return renames


def _source(plan: AdapterEdits, renames: dict[str, str], final: str) -> str:
    """The name that a file has now."""
    for old, new in renames.items():
        if new == final:
            return old
    path = os.path.join(plan.path, final)
    if final in renames or not os.path.isfile(path):
        raise PlanError(path, "there is no such file to edit")
    return final


def _config(plan: AdapterEdits, renames: dict[str, str]) -> ConfigChange | None:
    edits = tuple(edit for edit in plan.edits if isinstance(edit, ConfigEdit))
    if not edits:
        return None
    if isinstance(edits[0], SetConfig) and not edits[0].pointer and CONFIG_FILE not in os.listdir(plan.path):
        return ConfigChange(CONFIG_FILE, CONFIG_FILE, _NO_CONFIG, apply_edits(_NO_CONFIG, edits), edits, fresh=True)
    old = _source(plan, renames, CONFIG_FILE)
    path = os.path.join(plan.path, old)
    try:
        with open(path, "rb") as file:
            before = file.read()
        after = apply_edits(before, edits)
    except OSError as error:
        raise PlanError(path, f"the file cannot be read: {error.strerror}") from error
    except ValueError as error:  # EditError among them
        raise PlanError(path, str(error)) from error
    return None if after == before else ConfigChange(old, CONFIG_FILE, before, after, edits)


def _weights(plan: AdapterEdits, renames: dict[str, str]) -> WeightsChange | None:
    edits = tuple(dict.fromkeys(edit for edit in plan.edits if isinstance(edit, TensorEdit)))
    if not edits:
        return None
    old = _source(plan, renames, SAFETENSORS_FILE)
    path = os.path.join(plan.path, old)
    before = read_header(path)
    after = lay_out(path, before, edits, plan.base)
    return None if _same(path, before, after) else WeightsChange(old, SAFETENSORS_FILE, before, after, edits)


def _converted(plan: AdapterEdits, conversion: ConvertWeights) -> WeightsChange:
    """The weights made from files in another format; a file of their name that is there already must be one of them."""
    from adapterlint.fixing.conversion import convert  # with all of the reader of torch files

    found = convert(plan.path, conversion)
    if SAFETENSORS_FILE not in conversion.files and os.path.lexists(os.path.join(plan.path, SAFETENSORS_FILE)):
        raise PlanError(os.path.join(plan.path, SAFETENSORS_FILE), "it exists, and would be overwritten")
    kinds = RenameTensor | DropTensor | CopyTensor | ZeroTensor | MakeTensor
    edits = tuple(dict.fromkeys(edit for edit in plan.edits if isinstance(edit, kinds)))
    old = conversion.files[0]
    after = lay_out(os.path.join(plan.path, old), found.header, edits, plan.base, found.sources)
    return WeightsChange(old, SAFETENSORS_FILE, found.header, after, (conversion, *edits), found.sources)


def _same(path: str, before: Header, after: NewWeights) -> bool:
    """Whether the file has these very bytes already."""
    moved = any(
        tensor.source is None or tensor.source != (path, before.data_start + tensor.begin) for tensor in after.tensors
    )
    return not moved and after.size == before.file_bytes and after.header[8:] == before.raw
