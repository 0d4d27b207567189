"""Predicted and measured outcomes: how they are kept, and when they agree. Needs no PEFT."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cases import Fixture

from adapterlint.model.target import bundled
from adapterlint.run import Request, check

RELEASES = ("0.8.2", "0.11.1", "0.14.0", "0.17.1", "0.19.1", "0.21.2", "0.21.2,transformers==5.23.0")
"""What stands behind ``peft==`` in a target."""
MEASURED = Path(__file__).parent / "measured"
_START = 40  # characters of an exception's text that have to agree


class Cell(NamedTuple):
    """What a release does.

    Attributes:
        outcome: ``loads``, ``raises``, ``wrong``, ``inert`` (wrong, and the base answers alone) or ``undefined`` (no
            exception, but nobody can say what would be right).
        exception: for ``raises``: type and text.
    """

    outcome: str
    exception: str = ""


def predictions(fixture: Fixture, paths: Sequence[Path], base: Path, releases: Sequence[str]) -> dict[str, Cell]:
    """What adapterlint says, release by release."""
    targets = [f"peft=={release}" for release in releases]
    grouping: Any = "one" if fixture.together else "none"
    report = check(Request([str(path) for path in paths], targets, str(base), grouping))
    if report.internal_errors:
        raise AssertionError(f"{fixture.name}: {report.internal_errors}")
    verdicts: Mapping[str, Any] = (report.sets[0] if fixture.together else report.adapters[0]).verdicts
    found = {}
    for release, target in zip(releases, targets, strict=True):
        verdict = verdicts[target]
        outcome = "inert" if verdict.inert else verdict.outcome.value
        found[release] = Cell(outcome, plain(verdict.exception or "", paths[0].parent))
    return found


def plain(exception: str, root: Path) -> str:
    """The text of an exception without what nobody can foretell: the folder, the order of names in a set, and how
    transformers describes a module, in whose place adapterlint says its name.
    """
    flat = " ".join(exception.replace(f"{root}/", "").split())
    flat = re.sub(r"Target module .*? is not supported", "Target module <module> is not supported", flat)
    return re.sub(r"\{('[^{}]*')\}", lambda found: f"{{{', '.join(sorted(found[1].split(', ')))}}}", flat)[:160]


def agrees(said: Cell, found: Cell) -> bool:
    """Whether the outcome class is the same, and for an exception its type and the start of its text."""
    wrong = ("wrong", "inert")
    if found.outcome == "undefined":
        return said.outcome != "raises"
    if said.outcome != found.outcome:
        return said.outcome in wrong and found.outcome in wrong
    if said.outcome != "raises":
        return True
    said_type, _, said_text = said.exception.partition(":")
    found_type, _, found_text = found.exception.partition(":")
    length = min(_START, len(said_text), len(found_text))
    return said_type == found_type and said_text[:length] == found_text[:length]


def write(release: str, stack: Mapping[str, str], cells: Mapping[str, tuple[str, Cell]]) -> None:
    """Keep what was measured, a line a fixture: digest, outcome, exception."""
    lines = [
        f"  {json.dumps(name)}: {json.dumps([digest, *(part for part in cell if part)])}"
        for name, (digest, cell) in sorted(cells.items())
    ]
    text = f'{{\n "stack": {json.dumps(dict(stack))},\n "fixtures": {{\n' + ",\n".join(lines) + "\n }\n}\n"
    MEASURED.mkdir(exist_ok=True)
    _record(release).write_text(text, encoding="utf-8")


def title(release: str) -> str:
    """A release in words."""
    return release.replace(",transformers==", " with transformers ")


def installed(peft: str, transformers: str) -> str:
    """The release that two versions are: transformers is named where it is not that of PEFT's time."""
    usual = next((target.transformers for target in bundled() if target.version == peft), transformers)
    return peft if transformers == usual else f"{peft},transformers=={transformers}"


def _record(release: str) -> Path:
    return MEASURED / f"{release.replace(',transformers==', '+')}.json"


def read(release: str) -> dict[str, tuple[str, Cell]]:
    """The record of one release: fixture -> (digest, cell)."""
    path = _record(release)
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"fixtures": {}}
    return {name: (digest, Cell(*rest)) for name, (digest, *rest) in content["fixtures"].items()}


def stack(release: str) -> dict[str, str]:
    """The libraries with which a release was measured."""
    found: dict[str, str] = json.loads(_record(release).read_text(encoding="utf-8"))["stack"]
    return found
