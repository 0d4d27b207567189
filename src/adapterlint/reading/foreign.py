"""Names of the globals in a pickle that the restricted machine does not follow, for the message only."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from .torchglobals import ALLOWED, modern_name

_MAX_BYTES = 4 << 20
_MAX_OPCODES = 200_000
_GLOBALS = ("GLOBAL", "INST")
_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")


def foreign_globals(data: bytes, start: int) -> list[str]:
    """Globals outside the list that weights_only loading accepts, in the order of the pickle at ``start``.

    Opcodes are only listed, not followed: a name that is put together on the stack in an unusual way can be missed.
    """
    found: list[str] = []
    strings: list[str] = []
    memo: dict[int, str] = {}
    memoized = 0
    try:
        for count, (opcode, argument, _) in enumerate(_opcodes(data, start)):
            if count > _MAX_OPCODES:
                break
            name = opcode.name
            if name in _GLOBALS:
                _note(found, *str(argument).split(" ", 1))
            elif name == "STACK_GLOBAL" and len(strings) >= 2:
                _note(found, strings[-2], strings[-1])
            elif name.startswith("EXT"):
                found.append(f"copyreg extension {argument}")
            elif name in _STRINGS:
                strings = [*strings[-3:], str(argument)[:500]]
            elif name == "MEMOIZE" or name in _PUTS:
                memo[memoized if name == "MEMOIZE" else int(argument)] = strings[-1] if strings else ""
                memoized += 1
            elif name in _GETS:
                strings = [*strings[-3:], memo.get(int(argument), "")]
    # genops raises all sorts of exceptions on broken pickles; what was found until then is what can be told.
    except Exception:
        return found
    return found


def _opcodes(data: bytes, start: int) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    return pickletools.genops(BytesIO(data[start : start + _MAX_BYTES]))


def _note(found: list[str], module: str, name: str = "") -> None:
    path = modern_name(module, name)
    if path not in ALLOWED:
        found.append(path)
