"""What a transaction writes down, and reads back after a crash.

Records may come from directories that somebody else made, a downloaded adapter say. So they hold plain names, a step
reaches nothing outside its own directory, and directories belong together only if all of them say so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from adapterlint.fixing.rewrite import write_bytes
from adapterlint.fixing.system import STAGE, flush_directory

_VERSION = 1

Decision = Literal["commit", "abort"]


@dataclass(frozen=True, slots=True)
class Step:
    """One change to a directory. Repeating it does no harm.

    Attributes:
        action: ``place`` a new file (or directory), ``move`` one to another name, ``remove`` one, or ``keep`` one under
            another name too.
        source: for ``place`` the path in the stage, such as ``new/my-adapter/adapter_config.json``; else a name.
        target: the name that it gets; empty for ``remove``.
        fresh: whether nothing had that name before.
    """

    action: Literal["place", "move", "remove", "keep"]
    source: str
    target: str = ""
    fresh: bool = False

    @property
    def replaces(self) -> str | None:
        """The name of the file that the step does away with."""
        if self.action == "remove":
            return self.source
        return self.target if self.action == "place" and not self.fresh else None


@dataclass(frozen=True, slots=True)
class Site:
    """One directory of a transaction.

    Attributes:
        root: the directory, a real path.
        token: random, the same for all directories of the transaction.
        leader: path of the directory that holds the decision, relative to ``root``.
        steps: what happens in this directory, in this order.
    """

    root: str
    token: str
    leader: str
    steps: tuple[Step, ...]

    @property
    def stage(self) -> str:
        """The hidden directory."""
        return os.path.join(self.root, STAGE)

    def backup(self, number: int) -> str:
        """Where the link to the file that step ``number`` replaces is kept."""
        return os.path.join(self.stage, f"old-{number}")

    def origin(self, step: Step) -> str:
        """Where the step takes its file from."""
        return os.path.join(self.stage if step.action == "place" else self.root, step.source)

    def goal(self, step: Step) -> str:
        """Where the step puts it."""
        return os.path.join(self.root, step.target)

    def staged_directories(self) -> list[str]:
        """The directories in the stage that hold what will be placed, the deeper ones first."""
        found: dict[str, None] = {}
        for step in self.steps:
            parent = os.path.dirname(step.source) if step.action == "place" else ""
            while parent:
                found[os.path.join(self.stage, parent)] = None
                parent = os.path.dirname(parent)
        return sorted(found, key=len, reverse=True)


def has_stage(root: str) -> bool:
    """Whether a transaction is, or was, at work in the directory."""
    stage = os.path.join(root, STAGE)
    return os.path.isdir(stage) and not os.path.islink(stage)


def write_site(site: Site) -> None:
    """Writes ``steps.json``, and all names in the stage, to the disk. Raises OSError."""
    record = {"token": site.token, "leader": site.leader, "steps": [asdict(step) for step in site.steps]}
    _write(os.path.join(site.stage, "steps.json"), record)
    for directory in (*site.staged_directories(), site.stage, site.root):
        flush_directory(directory)


def read_site(root: str) -> Site | None:
    """What :func:`write_site` wrote, or None if that was never completed, or if it is none of ours."""
    stage = os.path.join(root, STAGE)
    record = _read(os.path.join(stage, "steps.json"))
    if record is None or not _is_path(record.get("leader")) or not isinstance(record.get("steps"), list):
        return None
    try:
        steps = tuple(Step(**step) for step in record["steps"])
    except TypeError:
        return None
    if not all(_harmless(step, stage) for step in steps):
        return None
    return Site(root, record["token"], record["leader"], steps)


def write_decision(sites: Sequence[Site]) -> None:
    """Writes ``commit`` in the first directory. From its return on, the transaction will happen. Raises OSError."""
    leader = sites[0]
    record = {"token": leader.token, "sites": [relative(site.root, leader.root) for site in sites]}
    _write(os.path.join(leader.stage, "commit"), record)
    flush_directory(leader.stage)


def read_decision(root: str, token: str) -> tuple[Decision, list[str]] | None:
    """What a leading directory has decided, and the relative paths of those that belong together, itself first."""
    if not has_stage(root):
        return None
    decisions: tuple[Decision, ...] = ("commit", "abort")
    for decision in decisions:
        record = _read(os.path.join(root, STAGE, decision))
        if record is None or record["token"] != token:
            continue
        sites = record.get("sites")
        if isinstance(sites, list) and all(map(_is_path, sites)):
            return decision, sites
    return None


def revoke_decision(leader: Site) -> None:
    """Turns the leader's ``commit`` into ``abort``. Raises OSError."""
    os.rename(os.path.join(leader.stage, "commit"), os.path.join(leader.stage, "abort"))
    flush_directory(leader.stage)


def relative(path: str, start: str) -> str:
    """The path from ``start``, so that a whole tree can be moved or mounted elsewhere between crash and recovery."""
    try:
        return os.path.relpath(path, start)
    except ValueError:  # Another drive on Windows.
        return path


def is_plain_name(name: str) -> bool:
    """Whether a file name has no directory part and is not the stage's own."""
    parts = {"", os.curdir, os.pardir, STAGE}
    return name not in parts and os.path.basename(name) == name and "\0" not in name


def is_inner_name(name: str) -> bool:
    """Whether it names a file one folder down."""
    folder, slash, file = name.partition("/")
    return bool(slash) and is_plain_name(folder) and is_plain_name(file)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _harmless(step: Step, stage: str) -> bool:
    """Whether a step that was read back stays within its directory."""
    if not _is_path(step.source) or not _is_path(step.target) or not isinstance(step.fresh, bool):
        return False
    if step.action == "place":
        parent = os.path.dirname(os.path.join(stage, step.source))
        inside = os.path.normpath(step.source).split(os.sep)[0] == "new" and os.path.realpath(parent) == parent
        return inside and is_plain_name(step.target) and is_plain_name(os.path.basename(step.source))
    names = [step.source] if step.action == "remove" else [step.source, step.target]
    if step.action in ("remove", "keep"):  # the weights of a folder go up
        return all(is_plain_name(name) or is_inside(os.path.dirname(stage), name) for name in names)
    return step.action == "move" and all(map(is_plain_name, names))


def is_inside(root: str, name: str) -> bool:
    """Whether it is a file one folder down, and the folder no link to elsewhere; ``root`` is a real path."""
    folder = os.path.dirname(os.path.join(root, name))
    return is_inner_name(name) and os.path.realpath(folder) == folder


def _write(path: str, record: dict[str, Any]) -> None:
    write_bytes(json.dumps({"version": _VERSION, **record}, indent=1).encode("ascii"), path)


def _read(path: str) -> dict[str, Any] | None:
    """A record, or None if it is absent, cut off or of another kind."""
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("version") != _VERSION or not isinstance(record.get("token"), str):
        return None
    return record
