"""Carries out edits: new files are built aside, proved, checked, and only then put in place, all together."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from adapterlint.fixing.build import Files, build_copy, build_view, copied_bytes, written_bytes
from adapterlint.fixing.errors import PlanError, ProofError, RefusedError, WriteError
from adapterlint.fixing.journal import Transaction, recover, recover_locked
from adapterlint.fixing.prove import Proof, prove
from adapterlint.fixing.records import Step
from adapterlint.fixing.resolve import AdapterEdits, Change, ConfigChange, identities, resolve
from adapterlint.fixing.system import Locks, flush_file, meanwhile, writing

__all__ = ["AdapterEdits", "Check", "apply_all", "recover"]

Check = Callable[[Sequence[str]], Sequence[str]]
"""Looks at the new state, one directory an adapter in the order of the plans, and returns its complaints."""

BACKUP = ".bak"
"""What the name of a copy ends with."""

# Directories, names and journals of a transaction take room as well.
_SPARE = 1 << 20


def apply_all(
    plans: Sequence[AdapterEdits],
    *,
    output: str | None = None,
    allow_links: bool = False,
    backup: bool = False,
    check: Check | None = None,
) -> list[Proof]:
    """Edits adapters, all or none, and proves the result before any old file goes.

    What a killed run left in these directories is finished or undone first.

    Args:
        plans: the edits, one entry an adapter.
        output: a directory that gets edited copies of the whole adapter directories, each under its name; without it
            the adapters are changed in place. Files that are links are copied as files.
        allow_links: whether a symbolic or hard link may be replaced, in place, by a file of its own. What the link
            leads to stays as it is either way.
        backup: whether each file that is replaced or removed in place stays, with ``.bak`` behind its name; one that
            has such a copy already gets no other.
        check: called with directories that look like the new state, links to the unchanged files among them;
            any complaint ends it with a ProofError. Not called if every file is as the edits want it already.

    Returns:
        One proof for each plan.

    Raises:
        PlanError: the edits do not fit.
        RefusedError: a link in place, or an output that exists.
        WriteError: the system refused, or another run is at work.
        ProofError: the result is not what it should be.
    """
    roots = [os.path.realpath(plan.path) for plan in plans]
    _require_distinct(plans, roots)
    for plan, root in zip(plans, roots, strict=True):
        if not os.path.isdir(root):
            raise PlanError(plan.path, "there is no such directory")
    with Locks() as locks:
        for root in roots:
            locks.take(root)
        recover_locked(roots, locks)
        changes = [resolve(plan) for plan in plans]
        if output is None:
            return _in_place(changes, allow_links, backup, check)
        return _copies(changes, output, locks, check)


def _require_distinct(plans: Sequence[AdapterEdits], roots: Sequence[str]) -> None:
    for number, root in enumerate(roots):
        if root in roots[:number]:
            raise PlanError(plans[number].path, "two plans for one directory")


def _in_place(changes: Sequence[Change], allow_links: bool, backup: bool, check: Check | None) -> list[Proof]:
    changed = [change for change in changes if not change.empty]
    if not changed:
        return [prove(change, change.root) for change in changes]
    if not allow_links:
        for change in changed:
            _refuse_links(change)
    _require_space([(change.root, written_bytes(change)) for change in changed])
    with Transaction([change.root for change in changed]) as transaction:
        views = {change.root: transaction.directory(change.root, change.name) for change in changed}
        files = [file for change in changed for file in build_view(change, views[change.root])]
        for change in changed:
            transaction.add(change.root, *(_kept(change) if backup else ()), *_steps(change))
        with meanwhile(lambda: _to_disk(files, transaction)):
            proofs = [prove(change, views.get(change.root, change.root)) for change in changes]
            _run_check(check, [views.get(change.root, change.plan.path) for change in changes], changes)
        for change in changed:
            touched = {name for each in change.rewritten for name in (each.old, each.new)}
            _require_unchanged(change, touched.union(change.removed, *change.moves, *change.twins))
        transaction.commit()
    return proofs


def _copies(changes: Sequence[Change], output: str, locks: Locks, check: Check | None) -> list[Proof]:
    target = os.path.realpath(output)
    _refuse_output(changes, output, target)
    made = _make_directories(target)
    try:
        locks.take(target)
        recover_locked([target], locks)
        _refuse_existing(changes, output)
        needed = sum(written_bytes(change) + copied_bytes(change) for change in changes)
        _require_space([(target, needed)])
        with Transaction([target]) as transaction:
            views = [transaction.directory(target, change.name) for change in changes]
            pairs = list(zip(changes, views, strict=True))
            files = [file for change, view in pairs for file in build_copy(change, view)]
            for change in changes:
                transaction.add(target, Step("place", os.path.join("new", change.name), change.name, fresh=True))
            with meanwhile(lambda: _to_disk(files, transaction)):
                proofs = [prove(change, view, whole=True) for change, view in pairs]
                _run_check(check, views, changes)
            for change in changes:
                _require_unchanged(change, {*change.seen, *identities(change.root)})
            transaction.commit()
    except BaseException:
        for directory in reversed(made):
            with suppress(OSError):
                os.rmdir(directory)
        raise
    return proofs


def _to_disk(files: Files, transaction: Transaction) -> None:
    for new, old in files:
        with writing(old):
            flush_file(new)
    transaction.prepare()


def _kept(change: Change) -> list[Step]:
    """The copies of what will be replaced or removed: links, made with the other steps or not at all."""
    names = [each.old for each in change.rewritten] + list(change.removed)
    return [
        Step("keep", name, name + BACKUP, fresh=True)
        for name in dict.fromkeys(names)
        if os.path.lexists(os.path.join(change.root, name)) and name + BACKUP not in change.seen
    ]


def _steps(change: Change) -> list[Step]:
    steps = []
    for each in change.rewritten:
        fresh = not os.path.lexists(os.path.join(change.root, each.new))
        steps.append(Step("place", os.path.join("new", change.name, each.new), each.new, fresh))
        if each.old != each.new:
            steps.append(Step("remove", each.old))
    steps += [Step("remove", name) for name in change.removed]
    return steps + [Step("move", old, new) for old, new in change.moves]


def _run_check(check: Check | None, views: Sequence[str], changes: Sequence[Change]) -> None:
    complaints = tuple(check(views)) if check is not None else ()
    if complaints:
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        reason = f"the check of the result complains, so nothing was changed: {complaints[0]}{more}"
        raise ProofError(changes[0].plan.path, reason, complaints)


def _require_unchanged(change: Change, names: Iterable[str]) -> None:
    now = identities(change.root)
    for name in sorted(names):
        if now.get(name) != change.seen.get(name):
            raise WriteError(os.path.join(change.plan.path, name), "something else has changed the file meanwhile")


def _refuse_links(change: Change) -> None:
    there = [each.old for each in change.rewritten if not (isinstance(each, ConfigChange) and each.fresh)]
    old_names = [*there, *change.removed, *(old for old, _ in change.moves)]
    advice = "write a copy elsewhere, or allow links to be replaced by files"
    for name in old_names:
        path = os.path.join(change.plan.path, name)
        with writing(path):
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                shared = f"it is a symbolic link to {os.readlink(path)}, which others may use (the Hugging Face cache?)"
                raise RefusedError(path, f"{shared}: {advice}")
        if status.st_nlink > 1:
            raise RefusedError(path, f"the file has {status.st_nlink - 1} other name(s), by hard links: {advice}")


def _refuse_output(changes: Sequence[Change], output: str, target: str) -> None:
    for name, count in Counter(change.name for change in changes).items():
        if count > 1:
            raise RefusedError(output, f"{count} adapters are named {name!r}, and would overwrite each other there")
    for change in changes:
        if os.path.join(target, "").startswith(os.path.join(change.root, "")):
            raise RefusedError(output, f"it is inside the adapter {change.plan.path}")


def _refuse_existing(changes: Sequence[Change], output: str) -> None:
    for change in changes:
        path = os.path.join(output, change.name)
        if not os.path.lexists(path):
            continue
        with writing(path):
            if os.path.islink(path) or not os.path.isdir(path) or os.listdir(path):
                raise RefusedError(path, "it exists, and would be overwritten")


def _make_directories(path: str) -> list[str]:
    """Makes a directory and its parents; returns those that did not exist, the outermost first."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    made: list[str] = []
    for each in reversed(missing):
        with writing(each):
            os.mkdir(each)
        made.append(each)
    return made


def _require_space(needs: Sequence[tuple[str, int]]) -> None:
    """Raises WriteError if a file system has less room than is needed in its directories together, in bytes."""
    if not hasattr(os, "statvfs"):
        return
    needed: Counter[int] = Counter()
    for path, size in needs:
        needed[os.stat(path).st_dev] += size
    for path, _ in needs:
        system, total = os.statvfs(path), needed[os.stat(path).st_dev] + _SPARE
        free = system.f_bavail * system.f_frsize
        if system.f_blocks and free < total:
            raise WriteError(path, f"not enough space: {total} bytes are needed, and {free} are free")
