"""Edits on the model, so that a plan can be worked out in rounds before any file is written."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from adapterlint.findings import (
    CONFIG_FILE,
    SAFETENSORS_FILE,
    ConvertWeights,
    CopyTensor,
    CutText,
    DropTensor,
    Edit,
    MakeTensor,
    RecodeText,
    RemoveConfig,
    RemoveFile,
    RenameFile,
    RenameTensor,
    RewriteHeader,
    SetConfig,
    StripBom,
    Term,
    ZeroTensor,
)
from adapterlint.fixing import terms
from adapterlint.fixing.strided import Source
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.tensor import Tensor
from adapterlint.reading.jsontree import split_pointer

TENSOR_EDITS = (RenameTensor, DropTensor, CopyTensor, ZeroTensor, MakeTensor)
"""Edits of the weights, which need a safetensors file to be made in."""

_FILE_EDITS = (StripBom, CutText, RecodeText, RenameFile, RewriteHeader)


def ends_planning(edits: Iterable[Edit]) -> bool:
    """Whether the files must be read again after the edits before more can be planned."""
    return any(isinstance(edit, _FILE_EDITS) or _changes_all(edit) for edit in edits)


def _changes_all(edit: Edit) -> bool:
    """Whether the whole config changes, or what is an adapter: weights that are taken out of a folder."""
    if isinstance(edit, ConvertWeights):
        return any("/" in name for name in edit.files)
    return isinstance(edit, SetConfig) and not edit.pointer


def apply_to_model(adapter: Adapter, edits: Iterable[Edit], base: Base | None) -> Adapter:
    """The adapter as it will be after the edits; tensors keep the place of their bytes in the old files."""
    edits = tuple(edits)
    for edit in edits:
        if isinstance(edit, ConvertWeights):
            adapter = _converted(adapter, edit)
        elif isinstance(edit, RemoveFile):
            adapter = _without(adapter, (edit.name,))
    config = copy.deepcopy(dict(adapter.config)) if adapter.config is not None else None
    tensors = dict(adapter.tensors)
    for step in _renames_together(edits):
        if isinstance(step, dict):
            tensors = {step.get(name, name): tensor for name, tensor in tensors.items()}
            continue
        edit = step
        if isinstance(edit, SetConfig) and not edit.pointer:
            config = copy.deepcopy(edit.value)
            if not adapter.has_config:
                adapter = replace(adapter, files={**adapter.files, CONFIG_FILE: 0})
        elif isinstance(edit, (SetConfig, RemoveConfig)):
            if config is not None:
                _edit_config(config, edit)
        elif isinstance(edit, DropTensor):
            tensors.pop(edit.name, None)
        elif isinstance(edit, CopyTensor) and base is not None:
            source = base.stored[edit.base_name]
            tensors[edit.name] = source._replace(
                name=edit.name, file=os.path.abspath(os.path.join(base.path, source.file))
            )
        elif isinstance(edit, ZeroTensor | MakeTensor):
            tensors[edit.name] = Tensor(edit.name, edit.dtype, edit.shape)
    problems = tuple(item for item in adapter.config_problems if item.kind != "duplicate-key" or not _removes(edits))
    return replace(adapter, config=config, config_value=config, tensors=tensors, config_problems=problems)


def _renames_together(edits: Iterable[Edit]) -> Iterator[Edit | dict[str, str]]:
    """The edits, renames that follow each other as one mapping as long as none builds on another."""
    names: dict[str, str] = {}
    seen: set[str] = set()
    for edit in edits:
        if names and not (isinstance(edit, RenameTensor) and {edit.old, edit.new}.isdisjoint(seen)):
            yield names
            names, seen = {}, set()
        if isinstance(edit, RenameTensor):
            names[edit.old] = edit.new
            seen |= {edit.old, edit.new}
        else:
            yield edit
    if names:
        yield names


def _converted(adapter: Adapter, edit: ConvertWeights) -> Adapter:
    """The adapter with its weights in the new file; their bytes are still in the old ones."""
    from adapterlint.fixing.conversion import convert  # with all of the reader of torch files

    header, sources = convert(adapter.path, edit)
    tensors = {}
    for name, entry in header.tensors.items():
        source, size = sources[name], entry.end - entry.begin
        file = os.path.relpath(source.file, adapter.path)
        offset = source.offset if isinstance(source, Source) else -1
        tensors[name] = Tensor(name, entry.dtype, tuple(entry.shape), file, offset, size)
    left = _without(adapter, (*edit.files, *edit.remove))
    return replace(
        left,
        files={**left.files, SAFETENSORS_FILE: sum(tensor.nbytes for tensor in tensors.values())},
        weights_file=SAFETENSORS_FILE,
        tensors=tensors,
        weights_problems=(),
        metadata=header.metadata,
        nested_under=None,
        nested={},
    )


def _without(adapter: Adapter, names: tuple[str, ...]) -> Adapter:
    return replace(
        adapter,
        files={name: size for name, size in adapter.files.items() if name not in names},
        other_tensors={name: found for name, found in adapter.other_tensors.items() if name not in names},
    )


def _removes(edits: Iterable[Edit]) -> bool:
    return any(isinstance(edit, RemoveConfig) for edit in edits)


def _edit_config(config: dict[str, Any], edit: SetConfig | RemoveConfig) -> None:
    *parents, last = split_pointer(edit.pointer)
    node: Any = config
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.get(part)
    if isinstance(edit, SetConfig):
        if isinstance(node, list):
            node[int(last)] = edit.value
        else:
            node[last] = edit.value
    elif edit.occurrence is None:
        node.pop(last, None) if isinstance(node, dict) else node.pop(int(last))


def compose(rounds: Iterable[Iterable[Edit]]) -> tuple[Edit, ...]:
    """Several rounds of edits, each about the state after the one before, as one list about the stored names."""
    origin: dict[str, str] = {}  # name now -> name in the file, for renamed tensors
    dropped: list[str] = []
    added: dict[str, CopyTensor | ZeroTensor | MakeTensor] = {}
    config: list[Edit] = []
    others: dict[Edit, None] = {}
    for edits in rounds:
        before = _Names(dict(origin), dict(added))
        for edit in edits:
            if isinstance(edit, RenameTensor):
                if edit.old in added:
                    added[edit.new] = added.pop(edit.old)._replace(name=edit.new)
                else:
                    origin[edit.new] = origin.pop(edit.old, edit.old)
            elif isinstance(edit, DropTensor):
                if added.pop(edit.name, None) is None:
                    dropped.append(origin.pop(edit.name, edit.name))
            elif isinstance(edit, (CopyTensor, ZeroTensor)):
                added[edit.name] = edit
            elif isinstance(edit, MakeTensor):
                added[edit.name] = edit._replace(term=terms.renamed(edit.term, before.term))
            elif isinstance(edit, (SetConfig, RemoveConfig)):
                config.append(edit)
            else:
                others[edit] = None
    renames = [RenameTensor(old, new) for new, old in origin.items() if old != new]
    drops = [DropTensor(name) for name in dict.fromkeys(dropped)]
    return (*others, *_last_of_each(config), *drops, *renames, *added.values())


class _Names(NamedTuple):
    """What the names between two rounds stand for: names in the file by names now, and tensors that will be added."""

    origin: dict[str, str]
    added: dict[str, CopyTensor | ZeroTensor | MakeTensor]

    def term(self, name: str) -> Term:
        """The tensor of that name, as a term over stored tensors."""
        made = self.added.get(name)
        if made is None:
            return terms.stored(self.origin.get(name, name))
        if isinstance(made, CopyTensor):
            return terms.in_base(made.base_name)
        return terms.zeros(made.shape) if isinstance(made, ZeroTensor) else made.term


def _last_of_each(edits: list[Edit]) -> list[Edit]:
    """Config edits without those that a later one of the same place overrules."""
    kept: dict[object, Edit] = {}
    for edit in edits:
        key: object = edit.pointer if isinstance(edit, SetConfig) else edit
        kept.pop(key, None)
        kept[key] = edit
    return list(kept.values())
