"""A pickle machine that builds descriptions, never objects.

It follows the restricted unpickler of torch 2.13 (``torch/_weights_only_unpickler.py``) opcode by opcode, so that it
refuses what ``torch.load(weights_only=True)`` refuses; exceptions of plain Python (a stack that runs empty, an unknown
memo slot) come out as there. Globals are compared with a list of names and stay names; a call yields a description of
what torch would have built (:mod:`adapterlint.reading.rebuild`). Memory and time are bounded by a budget.

Why not over :func:`pickletools.genops`: it knows opcodes that torch does not, reads some of the others differently at
the end of a file, and fails with exceptions of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from .picklevalues import Allowed, GaveUpError, MoreDataError, Opaque, OrderedDict, RefusedError, dict_key, type_name
from .torchglobals import ALLOWED, modern_name

MAX_OPCODES = 3_000_000
"""Opcodes that are followed: a tensor takes about 30."""
MAX_SPENT = 110_000_000
"""Estimated bytes of memory that one pickle may take."""
MAX_MEMO = 1 << 24
"""Memo slots above this make the unpickler of Python reserve memory for all slots below (8 bytes each, at least)."""
_LONG_STRING = 4096
_SIZED = (tuple, list, dict, set, str, bytes)


class Machine:
    """Follows one pickle.

    Attributes:
        position: where the next opcode is; after :meth:`run`, the byte behind the pickle.
        protocol: as the pickle says; -1 before.
        largest_memo: highest memo slot written to.
        handed: what the code that is not run would have been given, if ``lenient``.
    """

    __slots__ = (
        "_data",
        "_metastack",
        "_partial",
        "_persistent",
        "_reduce",
        "_spent",
        "handed",
        "largest_memo",
        "lenient",
        "memo",
        "position",
        "protocol",
        "stack",
    )

    def __init__(
        self,
        data: bytes,
        position: int = 0,
        *,
        reduce: Callable[[str, Any, bool], Any] | None = None,
        persistent: Callable[[Any], Any] | None = None,
        partial: bool = False,
        lenient: bool = False,
    ) -> None:
        """Prepare to follow the pickle at ``position`` of ``data``.

        Args:
            data: the bytes.
            position: where the pickle starts.
            reduce: what a call of the global of this name with these arguments yields, or, if the third argument is
                true, its ``__new__`` with them.
            persistent: what a persistent id yields.
            partial: whether more bytes follow ``data`` in the file.
            lenient: whether to go on where torch refuses a global; what it builds is then opaque.
        """
        self._data = data
        self.position = position
        self._reduce = reduce or _no_reduce
        self._persistent = persistent or _no_persistent
        self._partial = partial
        self.lenient = lenient
        self.protocol = -1
        self.largest_memo = 0
        self.handed: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self._metastack: list[list[Any]] = []
        self._spent = 0

    def run(self) -> Any:
        """Follow the pickle to its end and return what it describes.

        Raises:
            RefusedError: torch refuses it.
            GaveUpError: it is larger than the budget.
            MoreDataError: it does not end in ``data``, which is the start of a longer file.
            EOFError, IndexError, KeyError, struct.error, TypeError, UnicodeDecodeError: torch raises the same.
        """
        data, size = self._data, len(self._data)
        handlers, costs = _HANDLERS, _COSTS
        for _ in range(MAX_OPCODES):
            position = self.position
            if position >= size:
                raise MoreDataError if self._partial else EOFError
            opcode = data[position]
            self.position = position + 1
            handler = handlers[opcode]
            if handler is None:
                if opcode == _STOP:
                    return self.stack.pop()
                raise self._unsupported(opcode)
            self._spent += costs[opcode]
            if self._spent > MAX_SPENT:
                raise self._too_large()
            handler(self)
        raise GaveUpError("too-many-opcodes", f"the pickle has more than {MAX_OPCODES} opcodes")

    def spend(self, cost: int) -> None:
        """Take ``cost`` bytes from the budget, on top of what the opcode costs."""
        self._spent += cost
        if self._spent > MAX_SPENT:
            raise self._too_large()

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, fewer at the end of the data, as ``file.read`` does."""
        start = self.position
        chunk = self._data[start : start + count]
        if len(chunk) < count and self._partial:
            raise MoreDataError
        self.position = start + len(chunk)
        return chunk

    def line(self) -> bytes:
        """The next line with its end, as ``file.readline`` does."""
        end = self._data.find(b"\n", self.position)
        if end < 0 and self._partial:
            raise MoreDataError
        return self.take((end + 1 if end >= 0 else len(self._data)) - self.position)

    def pop_mark(self) -> list[Any]:
        """Everything above the topmost mark."""
        items = self.stack
        self.stack = self._metastack.pop()
        return items

    def mark(self) -> None:
        """Start a new stack above the present one."""
        self._metastack.append(self.stack)
        self.stack = []

    def call(self, function: Any, arguments: Any, new: bool = False) -> Any:
        """What a call of a global yields, or of its ``__new__``."""
        if not isinstance(function, Allowed):
            raise RefusedError("unsafe-global", f"the pickle calls a value of type {type_name(function)} as a function")
        # Calls may copy their arguments.
        sizes = len(arguments) if isinstance(arguments, _SIZED) else 0
        if type(arguments) in (tuple, list):
            sizes += sum(len(item) for item in arguments if isinstance(item, _SIZED))
        self.spend(200 + 60 * sizes)
        if self.lenient and function.name not in ALLOWED:
            self.handed.append(arguments)
        return self._reduce(function.name, arguments, new)

    def persistent_load(self, identifier: Any) -> Any:
        """What a persistent id stands for; only storages are accepted."""
        if type(identifier) is not tuple and type(identifier) is not int:
            raise RefusedError("bad-persistent-id", f"a persistent id is of type {type_name(identifier)}, not a tuple")
        if type(identifier) is tuple and identifier and _ascii(identifier[0]) != "storage":
            raise RefusedError("bad-persistent-id", "a persistent id asks for something other than a storage")
        self.spend(100)
        return self._persistent(identifier)

    def _unsupported(self, opcode: int) -> RefusedError:
        message = f"the pickle uses opcode {opcode} ({chr(opcode)!r}), which weights_only loading does not know"
        if self.protocol not in (-1, 2):
            message += f": it was saved with pickle protocol {self.protocol}, not 2"
        return RefusedError("unsupported-opcode", message)

    def _too_large(self) -> GaveUpError:
        return GaveUpError("too-large", f"the pickle needs more than {MAX_SPENT // 1_000_000} MB of memory to follow")


def _ascii(value: Any) -> Any:
    return value.decode("ascii") if type(value) is bytes else value


def _no_reduce(name: str, arguments: Any, new: bool) -> Any:
    return Opaque(name)


def _no_persistent(identifier: Any) -> Any:
    raise RefusedError("bad-persistent-id", "a persistent id stands where none can be")


def _global(machine: Machine) -> None:
    module = machine.line()[:-1].decode("utf-8")
    name = machine.line()[:-1].decode("utf-8")
    machine.spend(len(module) + len(name))
    path = modern_name(module, name)
    if path not in ALLOWED and not machine.lenient:
        message = f"the pickle asks for the global `{path[:200]}`, which weights_only loading refuses"
        raise RefusedError("unsafe-global", message)
    machine.stack.append(Allowed(path))


def _newobj(machine: Machine) -> None:
    arguments = machine.stack.pop()
    machine.stack.append(machine.call(machine.stack.pop(), arguments, new=True))


def _reduce(machine: Machine) -> None:
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.call(machine.stack[-1], arguments)


def _build(machine: Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if machine.lenient and isinstance(target, Opaque):
        machine.handed.append(state)
    if type(target) is OrderedDict:
        if not isinstance(state, (dict, list, tuple)):
            raise TypeError(f"'{type_name(state)}' object is not iterable")
    elif target is None or type(target) in (bool, int, float, str, bytes, list, dict, tuple, Allowed):
        raise RefusedError("unsafe-global", f"the pickle sets the state of a value of type {type_name(target)}")


def _append(machine: Machine) -> None:
    item = machine.stack.pop()
    _a_list(machine).append(item)


def _appends(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.spend(9 * len(items))
    _a_list(machine).extend(items)


def _a_list(machine: Machine) -> list[Any]:
    target = machine.stack[-1]
    if machine.lenient and isinstance(target, Opaque):
        items: list[Any] = []
        machine.handed.append(items)
        return items
    if type(target) is not list:
        raise RefusedError("unsupported-opcode", f"the pickle appends to a value of type {type_name(target)}")
    return target


def _setitem(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _a_dict(machine)[dict_key(key)] = value


def _setitems(machine: Machine) -> None:
    items = machine.pop_mark()
    target = _a_dict(machine)
    machine.spend(60 * len(items))
    for index in range(0, len(items), 2):
        target[dict_key(items[index])] = items[index + 1]


def _a_dict(machine: Machine) -> dict[Any, Any]:
    target = machine.stack[-1]
    if machine.lenient and isinstance(target, Opaque):
        entries: dict[Any, Any] = {}
        machine.handed.append(entries)
        return entries
    if not isinstance(target, dict):
        raise RefusedError("unsupported-opcode", f"the pickle sets an item of a value of type {type_name(target)}")
    return target


def _tuple(machine: Machine) -> None:
    items = tuple(machine.pop_mark())
    machine.spend(8 * len(items))
    machine.stack.append(items)


def _tuple1(machine: Machine) -> None:
    machine.stack[-1] = (machine.stack[-1],)


def _tuple2(machine: Machine) -> None:
    stack = machine.stack
    stack[-2:] = [(stack[-2], stack[-1])]


def _tuple3(machine: Machine) -> None:
    stack = machine.stack
    stack[-3:] = [(stack[-3], stack[-2], stack[-1])]


def _unicode(machine: Machine) -> None:
    (length,) = struct.unpack("<I", machine.take(4))
    # A long text may take four bytes a character in memory, whatever it takes here.
    machine.spend(length + 60 if length < _LONG_STRING else 5 * min(length, len(machine._data)))
    machine.stack.append(str(machine.take(length), "utf-8", "surrogatepass"))


def _short_string(machine: Machine) -> None:
    machine.stack.append(machine.take(machine.take(1)[0]).decode("utf-8", "strict"))


def _long(machine: Machine) -> None:
    machine.stack.append(int.from_bytes(machine.take(machine.take(1)[0]), "little", signed=True))


def _binget(machine: Machine) -> None:
    machine.stack.append(machine.memo[machine.take(1)[0]])


def _long_binget(machine: Machine) -> None:
    machine.stack.append(machine.memo[struct.unpack("<I", machine.take(4))[0]])


def _binput(machine: Machine) -> None:
    machine.memo[machine.take(1)[0]] = machine.stack[-1]


def _long_binput(machine: Machine) -> None:
    (slot,) = struct.unpack("<I", machine.take(4))
    if slot > machine.largest_memo:
        machine.largest_memo = slot
    machine.memo[slot] = machine.stack[-1]


def _proto(machine: Machine) -> None:
    machine.protocol = machine.take(1)[0]


def _binpersid(machine: Machine) -> None:
    machine.stack.append(machine.persistent_load(machine.stack.pop()))


_STOP = ord(".")
# Opcode -> handler and the memory that it takes, in bytes, roughly.
_TABLE: dict[str, tuple[Callable[[Machine], None], int]] = {
    "c": (_global, 150),
    "\x81": (_newobj, 100),
    "R": (_reduce, 100),
    "b": (_build, 10),
    "a": (_append, 10),
    "e": (_appends, 10),
    "s": (_setitem, 120),
    "u": (_setitems, 10),
    "(": (Machine.mark, 120),
    "t": (_tuple, 70),
    "\x85": (_tuple1, 80),
    "\x86": (_tuple2, 80),
    "\x87": (_tuple3, 80),
    "N": (lambda machine: machine.stack.append(None), 12),
    "\x89": (lambda machine: machine.stack.append(False), 12),
    "\x88": (lambda machine: machine.stack.append(True), 12),
    ")": (lambda machine: machine.stack.append(()), 12),
    "]": (lambda machine: machine.stack.append([]), 120),
    "}": (lambda machine: machine.stack.append({}), 100),
    "\x8f": (lambda machine: machine.stack.append(set()), 250),
    "J": (lambda machine: machine.stack.append(struct.unpack("<i", machine.take(4))[0]), 45),
    "K": (lambda machine: machine.stack.append(machine.take(1)[0]), 12),
    "M": (lambda machine: machine.stack.append(struct.unpack("<H", machine.take(2))[0]), 45),
    "G": (lambda machine: machine.stack.append(struct.unpack(">d", machine.take(8))[0]), 40),
    "X": (_unicode, 70),
    "U": (_short_string, 400),
    "\x8a": (_long, 100),
    "Q": (_binpersid, 50),
    "h": (_binget, 12),
    "j": (_long_binget, 12),
    "q": (_binput, 20),
    "r": (_long_binput, 130),
    "\x80": (_proto, 5),
}
_HANDLERS: list[Callable[[Machine], None] | None] = [None] * 256
_COSTS = [0] * 256
for _name, (_handler, _cost) in _TABLE.items():
    _HANDLERS[ord(_name)] = _handler
    _COSTS[ord(_name)] = _cost
