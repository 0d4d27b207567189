"""Edits of whole adapters, in place and as copies, read back with the safetensors library and json."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixing_util import CONFIG, arrays, assert_same, load, make_adapter, make_base, metadata, snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterlint.findings import (
    CONFIG_FILE,
    SAFETENSORS_FILE,
    CopyTensor,
    DropTensor,
    RemoveConfig,
    RenameFile,
    RenameTensor,
    RewriteHeader,
    SetConfig,
    StripBom,
    ZeroTensor,
)
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import FixError, PlanError, ProofError, RefusedError, WriteError
from adapterlint.fixing.prove import Proof
from adapterlint.fixing.system import STAGE

RENAME = (RenameTensor("a", "b"),)


def config_of(path: str | Path) -> Any:
    return json.loads(Path(path, CONFIG_FILE).read_bytes())


def test_everything_at_once_in_place(tmp_path: Path) -> None:
    head = np.arange(12, dtype=np.float16).reshape(3, 4)
    base = make_base(tmp_path / "base", {"score.weight": head})
    tensors = arrays("a", "b", "c")
    one = make_adapter(tmp_path / "one", tensors, notes="kept")
    two = make_adapter(tmp_path / "two", tensors)
    edits = (
        SetConfig("/modules_to_save", ["score"]),
        RemoveConfig("/lora_alpha"),
        RenameTensor("a", "x"),
        DropTensor("b"),
        CopyTensor("score", "score.weight"),
        ZeroTensor("z", "BF16", (2, 3)),
        RenameFile("notes.txt", "README.txt"),
    )
    proofs = apply_all([AdapterEdits(one, edits, base), AdapterEdits(two, (SetConfig("/r", 2),))])
    wanted = {"x": tensors["a"], "c": tensors["c"], "score": head}
    assert_same(load_without_bf16(one), wanted)
    assert config_of(one) == {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "modules_to_save": ["score"]}
    assert metadata(one) == {"format": "pt"}
    assert sorted(os.listdir(one)) == ["README.txt", CONFIG_FILE, SAFETENSORS_FILE]
    assert_same(load(two), tensors)
    assert config_of(two)["r"] == 2
    assert proofs[0] == Proof(
        one, untouched=1, renamed=1, dropped=1, copied=1, zeroed=1,
        config_changes=('set /modules_to_save to ["score"]', "remove /lora_alpha"),
        files=(("notes.txt", "README.txt"),),
        bytes_compared=2 * 96 + 24 + 12 + Path(one, CONFIG_FILE).stat().st_size,
    )  # fmt: skip
    assert proofs[1].config_changes == ("set /r to 2",) and proofs[1].untouched == 0


def load_without_bf16(path: str) -> dict[str, np.ndarray]:
    """numpy has no bfloat16: its tensors are looked at as raw zeros here, and left out."""
    from safetensors import safe_open

    found = {}
    with safe_open(Path(path, SAFETENSORS_FILE), "numpy") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            if file.get_slice(name).get_dtype() != "BF16":
                found[name] = file.get_tensor(name)
    return found


def test_what_is_changed_can_be_kept_under_another_name(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a", "b"))
    config, weights = Path(path, CONFIG_FILE), Path(path, "adapter_model.safetensors")
    old = config.read_bytes(), weights.read_bytes()
    apply_all([AdapterEdits(path, (SetConfig("/r", 4), RenameTensor("a", "x")))], backup=True)
    kept = [Path(f"{file}.bak") for file in (config, weights)]
    assert tuple(file.read_bytes() for file in kept) == old
    assert config.read_bytes() != old[0] and [file.stat().st_nlink for file in (config, weights, *kept)] == [1] * 4
    apply_all([AdapterEdits(path, (SetConfig("/r", 8),))], backup=True)
    assert kept[0].read_bytes() == old[0], "the oldest stays"
    assert b'"r": 8' in config.read_bytes()


def test_a_misnamed_config_is_renamed_and_edited(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"), config="\ufeff" + CONFIG)
    Path(path, CONFIG_FILE).rename(Path(path, "config.json"))
    Path(path, SAFETENSORS_FILE).rename(Path(path, "model.safetensors"))
    edits = (
        StripBom(),
        RenameFile("config.json", CONFIG_FILE),
        RenameFile("model.safetensors", SAFETENSORS_FILE),
        *RENAME,
    )
    proof = apply_all([AdapterEdits(path, edits)])[0]
    assert sorted(os.listdir(path)) == [CONFIG_FILE, SAFETENSORS_FILE]
    assert Path(path, CONFIG_FILE).read_text() == CONFIG and list(load(path)) == ["b"]
    assert set(proof.files) == {("config.json", CONFIG_FILE), ("model.safetensors", SAFETENSORS_FILE)}


def test_a_file_can_be_renamed_without_being_edited(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    Path(path, CONFIG_FILE).rename(Path(path, "config.json"))
    inode = Path(path, "config.json").stat().st_ino
    apply_all([AdapterEdits(path, (RenameFile("config.json", CONFIG_FILE),))])
    assert Path(path, CONFIG_FILE).stat().st_ino == inode and not Path(path, "config.json").exists()


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([RenameFile("nope", "x")], "no such file"),
        ([RenameFile("one.txt", "two.txt")], "'two.txt', which exists"),
        ([RenameFile("one.txt", "x"), RenameFile("two.txt", "x")], "'x', which exists"),
        ([RenameFile("one.txt", "x"), RenameFile("one.txt", "y")], "two new names"),
        ([RenameFile("one.txt", "../x")], "'../x' is not the name"),
        ([RenameFile("one.txt", STAGE)], "is not the name"),
        ([RenameFile("/etc/passwd", "x")], "is not the name"),
        ([RenameFile(CONFIG_FILE, "x"), SetConfig("/r", 1)], "no such file to edit"),
        ([SetConfig("/r/x/y", 1)], "/r/x/y"),
        ([RemoveConfig("/nope")], "/nope"),
        ([SetConfig("/r", {1, 2})], "/r"),
    ],
)
def test_files_and_config_edits_that_do_not_fit(tmp_path: Path, edits: list[Any], words: str) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"), one="1", two="2")
    before = snapshot(tmp_path)
    for output in (None, str(tmp_path / "out")):
        with pytest.raises(PlanError) as caught:
            apply_all([AdapterEdits(path, tuple(edits))], output=output)
        assert words in str(caught.value)
        assert snapshot(tmp_path) == before


def test_a_plan_that_does_not_fit_stops_the_others_too(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / name, arrays("a")) for name in ("one", "two")]
    before = snapshot(tmp_path)
    with pytest.raises(PlanError):
        apply_all([AdapterEdits(paths[0], RENAME), AdapterEdits(paths[1], (DropTensor("nope"),))])
    with pytest.raises(PlanError, match="two plans"):
        apply_all([AdapterEdits(paths[0], RENAME), AdapterEdits(paths[0] + "/.", RENAME)])
    with pytest.raises(PlanError, match="no such directory"):
        apply_all([AdapterEdits(paths[0], RENAME), AdapterEdits(str(tmp_path / "none"), RENAME)])
    with pytest.raises(PlanError, match="no such file"):
        os.unlink(Path(paths[1], SAFETENSORS_FILE))
        apply_all([AdapterEdits(paths[0], RENAME), AdapterEdits(paths[1], RENAME)])
    del before[f"two/{SAFETENSORS_FILE}"]
    assert snapshot(tmp_path) == before


def test_what_is_so_already_is_not_written(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    before = {name: Path(path, name).stat() for name in os.listdir(path)}
    edits = (SetConfig("/r", 8), RewriteHeader(), RenameTensor("a", "a"))
    apply_all([AdapterEdits(path, (RewriteHeader(),))])
    before = {name: Path(path, name).stat() for name in os.listdir(path)}
    called: list[object] = []
    proofs = apply_all([AdapterEdits(path, edits), ], check=lambda paths: called.append(paths) or [])  # type: ignore[func-returns-value]  # fmt: skip
    assert {name: Path(path, name).stat() for name in os.listdir(path)} == before
    assert proofs == [Proof(path)] and called == []
    assert apply_all([]) == []
    assert apply_all([AdapterEdits(path, ())]) == [Proof(path)]


def test_done_twice_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    apply_all([AdapterEdits(path, RENAME)])
    before = snapshot(path)
    with pytest.raises(PlanError, match="no tensor 'a' to rename"):
        apply_all([AdapterEdits(path, RENAME)])
    assert snapshot(path) == before


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(min_size=1, max_size=8), min_size=3, max_size=3, unique=True), rank=st.integers())
def test_there_and_back_again_is_the_same(tmp_path_factory: Any, names: list[str], rank: int) -> None:
    if "__metadata__" in names:
        return
    old = ["a", "b", "c"]
    home = tmp_path_factory.mktemp("back")
    path = make_adapter(home / "a", arrays(*old))
    first = RewriteHeader(), SetConfig("/r", 1)
    apply_all([AdapterEdits(path, first)])
    before = snapshot(path)
    apply_all([AdapterEdits(path, (*map(RenameTensor, old, names), SetConfig("/r", rank)))])
    assert config_of(path)["r"] == rank and set(load(path)) == set(names)
    apply_all([AdapterEdits(path, (*map(RenameTensor, names, old), SetConfig("/r", 1)))])
    assert snapshot(path) == before


def test_copies_leave_the_adapters_alone(tmp_path: Path) -> None:
    tensors = arrays("a", "c")
    one = Path(make_adapter(tmp_path / "in" / "one", tensors, notes="kept"))
    two = Path(make_adapter(tmp_path / "in" / "two", arrays("a")))
    (one / "sub" / "deep").mkdir(parents=True)
    (one / "sub" / "deep" / "file").write_bytes(b"x" * 100_000)
    (one / "sub" / "link").symlink_to("deep/file")
    (one / "sub" / "linked").symlink_to("deep")
    (one / "dangling").symlink_to("nowhere")
    (one / "sub").chmod(0o555)
    (one / "notes.txt").chmod(0o400)
    os.utime(one / "notes.txt", ns=(10**18, 10**18 + 7))
    before = snapshot(tmp_path / "in")
    out = tmp_path / "new" / "out"
    edits = (*RENAME, RenameFile("notes.txt", "README.txt"), SetConfig("/r", 1))
    proofs = apply_all([AdapterEdits(str(one), edits), AdapterEdits(str(two), ())], output=str(out))
    assert snapshot(tmp_path / "in") == before
    assert_same(load(out / "one"), {"b": tensors["a"], "c": tensors["c"]})
    assert config_of(out / "one")["r"] == 1
    copy = out / "one"
    assert sorted(os.listdir(copy)) == ["README.txt", CONFIG_FILE, SAFETENSORS_FILE, "dangling", "sub"]
    assert (copy / "README.txt").read_text() == "kept" and stat.S_IMODE((copy / "README.txt").stat().st_mode) == 0o400
    assert (copy / "README.txt").stat().st_mtime_ns == 10**18 + 7
    for name in ("sub/deep/file", "sub/link", "sub/linked/file"):
        assert (copy / name).read_bytes() == b"x" * 100_000 and not (copy / name).is_symlink()
    assert os.readlink(copy / "dangling") == "nowhere"
    assert snapshot(out / "two") == {k.removeprefix("two/"): v for k, v in before.items() if k.startswith("two/")}
    assert proofs[0].renamed == 1 and proofs[0].bytes_compared > 300_000
    assert sorted(os.listdir(out)) == ["one", "two"]
    (one / "sub").chmod(0o755)


def test_an_output_that_exists_is_refused_unless_empty(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "in" / "one", arrays("a"))
    out = tmp_path / "out"
    (out / "one").mkdir(parents=True)
    (out / "other").mkdir()
    apply_all([AdapterEdits(path, RENAME)], output=str(out))
    assert list(load(out / "one")) == ["b"]
    (tmp_path / "file").write_text("")
    before = snapshot(tmp_path)
    for bad in (out, tmp_path / "in"):
        with pytest.raises(RefusedError, match="it exists, and would be overwritten"):
            apply_all([AdapterEdits(path, RENAME)], output=str(bad))
    for inside in (path, os.path.join(path, "out", "deep")):
        with pytest.raises(RefusedError, match="inside the adapter"):
            apply_all([AdapterEdits(path, RENAME)], output=inside)
    again = make_adapter(tmp_path / "elsewhere" / "one", arrays("a"))
    with pytest.raises(RefusedError, match="2 adapters are named 'one'"):
        apply_all([AdapterEdits(path, RENAME), AdapterEdits(again, RENAME)], output=str(tmp_path / "o"))
    shutil.rmtree(tmp_path / "elsewhere")
    with pytest.raises(WriteError):
        apply_all([AdapterEdits(path, RENAME)], output=str(tmp_path / "file" / "out"))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("trap", ["cycle", "pipe"])
def test_what_cannot_be_copied_is_refused(tmp_path: Path, trap: str) -> None:
    path = Path(make_adapter(tmp_path / "in" / "one", arrays("a")))
    (path / "sub").mkdir()
    if trap == "cycle":
        (path / "sub" / "up").symlink_to("..")
    else:
        os.mkfifo(path / "sub" / "pipe")
    with pytest.raises(RefusedError, match="cannot be copied"):
        apply_all([AdapterEdits(str(path), RENAME)], output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    apply_all([AdapterEdits(str(path), RENAME)])
    assert list(load(path)) == ["b"]


def test_the_cache_of_the_hub_is_not_written_to(tmp_path: Path) -> None:
    """Its snapshots hold links to blobs that other snapshots share."""
    made = Path(make_adapter(tmp_path / "made", arrays("a")))
    blobs, snapshot_ = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot_.mkdir(parents=True)
    for name in (CONFIG_FILE, SAFETENSORS_FILE):
        shutil.move(made / name, blobs / name[::-1])
        (snapshot_ / name).symlink_to(f"../../blobs/{name[::-1]}")
    before = snapshot(tmp_path)
    for edits, name in ((RENAME, SAFETENSORS_FILE), ((SetConfig("/r", 1),), CONFIG_FILE)):
        with pytest.raises(RefusedError) as caught:
            apply_all([AdapterEdits(str(snapshot_), edits)])
        assert caught.value.path == str(snapshot_ / name) and "symbolic link" in caught.value.reason
        assert "Hugging Face cache" in caught.value.reason
    assert snapshot(tmp_path) == before
    apply_all([AdapterEdits(str(snapshot_), RENAME)], output=str(tmp_path / "out"))
    assert not (tmp_path / "out" / "abc" / CONFIG_FILE).is_symlink()
    shutil.rmtree(tmp_path / "out")
    apply_all([AdapterEdits(str(snapshot_), RENAME)], allow_links=True)
    assert list(load(snapshot_)) == ["b"] and not (snapshot_ / SAFETENSORS_FILE).is_symlink()
    after = snapshot(tmp_path)
    link = f"snapshots/abc/{SAFETENSORS_FILE}"
    assert {k: v for k, v in after.items() if k != link} == {k: v for k, v in before.items() if k != link}


def test_hard_links_are_refused_or_parted(tmp_path: Path) -> None:
    path = Path(make_adapter(tmp_path / "one", arrays("a")))
    os.link(path / SAFETENSORS_FILE, tmp_path / "other")
    before = snapshot(tmp_path)
    with pytest.raises(RefusedError, match=r"adapter_model.safetensors: the file has 1 other name"):
        apply_all([AdapterEdits(str(path), RENAME)])
    assert snapshot(tmp_path) == before
    apply_all([AdapterEdits(str(path), (SetConfig("/r", 1),))])
    apply_all([AdapterEdits(str(path), RENAME)], allow_links=True)
    assert list(load(path)) == ["b"] and (tmp_path / "other").read_bytes() == before["other"][0]


def test_an_adapter_may_be_reached_by_a_link(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "checkpoint-7", arrays("a"))
    (tmp_path / "latest").symlink_to("checkpoint-7")
    seen: list[str] = []

    def check(paths: Sequence[str]) -> list[str]:
        seen.extend(os.path.basename(each) for each in paths)
        return []

    apply_all([AdapterEdits(str(tmp_path / "latest"), RENAME)], check=check)
    assert list(load(path)) == ["b"] and seen == ["latest"] and (tmp_path / "latest").is_symlink()


@pytest.mark.parametrize("output", [False, True])
def test_the_check_sees_the_new_state_and_can_refuse_it(tmp_path: Path, output: bool) -> None:
    tensors = arrays("a", "c")
    paths = [make_adapter(tmp_path / "in" / name, tensors, notes="kept") for name in ("one", "two", "three")]
    Path(paths[0], "sub").mkdir()
    Path(paths[0], "sub", "file").write_text("x")
    plans = [
        AdapterEdits(paths[0], (*RENAME, RenameFile("notes.txt", "new.txt"))),
        AdapterEdits(paths[1], (SetConfig("/r", 3),)),
        AdapterEdits(paths[2], ()),
    ]
    before = snapshot(tmp_path)
    out = str(tmp_path / "out") if output else None

    def check(views: Sequence[str]) -> list[str]:
        assert [os.path.basename(view) for view in views] == ["one", "two", "three"]
        assert set(load(views[0])) == {"b", "c"} and set(load(paths[0])) == {"a", "c"}
        assert sorted(os.listdir(views[0])) == [CONFIG_FILE, SAFETENSORS_FILE, "new.txt", "sub"]
        assert Path(views[0], "new.txt").read_text() == "kept" and Path(views[0], "sub", "file").read_text() == "x"
        assert config_of(views[1])["r"] == 3 and set(load(views[1])) == {"a", "c"}
        assert config_of(views[2])["r"] == 8
        return ["AL101 in one", "AL102 in two"]

    with pytest.raises(ProofError, match=r"AL101 in one \(and 1 more\)") as caught:
        apply_all(plans, output=out, check=check)
    assert caught.value.complaints == ("AL101 in one", "AL102 in two")
    assert snapshot(tmp_path) == before

    def broken(_: Sequence[str]) -> list[str]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        apply_all(plans, output=out, check=broken)
    assert snapshot(tmp_path) == before
    apply_all(plans, output=out, check=lambda _: [])
    assert set(load(tmp_path / "out" / "one" if output else paths[0])) == {"b", "c"}


@pytest.mark.parametrize("output", [False, True])
def test_a_file_that_changes_meanwhile_is_not_overwritten(tmp_path: Path, output: bool) -> None:
    path = make_adapter(tmp_path / "in" / "one", arrays("a"))

    def check(_: Sequence[str]) -> list[str]:
        Path(path, CONFIG_FILE).write_text("{}")
        return []

    plan = AdapterEdits(path, (*RENAME, SetConfig("/r", 1)))
    with pytest.raises(WriteError, match=r"adapter_config.json: something else has changed"):
        apply_all([plan], output=str(tmp_path / "out") if output else None, check=check)
    assert list(load(path)) == ["a"] and config_of(path) == {} and not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", [False, True])
def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, output: bool) -> None:
    path = make_adapter(tmp_path / "in" / "one", arrays("a"), old="1")

    def check(_: Sequence[str]) -> list[str]:
        Path(path, "new.txt").write_text("2")
        return []

    plan = AdapterEdits(path, (RenameFile("old.txt", "new.txt"),))
    with pytest.raises(WriteError, match=r"new.txt: something else has changed"):
        apply_all([plan], output=str(tmp_path / "out") if output else None, check=check)
    assert Path(path, "old.txt").read_text() == "1" and Path(path, "new.txt").read_text() == "2"


def test_a_log_that_grows_meanwhile_does_no_harm_in_place(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "one", arrays("a"), log="1")
    apply_all([AdapterEdits(path, RENAME)], check=lambda _: [] if Path(path, "log.txt").write_text("22") else ["?"])
    assert list(load(path)) == ["b"] and Path(path, "log.txt").read_text() == "22"


def test_more_adapters_than_files_may_be_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    paths = [make_adapter(tmp_path / str(number), arrays("a")) for number in range(80)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (60, {hard}))\n{UNPRIVILEGED}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code.replace("os.geteuid() == 0", "False"), "", *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert all(list(load(path)) == ["b"] for path in paths)


UNPRIVILEGED = """
import os, sys
from adapterlint.findings import RenameTensor
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import WriteError
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
try:
    apply_all([AdapterEdits(path, (RenameTensor("a", "b"),)) for path in sys.argv[2:]], output=sys.argv[1] or None)
except WriteError as error:
    print(error)
"""


def unprivileged(output: str, *paths: str) -> str:
    """Runs a fix as nobody, since root may write everywhere; returns the text of the WriteError."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", UNPRIVILEGED, output, *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory that other users can reach."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def test_a_directory_that_cannot_be_written_to(open_tmp: Path) -> None:
    paths = [make_adapter(open_tmp / name, arrays("a")) for name in ("one", "two")]
    for path in paths:
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
            for name in os.listdir(path):
                os.chown(Path(path, name), 65534, 65534)
    Path(paths[1]).chmod(0o555)
    before = snapshot(open_tmp)
    assert unprivileged("", *paths) == f"{paths[1]}: Permission denied\n"
    assert unprivileged(os.path.join(paths[1], "..", "two", "out"), paths[0]).endswith("two/out: Permission denied\n")
    assert snapshot(open_tmp) == before
    Path(paths[1]).chmod(0o755)


def test_a_copy_of_a_directory_that_cannot_be_written_to(open_tmp: Path) -> None:
    """The copy can: else its owner could not put it in place."""
    path = Path(make_adapter(open_tmp / "one", arrays("a")))
    (open_tmp / "out").mkdir()
    if os.geteuid() == 0:
        for each in (path, *path.iterdir(), open_tmp / "out"):
            os.chown(each, 65534, 65534)
    path.chmod(0o555)
    assert unprivileged(str(open_tmp / "out"), str(path)) == ""
    assert list(load(open_tmp / "out" / "one")) == ["b"] and list(load(path)) == ["a"]
    assert stat.S_IMODE((open_tmp / "out" / "one").stat().st_mode) == 0o755
    path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the file to somebody else")
def test_a_file_that_belongs_to_somebody_else(open_tmp: Path) -> None:
    path = make_adapter(open_tmp / "one", arrays("a"))
    os.chown(path, 65534, 65534)
    Path(path, SAFETENSORS_FILE).chmod(0o644)
    before = snapshot(open_tmp)
    assert "cannot be given to 0:0, who owns the old one" in unprivileged("", path)
    assert snapshot(open_tmp) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("cannot mount a file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("known", [True, False])
def test_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Noticed beforehand; and if the file system does not tell, when it is full."""
    tensors = arrays("a", rows=512, columns=600)
    path = make_adapter(small_disk / "one", tensors)
    (small_disk / "filler").write_bytes(bytes(2 << 20))
    before = snapshot(small_disk)
    if not known:
        monkeypatch.setattr("adapterlint.fixing.apply._require_space", lambda _: None)
    words = "not enough space: .* are needed" if known else "No space left on device"
    with pytest.raises(WriteError, match=words) as caught:
        apply_all([AdapterEdits(path, RENAME)])
    assert caught.value.path == (path if known else os.path.join(path, SAFETENSORS_FILE))
    with pytest.raises(WriteError, match=words):
        apply_all([AdapterEdits(path, RENAME)], output=str(small_disk / "out"))
    assert snapshot(small_disk) == before
    os.unlink(small_disk / "filler")
    apply_all([AdapterEdits(path, RENAME)])
    assert_same(load(path), {"b": tensors["a"]})


def test_a_copy_to_another_file_system(small_disk: Path, tmp_path: Path) -> None:
    tensors = arrays("a", rows=200)
    path = make_adapter(tmp_path / "one", tensors)
    apply_all([AdapterEdits(path, RENAME)], output=str(small_disk / "out"))
    assert_same(load(small_disk / "out" / "one"), {"b": tensors["a"]})


def test_errors_survive_a_process_pool() -> None:
    errors: list[FixError] = [
        PlanError("p", "r"), RefusedError("p", "r"), WriteError("p", "r"), ProofError("p", "r", ("c",)),
    ]  # fmt: skip
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == "p: r"
        assert getattr(again, "complaints", ()) == getattr(error, "complaints", ())


def test_an_unreadable_base_is_named(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", arrays("head"))
    path = make_adapter(tmp_path / "one", arrays("a"))
    os.unlink(tmp_path / "base" / "model.safetensors")
    with pytest.raises(WriteError) as caught:
        apply_all([AdapterEdits(path, (CopyTensor("h", "head"),), base)])
    assert caught.value.path == str(tmp_path / "base" / "model.safetensors")
    assert os.strerror(errno.ENOENT) in caught.value.reason and os.listdir(path).count(STAGE) == 0
