"""Counts every operation by which a fix changes the file system, and ends the process, or fails, at a chosen one.

Run as a program it does that for every operation of one fix, and prints what came of it as JSON:

    python injection.py WORKDIR kill|half|error|dead|undo|twice in-place|output|backup
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fixing_util import arrays, make_adapter, make_base, snapshot

from adapterlint.findings import (
    CONFIG_FILE,
    CopyTensor,
    DropTensor,
    RemoveConfig,
    RenameFile,
    RenameTensor,
    SetConfig,
    ZeroTensor,
)
from adapterlint.fixing import rewrite
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import FixError
from adapterlint.fixing.journal import recover
from adapterlint.fixing.system import STAGE

CHANGING = (
    "mkdir", "rmdir", "unlink", "rename", "replace", "link", "symlink", "chmod", "chown", "setxattr", "removexattr",
    "utime", "copy_file_range", "fsync",
)  # fmt: skip


class Injector:
    """Calls ``act(number, name, arguments, call)`` instead of each operation; a trace of names is kept."""

    def __init__(self, act: Callable[[int, Callable[[], Any], Callable[[], Any]], Any]) -> None:
        self.trace: list[tuple[str, tuple[Any, ...]]] = []
        self._act = act

    def step(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Any], half: Callable[[], Any]) -> Any:
        self.trace.append((name, arguments))
        return self._act(len(self.trace) - 1, call, half)

    @contextmanager
    def installed(self) -> Iterator[Injector]:
        """Replaces the functions of :mod:`os`, and the files that are written, for the time of the block."""
        saved = {name: getattr(os, name) for name in (*CHANGING, "open")}
        for name in CHANGING:
            setattr(os, name, self._wrapped(name, saved[name]))
        os.open = self._open(saved["open"])  # type: ignore[assignment]
        rewrite.open = self._file  # type: ignore[attr-defined]
        try:
            yield self
        finally:
            for name, function in saved.items():
                setattr(os, name, function)
            del rewrite.open  # type: ignore[attr-defined]

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            def half() -> None:
                if name == "copy_file_range":
                    source, target, size, *offsets = arguments
                    real(source, target, max(1, size // 2), *offsets)

            known = tuple(os.readlink(f"/proc/self/fd/{a}") if isinstance(a, int) and a > 2 and name == "fsync" else a
                          for a in arguments)  # fmt: skip
            return self.step(name, known, lambda: real(*arguments, **options), half)

        return wrapper

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def wrapper(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if not flags & os.O_CREAT:
                return real(path, flags, *rest, **options)
            made: int = self.step("create", (path,), lambda: real(path, flags, *rest, **options), lambda: None)
            return made

        return wrapper

    def _file(self, target: Any, mode: str, buffering: int) -> Any:
        if not isinstance(target, int):
            return builtins.open(target, mode, buffering=buffering)
        injector = self

        class Counted(io.FileIO):
            def write(self, data: Any) -> int:
                view = memoryview(data)

                def half() -> None:
                    super(Counted, self).write(view[: len(view) // 2])

                count: int = injector.step("write", (), lambda: super(Counted, self).write(view), half)
                return count

            def truncate(self, size: int | None = None) -> int:
                real = super().truncate
                count: int = injector.step("truncate", (size,), lambda: real(size), lambda: None)
                return count

        return Counted(target, "r+")


def die() -> None:
    """What no process can catch."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(number: int, *, half: bool = False) -> Injector:
    """Dies before an operation, or (``half``) when it has done a half of it."""

    def act(at: int, call: Callable[[], Any], part: Callable[[], Any]) -> Any:
        if at == number:
            if half:
                part()
            die()
        return call()

    return Injector(act)


def fail_at(number: int, *, ever_after: bool = False) -> Injector:
    """An operation, or (``ever_after``) each from it on, fails as on a broken disk."""

    def act(at: int, call: Callable[[], Any], _: Callable[[], Any]) -> Any:
        if at == number or (ever_after and at > number):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call()

    return Injector(act)


def fail_then_kill(failing: int, number: int) -> Injector:
    """An operation fails, and a later one, of what is done about that, is the last."""

    def act(at: int, call: Callable[[], Any], _: Callable[[], Any]) -> Any:
        if at == failing:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if at == number:
            die()
        return call()

    return Injector(act)


def prepare(home: Path) -> tuple[list[AdapterEdits], Path]:
    """Three adapters that together need every kind of edit, and the directory that they are in."""
    random = np.random.default_rng(1)
    home.mkdir()
    base = make_base(home / "base", {"head": random.standard_normal((5, 7), dtype=np.float32)})
    world = home / "world"
    one = make_adapter(world / "one", arrays("a", "b", rows=40, columns=50), wrong="some notes")
    two = make_adapter(world / "deep" / "two", arrays("a", "b"))
    three = make_adapter(world / "three", arrays("a", "b", "c"))
    Path(two, CONFIG_FILE).rename(Path(two, "adaptor_config.json"))
    Path(three, "more").mkdir()
    Path(three, "more", "file").write_text("x")
    Path(three, CONFIG_FILE).chmod(0o640)
    plans = [
        AdapterEdits(one, (SetConfig("/r", 4), RenameTensor("a", "x"), RenameFile("wrong.txt", "right.txt"))),
        AdapterEdits(two, (RenameFile("adaptor_config.json", CONFIG_FILE), RemoveConfig("/r"), DropTensor("a"))),
        AdapterEdits(three, (CopyTensor("h", "head"), ZeroTensor("z", "F16", (3,)), DropTensor("b")), base),
    ]
    return plans, world


class Trial:
    """One fix that can be run again and again from the same state."""

    def __init__(self, home: Path, output: bool, backup: bool = False) -> None:
        self.plans, self.world = prepare(home)
        self.backup = backup
        self.output = str(home / "out") if output else None
        self.roots = [plan.path for plan in self.plans] + ([self.output] if self.output else [])
        self._pristine = home / "pristine"
        shutil.copytree(self.world, self._pristine, symlinks=True)
        self.old = self.state()
        self.run()
        self.new = self.state()
        self.reset()

    def run(self) -> None:
        """The fix."""
        apply_all(self.plans, output=self.output, backup=self.backup)

    def state(self) -> dict[str, object]:
        """Every file, the adapters' and the output's."""
        found: dict[str, object] = {f"world/{name}": entry for name, entry in snapshot(self.world).items()}
        if self.output:
            found |= {f"out/{name}": entry for name, entry in snapshot(self.output).items()}
        return found

    def reset(self) -> None:
        """As it was before the fix."""
        shutil.rmtree(self.world)
        shutil.copytree(self._pristine, self.world, symlinks=True)
        if self.output:
            shutil.rmtree(self.output, ignore_errors=True)

    def torn(self) -> list[str]:
        """Files that are neither as before nor as they should become. What is still staged does not count."""
        state = {name: entry for name, entry in self.state().items() if STAGE not in name}
        return [name for name, entry in state.items() if entry not in (self.old.get(name), self.new.get(name))]


def forked(injector: Injector, work: Callable[[], object]) -> int | None:
    """Runs it in a child with the injector at work. The exit status: 0 done, 1 a FixError; None if it was killed."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            with injector.installed():
                work()
            code = 0
        except FixError:
            code = 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    return os.WEXITSTATUS(status)


def judge(trial: Trial, counts: dict[str, Any], where: str) -> None:
    """After recovery all adapters are as before, or all are new; anything else is a loss."""
    state = trial.state()
    if state == trial.new:
        counts["new"] += 1
    elif state == trial.old:
        counts["old"] += 1
    else:
        counts["losses"].append(where)


def every_operation(trial: Trial, kind: str) -> dict[str, Any]:
    """Ends one run at each operation in turn, recovers, and counts what is lost."""
    counts: dict[str, Any] = {"losses": [], "leftovers": [], **dict.fromkeys(("runs", "old", "new", "errors"), 0)}
    make = {"kill": kill_at, "twice": kill_at, "half": lambda n: kill_at(n, half=True), "error": fail_at,
            "dead": lambda n: fail_at(n, ever_after=True), "undo": kill_at}[kind]  # fmt: skip
    trace = traced(trial.run)
    trial.reset()
    counts["operations"] = len(trace)
    if kind == "undo":
        # The last file that is put in place; everything before it must be taken back.
        last = max(at for at, (name, _) in enumerate(trace) if name == "replace")
        make = lambda n: fail_then_kill(last, last + 1 + n)  # noqa: E731
    for number in range(counts["operations"]):
        trial.reset()
        code = forked(make(number), trial.run)
        if kind == "undo" and code is not None:
            counts["operations"] = number
            return counts
        counts["runs"] += kind != "twice"
        counts["errors"] += code == 1
        if trial.torn():
            counts["losses"].append(f"{number}: torn {trial.torn()}")
        if code is not None and code > 1:
            counts["losses"].append(f"{number}: not a FixError")
        if kind == "error":
            judge_error(trial, counts, number, code)
        elif kind == "twice":
            kill_recovery(trial, counts, number)
        else:
            recover([trial.roots[number % len(trial.roots)]])
            recover(trial.roots)
            judge(trial, counts, str(number))
    return counts


def judge_error(trial: Trial, counts: dict[str, Any], number: int, code: int | None) -> None:
    """After a single error all is as before, and clean, unless the run got over it."""
    if any(STAGE in name for name in trial.state()):
        counts["leftovers"].append(number)
        recover(trial.roots)
    before = counts["new"]
    judge(trial, counts, str(number))
    if (counts["new"] > before) != (code == 0):
        counts["losses"].append(f"{number}: exit {code} does not say what happened")


def kill_recovery(trial: Trial, counts: dict[str, Any], number: int) -> None:
    """Kills the recovery, too, at each of its operations; every time a last recovery must succeed."""
    at = 0
    while True:
        if at:
            trial.reset()
            forked(kill_at(number), trial.run)
        roots = trial.roots[at % 3 :] + trial.roots[: at % 3]
        code = forked(kill_at(at), lambda: recover(roots))  # noqa: B023 (run at once)
        if trial.torn():
            counts["losses"].append(f"{number}, {at}: torn")
        recover(trial.roots[::-1])
        judge(trial, counts, f"{number}, {at}")
        counts["runs"] += 1
        if code == 0:
            return
        at += 1


def traced(work: Callable[[], object]) -> list[tuple[str, tuple[Any, ...]]]:
    """The operations of undisturbed work, with what they were called with."""
    injector = Injector(lambda _, call, __: call())
    with injector.installed():
        work()
    return injector.trace


def main(arguments: Sequence[str]) -> int:
    """See the module's first lines."""
    home, kind, where = arguments
    trial = Trial(Path(home), where == "output", backup=where == "backup")
    print(json.dumps(every_operation(trial, kind)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
