"""Targets: what loads adapters, and the releases of it that the tool knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from adapterlint.errors import UserError, nearest
from adapterlint.findings import Effect, holding
from adapterlint.model.bundled import bundled_file
from adapterlint.releases import BESIDE, covers, parts_of, version_key


class TargetError(UserError):
    """A target that no bundled release answers to; the text names the ones that exist."""


class Target(NamedTuple):
    """One release of something that loads adapters.

    Attributes:
        name: ``peft``.
        version: release number.
        evidence: ``measured`` or ``interpolated`` (between measured releases of equal behaviour).
        transformers: the release that it is used with: of its own time, where the target names none.
        named: whether the target names it.
        needs: the releases of transformers that it can be imported with, as bounds; empty for all that are known.
    """

    name: str
    version: str
    evidence: str = "measured"
    transformers: str = ""
    named: bool = False
    needs: str = ""

    def __str__(self) -> str:
        beside = f",{BESIDE}=={self.transformers}" if self.named else ""
        return f"{self.name}=={self.version}{beside}"

    def within(self, targets: str) -> bool:
        """Whether it is in a range such as ``peft>=0.6,<0.14``."""
        return covers(targets, self.name, self.version, self.transformers)

    def holding(self, effects: Iterable[Effect]) -> list[Effect]:
        """The effects, all of one finding, that hold for it."""
        return holding(effects, self.name, self.version, self.transformers, self.named)


@lru_cache(maxsize=1)
def _index() -> dict[str, Any]:
    with open(bundled_file("peft/index.json"), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


@lru_cache(maxsize=1)
def bundled() -> tuple[Target, ...]:
    """Every release the tool knows, oldest first, from the index file ``peft/index.json``."""
    return tuple(
        Target("peft", entry["version"], entry["evidence"], entry[BESIDE], needs=entry.get("with", ""))
        for entry in _index()["releases"]
    )


def beside(releases: Iterable[Target], transformers: str) -> tuple[Target, ...]:
    """The releases that can be imported with a release of transformers, with that in the place of their time's."""
    measured = transformers in _index()[BESIDE]
    return tuple(
        target._replace(transformers=transformers, named=True, evidence=target.evidence if measured else "interpolated")
        for target in releases
        if covers(f"{BESIDE}{target.needs}", BESIDE, transformers)
    )


def alongside(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Every known release, oldest first, with the release of transformers that all of the targets name, if they do."""
    named = {target.transformers if target.named else None for target in targets}
    pin = named.pop() if len(named) == 1 else None
    return bundled() if pin is None else beside(bundled(), pin)


def resolve(texts: tuple[str, ...]) -> tuple[Target, ...]:
    """The releases that target texts stand for, each once; oldest first, and those that name transformers last.

    Args:
        texts: ``peft==0.13.2``, ``peft>=0.6,<0.14`` (every bundled release in the range), ``peft`` (the newest); each
            may go on with a release of transformers, as in ``peft==0.18.1,transformers==5.23``.

    Raises:
        TargetError: unknown name, malformed range, or no bundled release in it.
    """
    known = bundled()
    chosen: dict[str, Target] = {}
    for text in texts or ("peft",):
        for target in _matching(text, known):
            chosen[str(target)] = target
    return tuple(sorted(chosen.values(), key=_order))


def _order(target: Target) -> tuple[Any, ...]:
    return target.named, version_key(target.transformers) if target.named else (), version_key(target.version)


def _matching(text: str, known: tuple[Target, ...]) -> Sequence[Target]:
    bare, pin = parts_of(text.replace(" ", ""))
    found = _releases(bare, text, known)
    if not pin:
        return found
    version = _pinned(pin, text)
    able = beside(found, version)
    if not able:
        needs = found[-1].needs
        raise TargetError(f"{found[-1]} cannot be imported with transformers {version}; it needs transformers{needs}")
    return able


def _releases(bare: str, text: str, known: tuple[Target, ...]) -> Sequence[Target]:
    if bare == "peft":
        return known[-1:]
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


def _pinned(pin: str, text: str) -> str:
    """The release in ``transformers==5.23``."""
    version = pin.removeprefix(f"{BESIDE}==")
    if not re.fullmatch(r"\d+(\.\d+)+", version):
        raise TargetError(f"not a target: {text!r} (one release of transformers, as in peft,transformers==5.23)")
    measured = _index()[BESIDE]
    oldest, newest = version_key(measured[0])[:2], version_key(measured[-1])[:2]
    if not oldest <= version_key(version)[:2] <= newest:
        span = f"{measured[0]} to {measured[-1]}"
        raise TargetError(f"{text!r}: what transformers {version} does is not known; known: {span}")
    return version


def _around(version: str, known: tuple[Target, ...]) -> str:
    """The releases before and after one that is not bundled."""
    key = version_key(version)
    below = [target.version for target in known if version_key(target.version) < key][-1:]
    above = [target.version for target in known if version_key(target.version) > key][:1]
    return f", the nearest: {' and '.join(below + above)}" if key else ""


def _bounded(text: str, known: tuple[Target, ...]) -> list[Target]:
    try:
        return [target for target in known if target.within(text)]
    except ValueError:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet  # only for the unusual: it costs 20 ms

        try:
            specifier = SpecifierSet(text.removeprefix("peft"))
        except InvalidSpecifier as error:
            raise TargetError(f"not a target: {text!r} ({error})") from None
        return [target for target in known if target.version in specifier]


def _range(known: tuple[Target, ...]) -> str:
    return f"{known[0].version} to {known[-1].version}"
