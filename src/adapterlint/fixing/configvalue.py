"""What a config must say after its edits, worked out on values. The proof compares it with what the file says.

It shares no code with the reader and the editor of :mod:`adapterlint.reading`, so that the two check each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from adapterlint.findings import ConfigEdit, CutText, RecodeText, SetConfig, StripBom

_SUPERFLUOUS = re.compile(r",|//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Members:
    """A JSON object: its members in order, duplicates included."""

    pairs: list[tuple[str, Any]]

    def last(self, key: str) -> int | None:
        """Index of the member that counts."""
        return next((i for i in reversed(range(len(self.pairs))) if self.pairs[i][0] == key), None)


class Number(NamedTuple):
    """A JSON number, so that 1 is not 1.0 and NaN equals itself."""

    text: str


def parse(data: bytes) -> Any:
    """The value of a file, without its byte order mark. Raises ValueError, also for one that is too deep."""
    try:
        return json.loads(
            data.removeprefix(_BOM).decode("utf-8"),
            object_pairs_hook=lambda pairs: Members(list(pairs)),
            parse_int=Number,
            parse_float=lambda text: Number(repr(float(text))),
            parse_constant=lambda text: Number(repr(float(text))),
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def wanted(before: bytes, edits: Iterable[ConfigEdit]) -> Any:
    """The value that a file must have after the edits. Raises ValueError if they do not fit."""
    edits = list(edits)
    text: str | None = None
    for edit in edits:
        if isinstance(edit, RecodeText):
            text = before.decode(edit.encoding).lstrip("\ufeff")
        elif isinstance(edit, CutText):
            text = before.removeprefix(_BOM).decode("utf-8") if text is None else text
            if not _SUPERFLUOUS.fullmatch(text, edit.begin, edit.end):
                raise ValueError(f"{text[edit.begin : edit.end]!r} is neither a comma nor a comment")
            text = text[: edit.begin] + text[edit.end :]
    return expected(parse(before if text is None else text.encode("utf-8")), edits)


def expected(value: Any, edits: Iterable[ConfigEdit]) -> Any:
    """The value after the edits, one after another. Raises ValueError if one does not fit; changes ``value``."""
    for edit in edits:
        if isinstance(edit, StripBom | CutText | RecodeText):
            continue
        if isinstance(edit, SetConfig):
            new = parse(json.dumps(edit.value, allow_nan=False).encode("ascii"))
            if edit.pointer == "":
                value = new
                continue
            _set(*_parent(value, edit.pointer), new)
        else:
            _remove(*_parent(value, edit.pointer), edit.occurrence)
    return value


def describe(edit: ConfigEdit) -> str:
    """The edit in a few words: ``set /r to 8``."""
    if isinstance(edit, StripBom):
        return "strip the byte order mark"
    if isinstance(edit, CutText):
        return f"cut {edit.end - edit.begin} characters at {edit.begin}"
    if isinstance(edit, RecodeText):
        return f"write {edit.encoding} as utf-8"
    if isinstance(edit, SetConfig):
        if not edit.pointer and isinstance(edit.value, dict):
            return f"written anew, with {len(edit.value)} keys"
        return f"set {edit.pointer or 'the document'} to {json.dumps(edit.value)}"
    which = "" if edit.occurrence is None else f" (occurrence {edit.occurrence + 1})"
    return f"remove {edit.pointer}{which}"


def _index(token: str, length: int) -> int | None:
    return int(token) if token.isdecimal() and token == str(int(token)) and int(token) < length else None


def _item(parent: Any, token: str, *, append: bool = False) -> int:
    """Index in an array; with ``append`` also the one behind its end."""
    if not isinstance(parent, list):
        raise ValueError(f"{token!r} has no parent")
    if append and token == "-":
        return len(parent)
    index = _index(token, len(parent) + append)
    if index is None:
        raise ValueError(f"there is no item {token!r}")
    return index


def _parent(value: Any, pointer: str) -> tuple[Any, str]:
    if not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is no pointer to a key")
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
    for token in parents:
        if isinstance(value, Members):
            index = value.last(token)
            value = None if index is None else value.pairs[index][1]
        elif isinstance(value, list):
            index = _index(token, len(value))
            value = None if index is None else value[index]
        else:
            value = None
    return value, last


def _set(parent: Any, token: str, new: Any) -> None:
    if isinstance(parent, Members):
        index = parent.last(token)
        if index is None:
            parent.pairs.append((token, new))
        else:
            parent.pairs[index] = (token, new)
    else:
        index = _item(parent, token, append=True)
        parent[index : index + 1] = [new]


def _remove(parent: Any, token: str, occurrence: int | None) -> None:
    if isinstance(parent, Members):
        found = [i for i, (key, _) in enumerate(parent.pairs) if key == token]
        doomed = found if occurrence is None else found[occurrence : occurrence + 1]
        if not doomed:
            raise ValueError(f"there is no {token!r} to remove")
        parent.pairs[:] = [pair for i, pair in enumerate(parent.pairs) if i not in doomed]
    else:
        del parent[_item(parent, token)]
