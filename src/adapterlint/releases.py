"""Release numbers, and the ranges of them that targets and effects are written in."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

BESIDE = "transformers"
"""What a target may name beside PEFT, and ranges of targets may speak of."""


@lru_cache(maxsize=4096)
def version_key(version: str) -> tuple[int, ...]:
    """Sort key of a release number: ``"0.21.2"`` -> ``(0, 21, 2)``; a suffix such as ``.dev0`` is left out."""
    parts: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


@lru_cache(maxsize=4096)
def covers(targets: str, name: str, version: str, transformers: str = "") -> bool:
    """Whether a range such as ``"peft>=0.6,<0.14"`` holds the release ``version`` of ``name``.

    A range is a name and comma-separated ``>=``, ``<`` or ``==`` bounds; the bare name is every release. Bounds of
    ``transformers`` may follow, as in ``"peft>=0.6,transformers>=5,<5.16"``: then that release must be in them as well.
    """
    own, beside = _split_range(targets)
    if own.name != name or not own.holds(version):
        return False
    return beside is None or (beside.name == BESIDE and bool(transformers) and beside.holds(transformers))


def parts_of(targets: str) -> tuple[str, str]:
    """A range in two: ``"peft<0.6,transformers>=5"`` -> ``("peft<0.6", "transformers>=5")``, or an empty second."""
    own, comma, bounds = targets.partition(f",{BESIDE}")
    return own, f"{BESIDE}{bounds}" if comma else ""


class _Range(NamedTuple):
    name: str
    bounds: tuple[tuple[str, tuple[int, ...]], ...]

    def holds(self, version: str) -> bool:
        key = version_key(version)
        return all(
            key >= bound if operator == ">=" else key < bound if operator == "<" else key == bound
            for operator, bound in self.bounds
        )


@lru_cache(maxsize=4096)
def _split_range(targets: str) -> tuple[_Range, _Range | None]:
    own, beside = parts_of(targets)
    return _range(own, targets), _range(beside, targets) if beside else None


def _range(text: str, targets: str) -> _Range:
    start = next((position for position, char in enumerate(text) if char in "<>=!~"), len(text))
    bounds = []
    for part in text[start:].split(",") if text[start:] else ():
        operator = next((sign for sign in (">=", "==", "<") if part.startswith(sign)), "")
        bound = part[len(operator) :].strip()
        if not operator or not bound.replace(".", "").isdigit():
            raise ValueError(f"not a range that an effect may use: {targets!r}")
        bounds.append((operator, version_key(bound)))
    return _Range(text[:start].strip(), tuple(bounds))
