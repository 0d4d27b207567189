"""The baseline: a text file of findings that are known, so that only new ones are reported.

A line is a fingerprint, which outlives edits that move things: paths are relative to the file's own directory, and
there are no line numbers. Lines are sorted, so that two branches that change it merge.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from adapterlint.errors import UserError
from adapterlint.findings import Finding
from adapterlint.ignores import relative
from adapterlint.writing import replace_file

HEADER = (
    "# adapterlint baseline, version 1: path, rule, place, outcome, set. Written by `adapterlint baseline --write`."
)
NO_EFFECT = "hygiene"
_ESCAPED = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", ",": "\\,"}
_UNESCAPED = {escape: char for char, escape in _ESCAPED.items()}


class BaselineError(UserError):
    """A baseline that cannot be read; the text names file, line and cause."""


class Fingerprint(NamedTuple):
    """What makes a finding the same finding tomorrow.

    Attributes:
        path: the file or directory, relative to the baseline's directory, with forward slashes.
        rule: code.
        place: JSON pointer, ``#`` and a tensor name, or empty.
        kind: the worst outcome that the finding claims of any target, or ``hygiene``.
        members: the adapters of the set, relative paths in loading order; empty for a finding about one adapter.
    """

    path: str
    rule: str
    place: str
    kind: str
    members: tuple[str, ...] = ()

    def line(self) -> str:
        """The line that stands for it."""
        fields = [self.path, self.rule, self.place, self.kind]
        members = ",".join(map(_escape, self.members))
        return "\t".join([*map(_escape, fields), *([members] if members else [])])


def _escape(text: str) -> str:
    return re.sub(r"[\\\t\n\r,]", lambda found: _ESCAPED[found[0]], text)


def _unescape(text: str) -> str:
    return re.sub(r"\\.", lambda found: _UNESCAPED.get(found[0], found[0]), text)


def fingerprint(finding: Finding, root: str) -> Fingerprint:
    """The fingerprint of a finding; paths become relative to the absolute directory ``root``."""
    location = finding.location
    place = f"#{location.tensor}" if location.tensor is not None else location.pointer or ""
    worst = max((effect.outcome for effect in finding.effects), key=lambda outcome: outcome.rank, default=None)
    return Fingerprint(
        path=relative(os.path.join(location.path, location.file), root),
        rule=finding.rule,
        place=place,
        kind=worst.value if worst else NO_EFFECT,
        members=tuple(relative(path, root) for path in finding.adapters),
    )


class Entry(NamedTuple):
    """A line of a baseline file and where it begins, in code points; entries that repeat are one each."""

    fingerprint: Fingerprint
    offset: int


class Baseline(NamedTuple):
    """A baseline file.

    Attributes:
        path: the file, as shown to the user.
        entries: its lines, in the order of the file.
    """

    path: str
    entries: tuple[Entry, ...]

    @property
    def root(self) -> str:
        """The absolute directory that paths in it are relative to."""
        return os.path.dirname(os.path.abspath(self.path))

    @property
    def counts(self) -> Counter[Fingerprint]:
        """How often each fingerprint stands in it."""
        return Counter(entry.fingerprint for entry in self.entries)


def read(path: str) -> Baseline:
    """Read a baseline file.

    Raises:
        BaselineError: it is not there, not text, or a line of it is not a fingerprint.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
    except OSError as error:
        hint = "; `adapterlint baseline --write` makes it" if isinstance(error, FileNotFoundError) else ""
        raise BaselineError(f"{path}: cannot read the baseline: {error.strerror}{hint}") from None
    entries, offset = [], 0
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.rstrip("\r")
        if line and not line.startswith("#"):
            entries.append(Entry(_parse(path, number, line), offset))
        offset += len(raw) + 1
    return Baseline(path, tuple(entries))


def _parse(path: str, number: int, line: str) -> Fingerprint:
    fields = line.split("\t")
    if len(fields) not in (4, 5) or not all((fields[0], fields[1], fields[3])):
        likely = " (a merge conflict?)" if line.startswith(("<<<<<<<", "=======", ">>>>>>>", "|||||||")) else ""
        raise BaselineError(
            f"{path}:{number}: not a line of a baseline{likely}: path, rule, place and outcome, by tabs"
        )
    members = re.findall(r"(?:\\.|[^\\,])+", fields[4]) if len(fields) == 5 else []
    first = [_unescape(item) for item in fields[:4]]
    return Fingerprint(first[0], first[1], first[2], first[3], tuple(_unescape(item) for item in members))


def render(counts: Mapping[Fingerprint, int]) -> str:
    """The text of a baseline file."""
    lines = sorted(item.line() for item, count in counts.items() for _ in range(count))
    return "\n".join([HEADER, *lines, ""])


def write(path: str, counts: Mapping[Fingerprint, int]) -> None:
    """Write a baseline file: whole, or not at all.

    Raises:
        BaselineError: the directory does not exist or cannot be written.
    """
    try:
        replace_file(path, render(counts).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise BaselineError(f"{path}: cannot write the baseline: {error.strerror}") from None


def known(findings: Iterable[Finding], baseline: Baseline) -> list[bool]:
    """For every finding, whether the baseline holds it; one line stands for one finding."""
    left = baseline.counts
    found = []
    for finding in findings:
        item = fingerprint(finding, baseline.root)
        found.append(left[item] > 0)
        left[item] -= 1
    return found
