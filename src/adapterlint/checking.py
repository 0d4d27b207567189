"""Adapters one by one: read them, find their bases, run the rules about single adapters; many in several processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache

from adapterlint import assemble
from adapterlint.discover import Found
from adapterlint.errors import UserError
from adapterlint.findings import INTERNAL_ERROR, Finding, Location, Severity, unknown
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.subject import NoPayload, Subject
from adapterlint.report import Skipped
from adapterlint.rules.base import Need, Rule, SetRule
from adapterlint.rules.registry import adapter_rules

ENOUGH = 200
"""Adapters from which on further processes are worth their start."""

_CHUNK = 50
_MOST_PROCESSES = 16


Progress = Callable[[int, int], None]
"""Is told, now and then, how many adapters are done, and of how many."""


class BaseNotFoundError(UserError):
    """A given base directory that cannot serve as one."""


@dataclass(eq=False, repr=False)
class Checked:
    """One adapter with everything its rules said; the raw material of report and fix."""

    subject: Subject
    findings: list[Finding] = field(default_factory=list)
    unable: Sequence[tuple[str, str]] = ()

    @property
    def skipped(self) -> list[Skipped]:
        """The rules that could not look, and what each lacked."""
        path = self.subject.adapter.path
        found = [Skipped(code, path, lack) for code, lack in self.unable]
        return [*found, Skipped("AL301", path, "payload")] if self.subject.payload.partial else found


class Bases:
    """The bases of a run, each read once, so that the adapters of a set share one object.

    Args:
        given: the base of every adapter; None: each has its own, where that is local.
    """

    def __init__(self, given: Base | None = None) -> None:
        self.given = given
        self._find = assemble.BaseFinder()
        self._known: dict[str, Base] = {} if given is None else {given.path: given}

    def at(self, path: str) -> Base:
        """The base in a directory that was found to be one."""
        if path not in self._known:
            self._known[path], _ = assemble.read_base(path)
        return self._known[path]

    def of(self, adapter: Adapter) -> Base | None:
        """The given base, else the one that the adapter names, where it is local."""
        if self.given is not None:
            return self.given
        path = assemble.find_base(adapter, self._find)
        base = self.at(path) if path is not None else None
        return base if base is not None and (base.config or base.stored) else None


def load_base(path: str) -> Base:
    """The base model in a directory.

    Raises:
        BaseNotFoundError: no such directory, or no config.json in it.
    """
    if not os.path.isdir(path):
        raise BaseNotFoundError(f"{path}: no such directory; --base takes the directory of the base model")
    base, problems = assemble.read_base(path)
    if not base.config and not base.stored:
        reason = problems[0].message if problems else "it holds neither config.json nor weights"
        raise BaseNotFoundError(f"{path}: not a base model: {reason}")
    return base


# -- one adapter -------------------------------------------------------------------------------------------------


def check_adapter(subject: Subject, errors: list[str] | None = None) -> Checked:
    """Run every adapter rule on one adapter; tracebacks of rules that crash are added to ``errors``."""
    return _run_rules(subject, adapter_rules(), errors if errors is not None else [])


def _run_rules(subject: Subject, rules: tuple[Rule, ...], errors: list[str]) -> Checked:
    able, unable = _split(rules, tuple(lacking(subject).items()))
    checked = Checked(subject, unable=unable)
    for rule in able:
        try:
            checked.findings.extend(rule.check(subject))
        except Exception:
            errors.append(trace())
            checked.findings.append(crash(rule, subject.at_directory()))
    subject.payload.release()
    return checked


@lru_cache(maxsize=64)
def _split(rules: tuple[Rule, ...], lacking: tuple[tuple[Need, str], ...]) -> tuple[list[Rule], list[tuple[str, str]]]:
    """The rules that can run, and the codes of the others with what is missing."""
    able, unable = [], []
    for rule in rules:
        lack = next((what for need, what in lacking if need in rule.needs), None)
        if lack is None:
            able.append(rule)
        else:
            unable.append((rule.code, lack))
    return able, unable


def lacking(subject: Subject) -> dict[Need, str]:
    """What this subject cannot give to rules that need it, and what is missing."""
    adapter = subject.adapter
    found: dict[Need, str] = {}
    if adapter.config is None:
        found["config"] = "config"
    if not adapter.readable:
        found["header"] = "config" if any(problem.fatal for problem in adapter.config_problems) else "weights"
    if subject.base is None:
        found["base"] = "base"
    if isinstance(subject.payload, NoPayload):
        found["payload"] = "payload"
    return found


def trace() -> str:
    """The traceback of the exception that is being handled."""
    import traceback  # 2 ms, and nearly never needed

    return traceback.format_exc()


def crash(rule: Rule | SetRule, location: Location, adapters: tuple[str, ...] = ()) -> Finding:
    """The finding in place of those of a rule that crashed."""
    message = f"rule {rule.code} ({rule.name}) failed on this input; its verdict is unknown; please report this"
    found = Finding(INTERNAL_ERROR, "internal-error", message, location, (), (unknown(),), None, Severity.ERROR)
    return found._replace(adapters=adapters, damage="files")  # nothing is sure, as if it could not be read


# -- many --------------------------------------------------------------------------------------------------------


def check_adapters(
    found: Sequence[Found],
    bases: Bases,
    payload: assemble.PayloadDepth,
    errors: list[str],
    progress: Progress | None = None,
) -> list[Checked]:
    """Read adapters and run the rules about single ones, in the order given.

    Args:
        found: the directories.
        bases: where their bases come from.
        payload: how much tensor data may be read.
        errors: where tracebacks of rules that crash are added.
        progress: is told how far it is.
    """
    processes = _processes(len(found))
    with uncollected():
        if processes > 1:
            return _in_processes(found, bases, payload, errors, processes, progress)
        return list(_one_by_one(found, bases, payload, errors, progress))


def _one_by_one(
    found: Sequence[Found],
    bases: Bases,
    payload: assemble.PayloadDepth,
    errors: list[str],
    progress: Progress | None,
) -> Iterator[Checked]:
    for number, item in enumerate(found, start=1):
        yield _check_one(item, bases, payload, errors)
        if progress is not None:
            progress(number, len(found))


def _check_one(item: Found, bases: Bases, payload: assemble.PayloadDepth, errors: list[str]) -> Checked:
    adapter = assemble.read_adapter(item, bases.given)
    base = bases.of(adapter)
    if base is not None and bases.given is None:
        adapter = replace(adapter, keep=base.wrappers)
    return check_adapter(assemble.subject(adapter, base, payload), errors)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which would walk the tensors of all adapters again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _processes(adapters: int) -> int:
    """How many processes are worth their start; 1 where they cannot share this one's memory."""
    if adapters < ENOUGH:
        return 1
    from adapterlint import sharing  # which most runs do not need

    if not sharing.able():
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES, adapters // _CHUNK)


_Part = tuple[list[Checked], list[str | None], list[str]]
"""Adapters, the paths of their bases where those are not with them, and the tracebacks of rules that crashed."""


def _in_processes(
    found: Sequence[Found],
    bases: Bases,
    payload: assemble.PayloadDepth,
    errors: list[str],
    processes: int,
    progress: Progress | None,
) -> list[Checked]:
    """The same in several processes."""
    from adapterlint import sharing

    parts = sharing.chunks(found, _CHUNK)

    def work(items: Sequence[Found]) -> _Part:
        traces: list[str] = []
        return [_check_one(item, bases, payload, traces) for item in items], [], traces

    def begun(number: int) -> None:
        if progress is not None:
            progress(sum(map(len, parts[:number])), len(found))

    adapter_rules()  # imported before the fork, once for all
    everything = []
    for checked, paths, traces in sharing.share(parts, work, _packed, processes, begun):
        for item, path in zip(checked, paths, strict=False):
            if path is not None:
                item.subject = replace(item.subject, base=bases.at(path))
        everything += checked
        errors += traces
    if progress is not None:
        progress(len(found), len(found))
    return everything


def _packed(part: _Part) -> _Part:
    """A part that can be sent: bases go by path, since sets need one object."""
    checked, _, traces = part
    bases = [item.subject.base for item in checked]
    for item in checked:
        item.subject = replace(item.subject, base=None)
    return checked, [base.path if base is not None else None for base in bases], traces
