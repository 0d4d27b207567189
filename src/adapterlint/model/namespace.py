"""Modules that the base has under another path: which of its own each of the adapter's can only be."""

from __future__ import annotations

import re

from adapterlint.model.base import Base
from adapterlint.model.keys import PREFIX, Key, Kind
from adapterlint.model.subject import Subject

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def counterparts(subject: Subject) -> dict[str, str] | None:
    """A new name for every tensor of an adapter whose modules the base has under other paths.

    A series (a path with its numbers left out) goes to the base's only series with the same last name whose modules
    take and give as many features, with the same numbers. None if one of them has no such series, or several.
    """
    base = subject.base
    modules = subject.adapter.modules
    if base is None or not modules:
        return None
    found: dict[str, str] = {}
    for series in dict.fromkeys(map(_series, modules)):
        members = [module for module in modules if _series(module) == series]
        fitting = [
            candidate
            for candidate in dict.fromkeys(map(_series, base.modules))
            if _leaf(candidate) == _leaf(series)
            and candidate.count("#") == series.count("#")
            and all(_fits(subject, base, member, _numbered(candidate, member)) for member in members)
        ]
        if len(fitting) != 1:
            return None
        found |= {member: _numbered(fitting[0], member) for member in members}
    if len(set(found.values())) < len(found):
        return None
    return _names(subject, base, found)


def _names(subject: Subject, base: Base, modules: dict[str, str]) -> dict[str, str] | None:
    """New names of all tensors; saved modules move as the prefixes of the others do."""
    moves = {_prefixes(old, new) for old, new in modules.items()}
    renamed = {}
    for key in subject.adapter.keys:
        if key.module in modules:
            renamed[key.name] = f"{PREFIX}{modules[key.module]}.{key.canonical_suffix}"
        elif key.kind is Kind.FULL and key.full_name not in base.parameters:
            renamed[key.name] = _moved(key, base, moves) or key.name
    names = [renamed.get(name, name) for name in subject.adapter.tensors]
    return renamed if len(set(names)) == len(names) else None


def _moved(key: Key, base: Base, moves: set[tuple[str, str]]) -> str | None:
    options = {
        new + key.full_name[len(old) :]
        for old, new in moves
        if key.full_name.startswith(old) and new + key.full_name[len(old) :] in base.parameters
    }
    return PREFIX + options.pop() if len(options) == 1 else None


def _prefixes(old: str, new: str) -> tuple[str, str]:
    """What is left of two paths in front of the components that both end with, dots included."""
    left, right = old.split("."), new.split(".")
    while left and right and left[-1] == right[-1]:
        left.pop()
        right.pop()
    return ("".join(part + "." for part in left), "".join(part + "." for part in right))


def _fits(subject: Subject, base: Base, module: str, candidate: str) -> bool:
    entry = subject.adapter.modules[module]
    if entry.a is None or entry.b is None or entry.a.kind is not Kind.LORA_A:
        return False
    a, b = subject.adapter.shape(entry.a), subject.adapter.shape(entry.b)
    return len(a) == 2 and len(b) == 2 and (a[1], b[0]) == base.features(candidate)


def _series(module: str) -> str:
    return _NUMBER.sub("#", module)


def _numbered(series: str, like: str) -> str:
    """The module of a series that has the numbers of another one."""
    for number in _NUMBER.findall(like):
        series = series.replace("#", number, 1)
    return series


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]
