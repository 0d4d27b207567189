"""What a torch file holds, and what both containers of ``torch.save`` share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .opcodes import MAX_MEMO, Machine
from .picklevalues import Allowed, RefusedError, Storage, Tensor, type_name
from .problems import Problem
from .torchglobals import STORAGES
from .ziplist import Member

MAX_PICKLE = 32 << 20
"""Bytes of pickle that are read; a tensor takes about 150."""


@dataclass(slots=True)
class TorchFile:
    """What a torch file holds.

    Attributes:
        value: description of the pickled object.
        problems: what is wrong; the first fatal one ended the reading.
        legacy: whether it is no zip archive.
        lenient: whether objects that torch refuses are passed over.
        little_endian: whether numbers are stored little-endian.
        complete: whether the reading came to the end.
        members: zip members that hold storages, by name.
    """

    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    legacy: bool = False
    lenient: bool = False
    little_endian: bool = True
    complete: bool = True
    members: dict[str, Member] = field(default_factory=dict)
    _entries: dict[int, str] = field(default_factory=dict)

    @property
    def fatal(self) -> Problem | None:
        """Why torch raises, if it does."""
        return next((problem for problem in self.problems if problem.fatal), None)

    def place(self, storage: Storage) -> tuple[str, int]:
        """Zip member and offset of a storage, in bytes: in the member, or in the file if there is no member."""
        if not self.legacy:
            return self._entries.get(id(storage), ""), 0
        root = storage.root or storage
        return "", -1 if root.data < 0 else root.data + storage.begin

    def put(self, storage: Storage, member: Member) -> None:
        """Note where a storage is."""
        self._entries[id(storage)] = member.name
        self.members[member.name] = member

    def add(self, kind: str, message: str, detail: str | None = None, fatal: bool = True) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, message, fatal=fatal, detail=detail))


def storage_id(identifier: Any, length: int) -> tuple[Any, ...]:
    if type(identifier) is not tuple:
        detail = f"AssertionError: saved_id must be a tuple, got {type_name(identifier)}"
        raise RefusedError("bad-persistent-id", "a persistent id is no tuple", detail)
    if len(identifier) != length:
        detail = f"ValueError: {'not enough' if len(identifier) < length else 'too many'} values to unpack"
        raise RefusedError("bad-persistent-id", f"a persistent id has {len(identifier)} parts, not {length}", detail)
    return identifier


def storage_dtype(kind: Any, untyped: bool) -> str:
    """torch name of the dtype of a storage class."""
    name = kind.name if isinstance(kind, Allowed) else ""
    if name not in STORAGES or (not untyped and name == "torch.storage.UntypedStorage"):
        detail = "AttributeError"
        raise RefusedError(
            "bad-persistent-id", f"a persistent id names `{name or type_name(kind)}` as a storage", detail
        )
    return STORAGES[name]


def _reaches_tensors(handed: list[Any], value: Any) -> bool:
    """Whether code that is not run would have had the result, or tensors, in its hands."""
    pending, seen = list(handed), set()
    while pending:
        item = pending.pop()
        if item is value or isinstance(item, (Tensor, Storage)):
            return True
        if isinstance(item, (dict, list, tuple, set)) and id(item) not in seen:
            seen.add(id(item))
            pending.extend(item)
            if isinstance(item, dict):
                pending.extend(item.values())
    return False


def follow(machine: Machine, data: bytes, content: TorchFile) -> Any:
    """Follow a pickle; a refusal for an opcode that can hide a global is told by the global."""
    start = machine.position
    try:
        value = machine.run()
    except RefusedError as refusal:
        # A file that is no zip archive may be no pickle at all.
        if refusal.kind == "unsafe-global" or (content.legacy and not data.startswith(b"\x80", start)):
            raise
        from .foreign import foreign_globals  # pickletools is slow to import, and good files do without

        names = foreign_globals(data, start)
        if not names:
            raise
        message = f"the pickle asks for the global `{names[0][:200]}`, which weights_only loading refuses"
        raise RefusedError("unsafe-global", message, refusal.detail) from None
    if _reaches_tensors(machine.handed, value):
        message = "the objects that weights_only loading refuses are given tensors: what becomes of them cannot be told"
        raise RefusedError("undetermined", message)
    if machine.largest_memo >= MAX_MEMO:
        message = f"the pickle writes memo slot {machine.largest_memo}, for which other unpicklers reserve gigabytes"
        content.add("memo-bomb", message, fatal=False)
    return value
