"""Targets: what loads adapters, and the releases of it that the tool knows."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import NamedTuple

from adapterlint.errors import UserError, nearest
from adapterlint.findings import covers, version_key
from adapterlint.model.bundled import bundled_file


class TargetError(UserError):
    """A target that no bundled release answers to; the text names the ones that exist."""


class Target(NamedTuple):
    """One release of something that loads adapters.

    Attributes:
        name: ``peft``.
        version: release number.
        evidence: ``measured`` or ``interpolated`` (between measured releases of equal behaviour).
    """

    name: str
    version: str
    evidence: str = "measured"

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@lru_cache(maxsize=1)
def bundled() -> tuple[Target, ...]:
    """Every release the tool knows, oldest first, from the index file ``peft/index.json``."""
    with open(bundled_file("peft/index.json"), encoding="utf-8") as file:
        index = json.load(file)
    return tuple(Target("peft", entry["version"], entry["evidence"]) for entry in index["releases"])


def resolve(texts: tuple[str, ...]) -> tuple[Target, ...]:
    """The releases that target texts stand for, oldest first, each once.

    Args:
        texts: ``peft==0.13.2``, ``peft>=0.6,<0.14`` (every bundled release in the range), ``peft`` (the newest).

    Raises:
        TargetError: unknown name, malformed range, or no bundled release in it.
    """
    known = bundled()
    chosen: dict[str, Target] = {}
    for text in texts or ("peft",):
        for target in _matching(text, known):
            chosen[str(target)] = target
    return tuple(sorted(chosen.values(), key=lambda target: version_key(target.version)))


def _matching(text: str, known: tuple[Target, ...]) -> list[Target]:
    bare = text.replace(" ", "")
    if bare == "peft":
        return [known[-1]]
    head = bare.rstrip("0123456789.,<>=!~*")
    if head != "peft":
        hint = nearest(head, ["peft"])
        raise TargetError(f"unknown target {text!r}: this release knows peft only ({_range(known)}){hint}")
    found = _bounded(bare, known)
    if not found:
        versions = [target.version for target in known]
        hint = _around(bare.removeprefix("peft=="), known) if bare.startswith("peft==") else ""
        raise TargetError(f"no bundled release matches {text!r}{hint}; bundled: {', '.join(versions)}")
    return found


def _around(version: str, known: tuple[Target, ...]) -> str:
    """The releases before and after one that is not bundled."""
    key = version_key(version)
    below = [target.version for target in known if version_key(target.version) < key][-1:]
    above = [target.version for target in known if version_key(target.version) > key][:1]
    return f", the nearest: {' and '.join(below + above)}" if key else ""


def _bounded(text: str, known: tuple[Target, ...]) -> list[Target]:
    try:
        return [target for target in known if covers(text, target.name, target.version)]
    except ValueError:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet  # only for the unusual: it costs 20 ms

        try:
            specifier = SpecifierSet(text.removeprefix("peft"))
        except InvalidSpecifier as error:
            raise TargetError(f"not a target: {text!r} ({error})") from None
        return [target for target in known if target.version in specifier]


def _range(known: tuple[Target, ...]) -> str:
    return f"{known[0].version} to {known[-1].version}"
