"""All or nothing for files in several directories, also if the process is killed half-way.

A transaction builds the new files in a hidden directory of each directory that it changes, ``.adapterlint-stage``:

    new/         what is to be put in place
    old-N        a hard link to what step N replaces, to undo it if the system refuses a later step
    steps.json   what is to be done in this directory, and which directory leads
    commit       only in the leading directory: the directories that belong together

Nothing outside the hidden directories is touched before ``commit`` is on the disk. After that the steps are carried
out, and if the process dies, :func:`recover` carries out the rest: each step can be repeated without harm. If a step
fails, ``commit`` becomes ``abort``, and everything is put back. In the end the hidden directories are removed, in any
order: by then every file is where it belongs, and a stage without a decision means nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from adapterlint.fixing.errors import FixError, WriteError
from adapterlint.fixing.records import (
    Decision,
    Site,
    Step,
    has_stage,
    read_decision,
    read_site,
    relative,
    revoke_decision,
    write_decision,
    write_site,
)
from adapterlint.fixing.system import STAGE, Locks, flush_directory, writing


@dataclass(frozen=True, slots=True)
class Recovered:
    """A directory that an earlier run had left unfinished.

    Attributes:
        path: the directory.
        outcome: whether it has the new files now or the old ones.
    """

    path: str
    outcome: Literal["finished", "rolled back"]


class Transaction:
    """Changes to several directories that happen together. Use as a context manager; without commit nothing happens.

    Args:
        roots: the directories, real paths, the leading one first. They must exist and be locked by the caller.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self._token = os.urandom(16).hex()
        self._steps: dict[str, list[Step]] = {root: [] for root in roots}
        self._staged: list[str] = []

    def __enter__(self) -> Transaction:
        try:
            for root in self._steps:
                with writing(root):
                    os.mkdir(os.path.join(root, STAGE), 0o700)
                    self._staged.append(root)
                    os.mkdir(os.path.join(root, STAGE, "new"))
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._staged:
            return
        sites = self._sites()
        found = read_decision(sites[0].root, self._token)
        if found is None:
            self._discard()
        elif not isinstance(error, FixError):
            # Interrupted between two steps: what has been decided is carried out.
            _settle(sites, found[0])

    def directory(self, root: str, name: str) -> str:
        """Makes the directory ``new/NAME`` in the stage of ``root`` and returns its path."""
        path = os.path.join(root, STAGE, "new", name)
        with writing(root):
            os.mkdir(path)
        return path

    def add(self, root: str, *steps: Step) -> None:
        """Plans steps in the directory ``root``."""
        self._steps[root] += steps

    def prepare(self) -> None:
        """Writes the steps to the disk, after which no more can be added. Raises WriteError."""
        for site in self._sites():
            with writing(site.root):
                _keep_old(site)
                write_site(site)

    def commit(self) -> None:
        """Carries out all steps, which have been prepared, or none: then it raises WriteError."""
        sites = self._sites()
        try:
            with writing(sites[0].root):
                write_decision(sites)
        except BaseException:
            with suppress(OSError):
                os.unlink(os.path.join(sites[0].stage, "commit"))
            raise
        _settle(sites, "commit")
        self._staged.clear()

    def _sites(self) -> list[Site]:
        leader = next(iter(self._steps))
        return [Site(root, self._token, relative(leader, root), tuple(steps)) for root, steps in self._steps.items()]

    def _discard(self) -> None:
        for root in self._staged:
            _discard(root)
        self._staged.clear()


def recover(paths: Iterable[str]) -> list[Recovered]:
    """Finishes or undoes what a killed run left in these directories, and in those that belong to them.

    Returns the directories that had something left. Raises WriteError if another run is at work or the system refuses.
    """
    with Locks() as locks:
        return recover_locked(paths, locks)


def recover_locked(paths: Iterable[str], locks: Locks) -> list[Recovered]:
    """:func:`recover` for a caller who holds locks already."""
    recovered: list[Recovered] = []
    for path in paths:
        root = os.path.realpath(path)
        if has_stage(root):
            locks.take(root)
            # The run that made it may have ended between the look and the lock.
            if has_stage(root):
                recovered += _recover(root, locks)
    return recovered


def _recover(root: str, locks: Locks) -> list[Recovered]:
    site = read_site(root)
    if site is None:
        # Killed before the record was complete, so before anything was done.
        _discard(root)
        return [Recovered(root, "rolled back")]
    leader = os.path.normpath(os.path.join(root, site.leader))
    found = read_decision(leader, site.token)
    decision, sites = (found[0], _members(leader, found[1], site, locks)) if found else ("commit", [])
    if site not in sites:
        return [_recover_alone(site, os.path.isdir(leader))]
    _settle(sites, decision)
    outcome: Literal["finished", "rolled back"] = "finished" if decision == "commit" else "rolled back"
    return [Recovered(each.root, outcome) for each in sites]


def _members(leader: str, paths: Iterable[str], site: Site, locks: Locks) -> list[Site]:
    """The directories that the leader names and that bear the transaction's token. A missing one has been settled."""
    members = []
    for path in paths:
        root = os.path.normpath(os.path.join(leader, path))
        if not has_stage(root):
            continue
        locks.take(root)
        member = read_site(root)
        if member is not None and member.token == site.token:
            members.append(member)
    return members


def _recover_alone(site: Site, leader_exists: bool) -> Recovered:
    """A directory whose leader has no decision: it had not been made, or all had been done, or the leader was moved."""
    begun = any(step.action == "place" and not os.path.lexists(site.origin(step)) for step in site.steps)
    if begun and not leader_exists:
        with writing(site.root):
            _forward(site)
    _discard(site.root)
    return Recovered(site.root, "finished" if begun else "rolled back")


def _settle(sites: Sequence[Site], decision: Decision) -> None:
    """Carries out a decision. A commit that the system refuses becomes an abort, and raises WriteError then."""
    failure: OSError | None = None
    try:
        if decision == "commit":
            for site in sites:
                _forward(site)
    except OSError as error:
        failure = error
    if failure is not None or decision == "abort":
        _undo(sites, failure)
    for site in sites:
        _discard(site.root)
    if failure is not None:
        raise WriteError(_named(failure, sites), f"{failure.strerror}; every file is as it was") from failure


def _undo(sites: Sequence[Site], failure: OSError | None) -> None:
    try:
        if failure is not None:
            _require_undoable(sites, failure)
            revoke_decision(sites[0])
        for site in sites:
            _backward(site)
    except OSError as error:
        hint = f"half done, and nothing is lost: run it again to go on (see {sites[0].stage})"
        raise WriteError(_named(failure or error, sites), f"{error.strerror}; {hint}") from error


def _named(error: OSError, sites: Sequence[Site]) -> str:
    """The file that an error is about: the one to be replaced rather than the staged one."""
    names = [name for name in (error.filename2, error.filename) if isinstance(name, str)]
    return names[0] if names else sites[0].root


def _require_undoable(sites: Sequence[Site], failure: OSError) -> None:
    """Raises the failure again if a file is gone of which no link could be kept (a file system without them)."""
    for site in sites:
        for number, step in enumerate(site.steps):
            done = not os.path.lexists(site.origin(step))
            if done and step.replaces is not None and not os.path.lexists(site.backup(number)):
                raise failure


def _forward(site: Site) -> None:
    for step in site.steps:
        if not os.path.lexists(site.origin(step)):
            continue  # Done before a crash.
        if step.action == "remove":
            os.unlink(site.origin(step))
        elif step.action == "keep":
            if not os.path.lexists(site.goal(step)):
                os.link(site.origin(step), site.goal(step), follow_symlinks=False)
        else:
            os.replace(site.origin(step), site.goal(step))
    flush_directory(site.root)


def _backward(site: Site) -> None:
    for number, step in reversed(list(enumerate(site.steps))):
        if step.action == "keep":
            if os.path.lexists(site.goal(step)) and os.path.samefile(site.origin(step), site.goal(step)):
                os.unlink(site.goal(step))
        elif step.replaces is not None:
            if os.path.lexists(site.backup(number)):
                os.replace(site.backup(number), os.path.join(site.root, step.replaces))
        elif not os.path.lexists(site.origin(step)) and os.path.lexists(site.goal(step)):
            os.rename(site.goal(step), site.origin(step))
    flush_directory(site.root)


def _keep_old(site: Site) -> None:
    for number, step in enumerate(site.steps):
        if step.replaces is not None:
            # Without a link the steps can still be finished, only not undone.
            with suppress(OSError, NotImplementedError):
                os.link(os.path.join(site.root, step.replaces), site.backup(number), follow_symlinks=False)


def _discard(root: str) -> None:
    """Removes the stage. If that is refused, the next run tries again: without a decision it means nothing."""
    with suppress(OSError):
        shutil.rmtree(os.path.join(root, STAGE))
    with suppress(OSError):
        flush_directory(root)
