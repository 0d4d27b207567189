"""Adapters one by one: read them, find their bases, run the rules about single adapters; many in several processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from adapterlint import assemble
from adapterlint.discover import Found
from adapterlint.findings import Finding, Location, Severity, UserError, unknown
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.subject import NoPayload, Subject
from adapterlint.report import Skipped
from adapterlint.rules.base import Need, Rule, SetRule
from adapterlint.rules.registry import adapter_rules
from adapterlint.verdicts import INTERNAL_ERROR

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
    skipped: list[Skipped] = field(default_factory=list)


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
    checked = Checked(subject)
    able, unable = _split(rules, tuple(_lacking(subject).items()))
    checked.skipped += [Skipped(code, subject.adapter.path, lack) for code, lack in unable]
    for rule in able:
        try:
            checked.findings.extend(rule.check(subject))
        except Exception:
            errors.append(trace())
            checked.findings.append(crash(rule, subject.at_directory()))
    subject.payload.release()
    if subject.payload.partial:
        checked.skipped.append(Skipped("AL301", subject.adapter.path, "payload"))
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


def _lacking(subject: Subject) -> dict[Need, str]:
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
    return Finding(
        INTERNAL_ERROR, "internal-error", message, location, (), (unknown(),), None, Severity.ERROR, adapters=adapters
    )


# -- many --------------------------------------------------------------------------------------------------------


class _Result(NamedTuple):
    """What a process sends back of one adapter; its base goes by path, since sets need one object."""

    checked: Checked
    base: str | None


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
    if processes > 1:
        checked = _in_processes(found, bases, payload, errors, processes, progress)
        if checked is not None:
            return checked
    with uncollected():
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
    if adapters < ENOUGH or not hasattr(os, "fork") or not hasattr(os, "sched_getaffinity"):
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES, adapters // _CHUNK)


def _in_processes(
    found: Sequence[Found],
    bases: Bases,
    payload: assemble.PayloadDepth,
    errors: list[str],
    processes: int,
    progress: Progress | None,
) -> list[Checked] | None:
    """The same in several processes; None if one of them was killed."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    adapter_rules()  # imported before the fork, once for all
    chunks = [found[start : start + _CHUNK] for start in range(0, len(found), _CHUNK)]
    checked = []
    try:
        with (
            uncollected(),
            ProcessPoolExecutor(processes, get_context("fork"), _start_process, (bases, payload)) as pool,
        ):
            for results, traces in pool.map(_check_chunk, chunks):
                errors += traces
                for result in results:
                    if result.base is not None:
                        base = bases.at(result.base)
                        result.checked.subject = replace(result.checked.subject, base=base)
                    checked.append(result.checked)
                if progress is not None:
                    progress(len(checked), len(found))
    except (BrokenProcessPool, OSError):
        return None
    return checked


_task: tuple[Bases, assemble.PayloadDepth]


def _start_process(bases: Bases, payload: assemble.PayloadDepth) -> None:
    global _task
    _task = bases, payload
    gc.disable()


def _check_chunk(found: Sequence[Found]) -> tuple[list[_Result], list[str]]:
    bases, payload = _task
    errors: list[str] = []
    results = []
    for item in found:
        checked = _check_one(item, bases, payload, errors)
        base = checked.subject.base
        checked.subject = replace(checked.subject, base=None)
        results.append(_Result(checked, base.path if base is not None else None))
    return results, errors
