"""Whether a Git checkout keeps a file in Git LFS, by the ``.gitattributes`` files above it.

Patterns follow gitattributes(5): the file nearest to the path decides, in it the last line that matches. Macros other
than a plain ``filter=lfs``, and ``.git/info/attributes``, are not looked at.
"""

from __future__ import annotations

import os
import re

ATTRIBUTES_FILE = ".gitattributes"
_MAX_BYTES = 1 << 20
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')


def tracked_by(directory: str, name: str) -> str | None:
    """The ``.gitattributes`` that puts a file into Git LFS; None if none does, or this is no checkout.

    Never raises: what cannot be read says nothing.
    """
    levels = _levels(directory)
    path = os.path.join(os.path.abspath(directory), name)
    for level in levels:
        file = os.path.join(level, ATTRIBUTES_FILE)
        decided = _filter(_read(file), os.path.relpath(path, level).replace(os.sep, "/"))
        if decided is not None:
            return file if decided == "lfs" else None
    return None


def _levels(directory: str) -> list[str]:
    """The directory and those above it, up to the root of the checkout; empty outside one."""
    levels = [os.path.abspath(directory)]
    while not os.path.lexists(os.path.join(levels[-1], ".git")):
        parent = os.path.dirname(levels[-1])
        if parent == levels[-1]:
            return []
        levels.append(parent)
    return levels


def _read(file: str) -> str:
    try:
        with open(file, "rb") as stream:
            return stream.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _filter(text: str, path: str) -> str | None:
    """The value of ``filter`` that the last matching line gives, empty where it unsets it; None if no line does."""
    for line in reversed(text.splitlines()):
        tokens = _TOKEN.findall(line)
        if len(tokens) < 2 or tokens[0].startswith(("#", "!", "[attr]")):
            continue
        values = [value for value in map(_value, tokens[1:]) if value is not None]
        if values and matches(tokens[0], path):
            return values[-1]
    return None


def _value(attribute: str) -> str | None:
    if attribute.startswith("filter="):
        return attribute.removeprefix("filter=")
    return "" if attribute in ("filter", "-filter", "!filter") else None


def matches(pattern: str, path: str) -> bool:
    """Whether a gitattributes pattern matches a path, relative to the directory of its file, with ``/`` in between."""
    if len(pattern) > 1 and pattern[0] == pattern[-1] == '"':
        pattern = re.sub(r"\\(.)", r"\1", pattern[1:-1])
    if "/" not in pattern:
        return re.fullmatch(_expression(pattern), path.rpartition("/")[2]) is not None
    return re.fullmatch(_expression(pattern.removeprefix("/")), path) is not None


def _expression(pattern: str) -> str:
    """The pattern as a regular expression; one that is broken matches nothing."""
    parts: list[str] = []
    pattern = re.sub(r"\*{3,}", "**", pattern)
    at = 0
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("**/") and (at == 0 or pattern[at - 1] == "/"):
            parts.append("(?:.*/)?")
            at += 3
        elif rest == "**" and pattern[at - 1 : at] == "/":
            parts.append(".+")
            at += 2
        elif rest[0] == "[" and (group := re.match(r"\[([!^]?)(\]?[^\]]*)\]", rest)):
            inner = re.sub(r"([\\\[&~|^])", r"\\\1", group[2])
            parts.append(f"[{'^' if group[1] else ''}{inner}]")
            at += group.end()
        elif rest[0] == "\\" and len(rest) > 1:
            parts.append(re.escape(rest[1]))
            at += 2
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0])))
            at += 1
    expression = "".join(parts)
    try:
        re.compile(expression)
    except re.error:
        return r"(?!)"
    return expression
