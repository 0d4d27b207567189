"""What keeps a selected finding from being reported: ignores and baseline. Imported only where there are any."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from adapterlint.findings import Finding, Location
from adapterlint.suppress import names_rule

if TYPE_CHECKING:
    from adapterlint.baseline import Baseline, Entry


class Pattern(NamedTuple):
    """A glob over paths, relative to the absolute directory ``root``: ``*`` within a name, ``**`` across names.

    A pattern that matches a directory matches everything below it.
    """

    glob: str
    root: str

    def matches(self, path: str, below: bool = True) -> bool:
        """Whether it matches the path, given relative to the working directory or absolute, or one that it is below."""
        return _path_expression(self.glob, below).fullmatch(relative(path, self.root)) is not None


def relative(path: str, root: str) -> str:
    """The path, given relative to the working directory or absolute, from ``root``, with forward slashes."""
    return _relative(path, root, os.getcwd())


@lru_cache(maxsize=1 << 16)
def _relative(path: str, root: str, directory: str) -> str:
    """The same for any directory; many patterns and findings ask for the same one."""
    return os.path.relpath(os.path.normpath(os.path.join(directory, path)), root).replace(os.sep, "/")


@lru_cache(maxsize=512)
def _path_expression(glob: str, below: bool) -> re.Pattern[str]:
    text = os.path.normpath(glob).replace(os.sep, "/")
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", "**" if text == "." else text)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = "".join(words.get(part, re.escape(part)) for part in parts)
    return re.compile(text + ("(?:/.*)?" if below else ""), re.DOTALL)


@lru_cache(maxsize=512)
def _name_expression(glob: str) -> re.Pattern[str]:
    """A glob over a pointer or a tensor name: ``*`` is any run of characters, everything else but ``?`` itself."""
    words = {"*": ".*", "?": "."}
    return re.compile("".join(words.get(part, re.escape(part)) for part in re.split(r"(\*|\?)", glob)), re.DOTALL)


class PathIgnore(NamedTuple):
    """Rules that are not reported on adapters below a path."""

    pattern: Pattern
    rules: tuple[str, ...]

    def matches(self, finding: Finding) -> bool:
        """Whether the finding is one of them; one about a set only if all its members match."""
        return any(names_rule(item, finding.rule, finding.name) for item in self.rules) and all(
            map(self.pattern.matches, _paths(finding))
        )


def _paths(finding: Finding) -> tuple[str, ...]:
    """The adapters that a finding is about."""
    return finding.adapters or (finding.location.path,)


class Ignore(NamedTuple):
    """An entry that says: this finding is meant to be so, and why.

    Attributes:
        reason: why; required.
        file: the configuration file that holds it, as shown to the user.
        pointer: JSON pointer of the entry in that file.
        rules: selectors; empty for any rule.
        paths: patterns of adapter directories; empty for any.
        key: glob over the JSON pointer that the finding is about.
        tensor: glob over the tensor name that the finding is about.
        until: last day on which it holds, as ``YYYY-MM-DD``.
    """

    reason: str
    file: str
    pointer: str
    rules: tuple[str, ...] = ()
    paths: tuple[Pattern, ...] = ()
    key: str | None = None
    tensor: str | None = None
    until: str | None = None

    def matches(self, finding: Finding) -> bool:
        """Whether the finding is the one, or one of those, that the entry is about."""
        place = finding.location
        return (
            self.about(finding.rule, finding.name)
            and all(map(self.covers, _paths(finding)))
            and (self.key is None or _fits(self.key, place.pointer))
            and (self.tensor is None or _fits(self.tensor, place.tensor))
        )

    def about(self, code: str, name: str) -> bool:
        """Whether it is about a rule."""
        return not self.rules or any(names_rule(item, code, name) for item in self.rules)

    def covers(self, path: str) -> bool:
        """Whether it is about an adapter directory."""
        return not self.paths or any(pattern.matches(path) for pattern in self.paths)

    def describe(self) -> str:
        """What it is about, in a few words."""
        parts = [", ".join(self.rules) or "any rule"]
        parts += [f"at {self.key}"] if self.key is not None else []
        parts += [f"at tensor {self.tensor}"] if self.tensor is not None else []
        parts += [f"in {', '.join(item.glob for item in self.paths)}"] if self.paths else []
        return " ".join(parts)


def _fits(glob: str, text: str | None) -> bool:
    return text is not None and _name_expression(glob).fullmatch(text) is not None


class Suppressions(NamedTuple):
    """Everything that keeps a finding from being reported, other than the selection of rules.

    Attributes:
        path_ignores: rules by path.
        ignores: single findings, with a reason.
        baseline: findings that are known.
        today: the day, as ``YYYY-MM-DD``; entries whose ``until`` is before it hold no longer.
        copies: adapters that are copies -> what they were copied from, which is what paths in entries mean.
    """

    path_ignores: tuple[PathIgnore, ...] = ()
    ignores: tuple[Ignore, ...] = ()
    baseline: Baseline | None = None
    today: str = ""
    copies: Mapping[str, str] = MappingProxyType({})

    def ignored(self, finding: Finding) -> bool:
        """Whether an entry that still holds is about the finding; the baseline is not asked."""
        if self.copies:
            finding = self._in_originals(finding)
        return any(item.matches(finding) for item in self.path_ignores) or any(
            item.matches(finding) for item in self.ignores if not self.expired(item)
        )

    def _in_originals(self, finding: Finding) -> Finding:
        place = finding.location
        return finding._replace(
            location=place._replace(path=self.copies.get(place.path, place.path)),
            adapters=tuple(self.copies.get(path, path) for path in finding.adapters),
        )

    def expired(self, item: Ignore) -> bool:
        """Whether the entry's last day is over."""
        return item.until is not None and item.until < self.today


class Remains(NamedTuple):
    """What of the suppressions does nothing: the subject of the rules about them.

    Attributes:
        expired: ignore entries whose day is over.
        unused: ignore entries that no finding matched although their rules looked.
        stale: lines of the baseline whose finding is gone.
        baseline: the baseline's path.
    """

    expired: tuple[Ignore, ...] = ()
    unused: tuple[Ignore, ...] = ()
    stale: tuple[Entry, ...] = ()
    baseline: str = ""


Looked = Callable[[Ignore], bool]
"""Whether the rules that an entry is about looked at the adapters that it is about, with all that they need."""


def unused(suppressions: Suppressions, raw: Sequence[Finding], looked: Looked) -> tuple[Ignore, ...]:
    """Entries that still hold and matched none of the findings, of any severity and on any target."""
    return tuple(
        item
        for item in suppressions.ignores
        if not suppressions.expired(item) and not any(map(item.matches, raw)) and looked(item)
    )


def place_of(item: Ignore) -> Location:
    """Where an entry stands."""
    return Location(os.path.dirname(item.file), os.path.basename(item.file), pointer=item.pointer)
