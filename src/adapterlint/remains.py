"""Applies ignores and baseline to the findings of a run, and tells which of them do nothing any more."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from adapterlint.baseline import Baseline, Entry, fingerprint, known
from adapterlint.findings import Finding
from adapterlint.ignores import Ignore, Remains, Suppressions, unused
from adapterlint.rules.base import SetRule
from adapterlint.rules.registry import AnyRule, all_rules, run_rules


class Scope(NamedTuple):
    """What a run looked at; without it an entry that did nothing cannot be told from one that was not needed.

    Attributes:
        paths: as given.
        adapters: directories of the adapters.
        sets: member directories of every set.
        skipped: (rule code, adapter directory) where a rule lacked an input.
        grouped: whether sets were looked for.
    """

    paths: Sequence[str]
    adapters: Sequence[str]
    sets: Sequence[tuple[str, ...]]
    skipped: frozenset[tuple[str, str]]
    grouped: bool


def reported(findings: Sequence[Finding], suppressions: Suppressions) -> list[Finding]:
    """The findings without those that an entry or the baseline is about."""
    left = [finding for finding in findings if not suppressions.ignored(finding)]
    if suppressions.baseline is None:
        return left
    old = known(left, suppressions.baseline)
    return [finding for finding, is_old in zip(left, old, strict=True) if not is_old]


def findings_about(suppressions: Suppressions, raw: Sequence[Finding], scope: Scope) -> list[Finding]:
    """What the rules about ignores and baseline have to say.

    Args:
        suppressions: ignores and baseline.
        raw: all findings of the run, whatever their severity.
        scope: what the run looked at.
    """
    subject = remains(suppressions, raw, scope)
    return [finding for rule in run_rules() for finding in rule.check(subject)] if any(subject[:3]) else []


def remains(suppressions: Suppressions, raw: Sequence[Finding], scope: Scope) -> Remains:
    """The entries that do nothing."""
    rules = all_rules()

    def looked(item: Ignore) -> bool:
        return _looked(item, rules, scope)

    baseline = suppressions.baseline
    return Remains(
        expired=tuple(item for item in suppressions.ignores if suppressions.expired(item)),
        unused=unused(suppressions, raw, looked),
        stale=tuple(stale(baseline, raw, scope)) if baseline else (),
        baseline=baseline.path if baseline else "",
    )


def _looked(item: Ignore, rules: Sequence[AnyRule], scope: Scope) -> bool:
    about = [rule for rule in rules if item.about(rule.code, rule.name)]
    paths = [path for path in scope.adapters if item.covers(path)]
    for rule in about:
        if isinstance(rule, SetRule) and item.rules:
            if not any(_set_looked(item, rule.code, members, scope) for members in scope.sets):
                return False
        elif any((rule.code, path) in scope.skipped for path in paths):
            return False
    return bool(paths)


def _set_looked(item: Ignore, code: str, members: Sequence[str], scope: Scope) -> bool:
    return all(item.covers(path) and (code, path) not in scope.skipped for path in members)


def stale(baseline: Baseline, raw: Sequence[Finding], scope: Scope) -> Iterator[Entry]:
    """Lines of the baseline that stand for nothing any more, as far as the run looked."""
    left = Counter(fingerprint(finding, baseline.root) for finding in raw)
    judge = _Judge(baseline.root, scope)
    for entry in baseline.entries:
        if left[entry.fingerprint] > 0:
            left[entry.fingerprint] -= 1
        elif judge.looked(entry):
            yield entry


class _Judge:
    """Whether a run looked where a line of the baseline points to."""

    def __init__(self, root: str, scope: Scope) -> None:
        self._root = root
        self._tops = [_absolute(path) for path in scope.paths]
        self._adapters = {_absolute(path) for path in scope.adapters}
        self._sets = {frozenset(map(_absolute, members)) for members in scope.sets}
        self._skipped = {(rule, _absolute(path)) for rule, path in scope.skipped}
        self._grouped = scope.grouped

    def looked(self, entry: Entry) -> bool:
        """Whether the finding would have been found, if it were there still."""
        item = entry.fingerprint
        if item.members:
            return self._set_looked(item.rule, frozenset(self._place(path) for path in item.members))
        path = self._place(item.path)
        owner = path if path in self._adapters else os.path.dirname(path)
        if owner in self._adapters:
            return (item.rule, owner) not in self._skipped
        return self._below(path)

    def _set_looked(self, rule: str, members: frozenset[str]) -> bool:
        if any((rule, path) in self._skipped for path in members):
            return False
        if members in self._sets:
            return True
        if not all(path in self._adapters or self._below(path) for path in members):
            return False
        return self._grouped

    def _below(self, path: str) -> bool:
        return any(path == top or path.startswith(top + os.sep) for top in self._tops)

    def _place(self, path: str) -> str:
        return _absolute(os.path.join(self._root, path))


def _absolute(path: str) -> str:
    return os.path.abspath(path)
