"""What is too much in a text that would be JSON without it: commas before a closing bracket, and comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from adapterlint.findings import CutText, RecodeText

_COMMENT = r"//[^\r\n]*|/\*(?:[^*]|\*(?!/))*\*/"
_SPACE = rf"(?:\s|{_COMMENT})*"
_TOKEN = re.compile(rf'"(?:[^"\\]|\\.)*"|(?P<comment>{_COMMENT})|(?P<comma>,)(?={_SPACE}[}}\]])', re.DOTALL)
_ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be")


def cuts(text: str) -> tuple[CutText, ...]:
    """Edits, the last place first, after which the text is a JSON object; empty if cutting does not make it one."""
    if len(text) > 1 << 20:
        return ()  # no config of anybody's
    spans = list(_superfluous(text))
    rest, at = [], 0
    for begin, end in spans:
        rest.append(text[at:begin])
        at = end
    if not spans or not _is_object("".join(rest) + text[at:]):
        return ()
    return tuple(CutText(begin, end) for begin, end in reversed(spans))


def recoding(data: bytes) -> tuple[RecodeText, ...]:
    """The edit that makes UTF-8 of a JSON object in UTF-16; empty if the bytes are something else."""
    for encoding in _ENCODINGS:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _is_object(text):
            return (RecodeText(encoding),)
    return ()


def _superfluous(text: str) -> Iterator[tuple[int, int]]:
    for found in _TOKEN.finditer(text):
        if found.lastgroup is not None:
            yield found.span()


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
