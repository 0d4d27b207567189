"""All or nothing: processes killed and disks broken at every operation, forged records, locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixing_util import arrays, load, make_adapter, snapshot
from injection import Trial, every_operation, forked, kill_at, traced

from adapterlint.findings import CONFIG_FILE, RenameTensor, SetConfig
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import RefusedError, WriteError
from adapterlint.fixing.journal import Recovered, Transaction, recover
from adapterlint.fixing.records import Step
from adapterlint.fixing.system import STAGE

HERE = Path(__file__).parent


@pytest.fixture
def quick() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of syncs are slow on a disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("kill", "in-place"),
        ("half", "in-place"),
        ("error", "in-place"),
        ("dead", "in-place"),
        ("kill", "backup"),
        ("error", "backup"),
        ("kill", "output"),
        ("error", "output"),
        pytest.param("half", "output", marks=pytest.mark.slow),
        pytest.param("dead", "output", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost_whichever_operation_is_the_last(quick: Path, kind: str, where: str) -> None:
    """In a process of its own, which is forked for every operation."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, str(HERE / "injection.py"), str(quick / "home"), kind, where],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    print(kind, where, counts)
    assert counts["losses"] == []
    assert counts["runs"] == counts["operations"] > 60
    assert counts["old"] > 50 and counts["new"] > 3 and counts["old"] + counts["new"] == counts["runs"]
    if kind == "error":
        # Only where the removal of the stage itself failed is there anything left.
        assert counts["errors"] > 50
        assert all(number >= counts["errors"] for number in counts["leftovers"])


@pytest.mark.slow
def test_nothing_is_lost_if_the_recovery_is_killed_too(quick: Path) -> None:
    counts = every_operation(Trial(quick / "home", output=False), "twice")
    print(counts)
    assert counts["losses"] == [] and counts["runs"] > 1000


def test_nothing_is_lost_if_the_undoing_is_killed(quick: Path) -> None:
    """When the system refuses the last file, the others are put back: which may be the last thing a process does."""
    counts = every_operation(Trial(quick / "home", output=False), "undo")
    print(counts)
    assert counts["losses"] == [] and counts["runs"] > 15
    # The first kill comes before the decision is revoked, so that recovery finishes the fix.
    assert counts["new"] >= 1 and counts["old"] > 10


def test_what_a_step_relies_on_is_on_the_disk_before_it(quick: Path) -> None:
    """Against a loss of power, which kills no process, the order of the syncs decides."""
    trial = Trial(quick / "home", output=False)
    trace = traced(trial.run)
    roots = [os.path.realpath(plan.path) for plan in trial.plans]
    commit = next(i for i, (name, args) in enumerate(trace) if name == "create" and args[0].endswith("commit"))
    decided = next(i for i in range(commit, len(trace)) if trace[i] == ("fsync", (os.path.join(roots[0], STAGE),)))
    synced_before = {args[0] for name, args in trace[:commit] if name == "fsync"}
    created = [str(args[0]) for name, args in trace[:commit] if name == "create"]
    for path in created:
        assert any(synced.endswith(path.removeprefix("./")) for synced in synced_before), path
        assert os.path.dirname(path) in synced_before, path
    for root in roots:
        assert {root, os.path.join(root, STAGE)} <= synced_before
    placing = [
        i for i, (name, args) in enumerate(trace)
        if name in ("replace", "rename", "unlink") and os.path.dirname(str(args[-1])) in roots
    ]  # fmt: skip
    assert len(placing) == 7 and min(placing) > decided > commit
    discarding = next(i for i, (name, _) in enumerate(trace) if name == "rmdir")
    synced_after = {args[0] for name, args in trace[max(placing) : discarding] if name == "fsync"}
    assert roots[-1] in synced_after and all(("fsync", (root,)) in trace[min(placing) : discarding] for root in roots)


def crashed(home: Path, *, committed: bool) -> Trial:
    """A trial whose process died just before, or just after, the first file was put in place."""
    trial = Trial(home, output=False)
    trace = traced(trial.run)
    trial.reset()
    goals = {os.path.realpath(plan.path) for plan in trial.plans}
    first = next(
        i for i, (name, args) in enumerate(trace) if name == "replace" and os.path.dirname(str(args[1])) in goals
    )
    commit = next(i for i, (name, args) in enumerate(trace) if name == "create" and args[0].endswith("commit"))
    assert forked(kill_at(first + 1 if committed else commit), trial.run) is None
    return trial


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("committed", [True, False])
def test_each_directory_leads_to_the_others(quick: Path, which: int, committed: bool) -> None:
    trial = crashed(quick / "home", committed=committed)
    found = recover([trial.plans[which].path])
    if committed:
        roots = [os.path.realpath(plan.path) for plan in trial.plans]
        assert found == [Recovered(root, "finished") for root in roots]
        assert trial.state() == trial.new
    else:
        assert [each.outcome for each in found] == ["rolled back"]
        recover(trial.roots)
        assert trial.state() == trial.old
    assert recover(trial.roots) == []


def test_the_next_fix_recovers_first(quick: Path) -> None:
    trial = crashed(quick / "home", committed=True)
    three = trial.plans[2].path
    apply_all([AdapterEdits(three, (SetConfig("/r", 64),))])
    assert json.loads(Path(three, CONFIG_FILE).read_text())["r"] == 64
    assert "h" in load(three) and "x" in load(trial.plans[0].path)


def test_the_next_copy_recovers_first(quick: Path) -> None:
    """What a killed run left in the output is undone, or finished: then it is there, and is not overwritten."""
    trial = Trial(quick / "home", output=True)
    trace = traced(trial.run)
    commit = next(i for i, (name, args) in enumerate(trace) if name == "create" and args[0].endswith("commit"))
    placed = max(i for i, (name, _) in enumerate(trace) if name == "replace")
    trial.reset()
    assert forked(kill_at(commit), trial.run) is None and os.listdir(str(trial.output)) == [STAGE]
    trial.run()
    assert trial.state() == trial.new
    trial.reset()
    assert forked(kill_at(placed), trial.run) is None and trial.state() != trial.new
    with pytest.raises(RefusedError, match="it exists"):
        trial.run()
    assert trial.state() == trial.new


def test_the_tree_may_have_been_moved(quick: Path) -> None:
    trial = crashed(quick / "home", committed=True)
    trial.world.rename(quick / "elsewhere")
    found = recover([str(quick / "elsewhere" / "three")])
    assert {each.outcome for each in found} == {"finished"} and len(found) == 3
    new = {name.removeprefix("world/"): entry for name, entry in trial.new.items()}
    assert snapshot(quick / "elsewhere") == new


@pytest.mark.parametrize("begun", [True, False])
def test_a_directory_whose_leader_is_gone_is_whole_all_the_same(quick: Path, begun: bool) -> None:
    trial = crashed(quick / "home", committed=True)
    two = Path(trial.plans[1].path)
    if begun:
        shutil.move(two / STAGE / "new" / "two" / CONFIG_FILE, two / CONFIG_FILE)
    shutil.rmtree(trial.plans[0].path)
    wanted = trial.new if begun else trial.old
    found = recover([str(two)])
    assert [each.outcome for each in found] == ["finished" if begun else "rolled back"]
    state = {name: entry for name, entry in trial.state().items() if name.startswith("world/deep/two")}
    assert state == {name: entry for name, entry in wanted.items() if name.startswith("world/deep/two")}


def test_a_step_that_fails_undoes_those_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [make_adapter(tmp_path / name, arrays("a")) for name in ("one", "two")]
    before = snapshot(tmp_path)
    real = os.replace

    def refuse(source: str, target: str) -> None:
        if target == os.path.join(paths[1], CONFIG_FILE) and "new" in source:
            raise OSError(errno.EBUSY, "Device or resource busy", source, None, target)
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    plans = [AdapterEdits(path, (SetConfig("/r", 1), RenameTensor("a", "b"))) for path in paths]
    with pytest.raises(WriteError, match=r"two/adapter_config.json: Device or resource busy; every file is as it was"):
        apply_all(plans)
    assert snapshot(tmp_path) == before


def test_without_hard_links_a_failed_step_waits_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [make_adapter(tmp_path / name, arrays("a")) for name in ("one", "two")]
    real = os.replace

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def refuse(source: str, target: str) -> None:
        if target == os.path.join(paths[1], CONFIG_FILE):
            raise OSError(errno.EIO, "Input/output error", source, None, target)
        real(source, target)

    plans = [AdapterEdits(path, (SetConfig("/r", 1), RenameTensor("a", "b"))) for path in paths]
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        patch.setattr(os, "replace", refuse)
        with pytest.raises(WriteError, match="nothing is lost: run it again to go on"):
            apply_all(plans)
    assert {each.outcome for each in recover(paths)} == {"finished"}
    for path in paths:
        assert list(load(path)) == ["b"] and json.loads(Path(path, CONFIG_FILE).read_text())["r"] == 1
        assert not Path(path, STAGE).exists()


def test_an_interrupt_between_two_steps_finishes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [make_adapter(tmp_path / name, arrays("a")) for name in ("one", "two")]
    real, calls = os.replace, []

    def interrupt(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        apply_all([AdapterEdits(path, (SetConfig("/r", 1), RenameTensor("a", "b"))) for path in paths])
    for path in paths:
        assert list(load(path)) == ["b"] and json.loads(Path(path, CONFIG_FILE).read_text())["r"] == 1
        assert not Path(path, STAGE).exists()


def test_two_runs_exclude_each_other(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / name, arrays("a")) for name in ("one", "two")]
    before = snapshot(tmp_path)
    other = os.open(paths[1], os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(WriteError, match="two: another run of adapterlint is changing it"):
        apply_all([AdapterEdits(path, (RenameTensor("a", "b"),)) for path in paths])
    assert snapshot(tmp_path) == before
    os.close(other)
    apply_all([AdapterEdits(path, (RenameTensor("a", "b"),)) for path in paths])
    assert list(load(paths[0])) == ["b"]


def test_a_run_inside_the_check_of_another_is_refused(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "one", arrays("a"))

    def check(_: object) -> list[str]:
        for work in (lambda: recover([path]), lambda: apply_all([AdapterEdits(path, (RenameTensor("a", "c"),))])):
            with pytest.raises(WriteError, match="another run"):
                work()
        return []

    apply_all([AdapterEdits(path, (RenameTensor("a", "b"),))], check=check)
    assert list(load(path)) == ["b"]


def test_without_locks_on_the_file_system_it_works_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = make_adapter(tmp_path / "one", arrays("a"))
    apply_all([AdapterEdits(path, (RenameTensor("a", "b"),))])
    assert list(load(path)) == ["b"]


def forge(root: Path, steps: list[dict[str, Any]], **links: Path) -> None:
    """A stage that some adapter brings along, committed, as far as it can say so itself."""
    stage = root / STAGE
    stage.mkdir()
    for name, target in links.items():
        (stage / name).symlink_to(target)
    (stage / "new").mkdir(exist_ok=True)
    record = {"version": 1, "token": "t", "leader": ".", "steps": steps}
    (stage / "steps.json").write_text(json.dumps(record))
    (stage / "commit").write_text(json.dumps({"version": 1, "token": "t", "sites": [".", "../victim"]}))


@pytest.mark.parametrize(
    "step",
    [
        {"action": "place", "source": "new/x", "target": "../victim/secret"},
        {"action": "place", "source": "new/../../../victim/secret", "target": "mine"},
        {"action": "place", "source": "../../victim/secret", "target": "mine"},
        {"action": "place", "source": "VICTIM/secret", "target": "mine"},
        {"action": "move", "source": "../victim/secret", "target": "mine"},
        {"action": "move", "source": "adapter_config.json", "target": "../victim/secret"},
        {"action": "remove", "source": "../victim/secret", "target": ""},
        {"action": "remove", "source": "VICTIM/secret", "target": ""},
        {"action": "remove", "source": "..", "target": ""},
        {"action": "place", "source": 3, "target": "x"},
        {"action": "dance", "source": "x", "target": "y"},
        {"action": "place", "source": "new/x", "target": "sub/secret"},
        {"nonsense": 1},
    ],
)
def test_a_forged_record_reaches_nothing_outside(tmp_path: Path, step: dict[str, Any]) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").write_text("precious")
    root = Path(make_adapter(tmp_path / "adapter", arrays("a")))
    (root / "sub").symlink_to(victim)
    text = json.loads(json.dumps(step).replace("VICTIM", str(victim)))
    forge(root, [text])
    (root / STAGE / "new" / "x").write_text("evil")
    before = snapshot(victim)
    recover([str(root)])
    assert snapshot(victim) == before
    assert not (root / "mine").exists() and not (root / STAGE).exists()


def test_a_forged_link_in_the_stage_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").write_text("precious")
    root = Path(make_adapter(tmp_path / "adapter", arrays("a")))
    forge(root, [{"action": "place", "source": "new/secret", "target": "mine"}], new=victim)
    before = snapshot(victim)
    recover([str(root)])
    assert snapshot(victim) == before and not (root / "mine").exists()


def test_a_stage_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    root = Path(make_adapter(tmp_path / "adapter", arrays("a")))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("precious")
    (root / STAGE).symlink_to(tmp_path / "victim")
    assert recover([str(root)]) == []
    with pytest.raises(WriteError, match="File exists"):
        apply_all([AdapterEdits(str(root), (RenameTensor("a", "b"),))])
    assert (tmp_path / "victim" / "file").exists()


def test_a_transaction_that_is_not_committed_changes_nothing(tmp_path: Path) -> None:
    root = Path(make_adapter(tmp_path / "adapter", arrays("a")))
    before = snapshot(root)
    with Transaction([str(root)]) as transaction:
        directory = transaction.directory(str(root), "adapter")
        Path(directory, CONFIG_FILE).write_text("{}")
        transaction.add(str(root), Step("place", f"new/adapter/{CONFIG_FILE}", CONFIG_FILE))
        transaction.prepare()
    assert snapshot(root) == before
