"""Moving bytes and attributes: with the kernel's copy, without it, and when it gives up half-way."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest
from fixing_util import arrays, assert_same, load, make_adapter

from adapterlint.findings import CONFIG_FILE, SAFETENSORS_FILE, RenameTensor, SetConfig
from adapterlint.fixing import rewrite, system
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import WriteError
from adapterlint.fixing.rewrite import copy_range

DATA = random.Random(5).randbytes(3 * (1 << 20) + 12345)


def fail(code: int) -> Callable[..., int]:
    def copy_file_range(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return copy_file_range


def partly(*_: object) -> int:
    """Copies 1000 bytes, then says that there is no more."""
    source, target, size, at, to = _
    if partly.calls:  # type: ignore[attr-defined]
        return 0
    partly.calls += 1  # type: ignore[attr-defined]
    return os.pwrite(target, os.pread(source, min(1000, size), at), to)  # type: ignore[call-overload]


@pytest.fixture(params=["kernel", "absent", "EXDEV", "EINVAL", "ENOSYS", "EOPNOTSUPP", "EPERM", "partly"])
def copying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way in which copy_file_range can be there or not."""
    kind: str = request.param
    if kind == "absent":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    elif kind == "partly":
        partly.calls = 0  # type: ignore[attr-defined]
        monkeypatch.setattr(os, "copy_file_range", partly)
    elif kind != "kernel":
        monkeypatch.setattr(os, "copy_file_range", fail(getattr(errno, kind)))
    return kind


@contextmanager
def both(home: Path) -> Iterator[tuple[FileIO, FileIO]]:
    """The files ``old``, open for reading, and ``new``, for writing."""
    with open(home / "old", "rb", buffering=0) as source, open(home / "new", "w+b", buffering=0) as target:
        yield source, target


@pytest.mark.parametrize(
    ("offset", "to", "size"),
    [(0, 0, len(DATA)), (100, 100, len(DATA) - 100), (100, 4196, 2 << 20), (7, 9, 1 << 20), (4096, 0, 5), (50, 50, 10)],
)
def test_a_range_is_copied_whole(tmp_path: Path, copying: str, offset: int, to: int, size: int) -> None:
    (tmp_path / "old").write_bytes(DATA)
    with both(tmp_path) as (source, target):
        copy_range(source, offset, target, to, size)
    assert (tmp_path / "new").read_bytes() == bytes(to) + DATA[offset : offset + size]


def test_the_disk_is_told_of_what_the_kernel_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "STEP", 1 << 20)
    (tmp_path / "old").write_bytes(DATA)
    told: list[tuple[int, int]] = []
    with both(tmp_path) as (source, target):
        copy_range(source, 4196, target, 100, len(DATA) - 4196, lambda offset, size: told.append((offset, size)))
    assert (tmp_path / "new").read_bytes() == bytes(100) + DATA[4196:]
    ends = [offset + size for offset, size in told]
    assert [offset for offset, _ in told] == [rewrite.PIPE, *ends[:-1]] and ends[-1] == len(DATA) - 4096
    assert len(told) >= 3 and max(size for _, size in told) <= 1 << 20


@pytest.mark.parametrize("there", [True, False])
def test_a_large_file_is_the_same_whether_the_disk_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(rewrite, "LARGE", 1)
    monkeypatch.setattr(rewrite, "STEP", 1 << 17)
    calls: list[tuple[int, ...]] = []
    real = system._sync_file_range()

    def spy(*arguments: int) -> int:
        calls.append(arguments)
        assert real is not None
        return real(*arguments)

    monkeypatch.setattr(system, "_sync_file_range", lambda: spy if there and real is not None else None)
    tensors = arrays("a", "b", rows=300, columns=500)
    path = make_adapter(tmp_path / "a", tensors)
    apply_all([AdapterEdits(path, (RenameTensor("a", "c"),))])
    assert_same(load(path), {"c": tensors["a"], "b": tensors["b"]})
    assert bool(calls) == (there and real is not None)
    assert sum(size for _, _, size, _ in calls) <= 2 * 300 * 500 * 4


def test_a_source_that_ends_early_is_an_error(tmp_path: Path, copying: str) -> None:
    (tmp_path / "old").write_bytes(b"12345")
    with both(tmp_path) as (source, target), pytest.raises(OSError, match="ends 2 bytes too early"):
        copy_range(source, 1, target, 0, 6)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EFBIG])
def test_other_errors_are_not_tried_again_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    (tmp_path / "old").write_bytes(b"12345")
    monkeypatch.setattr(os, "copy_file_range", fail(code))
    with both(tmp_path) as (source, target), pytest.raises(OSError) as caught:
        copy_range(source, 0, target, 0, 5)
    assert caught.value.errno == code


def test_short_writes_are_continued(tmp_path: Path, copying: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reluctant(FileIO):
        def write(self, data: object) -> int:
            return super().write(memoryview(data)[:1000])  # type: ignore[arg-type]

    (tmp_path / "old").write_bytes(DATA[:100_000])
    with open(tmp_path / "old", "rb", buffering=0) as source, Reluctant(tmp_path / "new", "w+") as target:
        copy_range(source, 5, target, 5, 90_000)
    assert (tmp_path / "new").read_bytes() == bytes(5) + DATA[5:90_005]


def test_an_adapter_is_rewritten_without_the_kernel_too(tmp_path: Path, copying: str) -> None:
    tensors = arrays("a", "b", rows=300, columns=500)
    path = make_adapter(tmp_path / "a", tensors)
    proof = apply_all([AdapterEdits(path, (RenameTensor("a", "c"),))])[0]
    assert_same(load(path), {"c": tensors["a"], "b": tensors["b"]})
    assert proof.bytes_compared == 2 * 300 * 500 * 4


def both_files(path: str) -> list[Path]:
    return [Path(path, CONFIG_FILE), Path(path, SAFETENSORS_FILE)]


EDITS = (SetConfig("/r", 4), RenameTensor("a", "b"))


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o444, 0o400, 0o755, 0o2755])
def test_modes_stay(tmp_path: Path, mode: int) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    for file in both_files(path):
        file.chmod(mode)
    apply_all([AdapterEdits(path, EDITS)])
    apply_all([AdapterEdits(path, (SetConfig("/r", 5),))], output=str(tmp_path / "out"))
    for file in (*both_files(path), *both_files(str(tmp_path / "out" / "a"))):
        assert stat.S_IMODE(file.stat().st_mode) == mode
    assert "b" in load(path)


def test_extended_attributes_stay_and_inherited_ones_go(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    config, weights = both_files(path)
    try:
        os.setxattr(weights, "user.origin", b"train-7")
        os.setxattr(config, "user.note", b"\x00\xff")
    except OSError:
        pytest.skip("no extended attributes on this file system")
    apply_all([AdapterEdits(path, EDITS)])
    apply_all([AdapterEdits(path, (SetConfig("/r", 5),))], output=str(tmp_path / "out"))
    for directory in (path, str(tmp_path / "out" / "a")):
        config, weights = both_files(directory)
        assert os.listxattr(weights) == ["user.origin"] and os.getxattr(weights, "user.origin") == b"train-7"
        assert os.listxattr(config) == ["user.note"] and os.getxattr(config, "user.note") == b"\x00\xff"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as Linux stores it: version 2, then tag, permissions and id of each entry."""
    return (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, permissions, who in entries
    )


def test_access_control_lists_stay_and_the_directory_s_default_does_not_spread(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    config, weights = both_files(path)
    nobody = 0xFFFFFFFF
    listed = acl((1, 6, nobody), (2, 4, 1234), (4, 4, nobody), (16, 4, nobody), (32, 0, nobody))
    try:
        os.setxattr(weights, "system.posix_acl_access", listed)
        os.setxattr(path, "system.posix_acl_default", acl((1, 7, nobody), (2, 7, 99), (4, 7, nobody), (16, 7, nobody), (32, 7, nobody)))  # fmt: skip
    except OSError:
        pytest.skip("no access control lists on this file system")
    mode = stat.S_IMODE(config.stat().st_mode)
    apply_all([AdapterEdits(path, EDITS)])
    assert os.getxattr(weights, "system.posix_acl_access") == listed
    assert os.listxattr(config) == [] and stat.S_IMODE(config.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_stay(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    for file in both_files(path):
        os.chown(file, 1234, 4321)
    apply_all([AdapterEdits(path, EDITS)])
    assert [(file.stat().st_uid, file.stat().st_gid) for file in both_files(path)] == [(1234, 4321)] * 2


def test_an_owner_that_cannot_be_kept_is_an_error_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    real = os.stat

    def foreign(target: object, **options: object) -> os.stat_result:
        status = real(target, **options)  # type: ignore[arg-type]
        if str(target) == str(Path(path, SAFETENSORS_FILE)):
            return os.stat_result((*status[:4], 99, *status[5:10]))
        return status

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "stat", foreign)
    monkeypatch.setattr(os, "chown", refuse)
    before = Path(path, SAFETENSORS_FILE).read_bytes()
    with pytest.raises(WriteError, match="cannot be given to 99"):
        apply_all([AdapterEdits(path, (RenameTensor("a", "b"),))])
    assert Path(path, SAFETENSORS_FILE).read_bytes() == before
    apply_all([AdapterEdits(path, (RenameTensor("a", "b"),))], output=str(tmp_path / "out"))
    assert "b" in load(tmp_path / "out" / "a")


def test_zero_tensors_take_no_room(tmp_path: Path) -> None:
    from adapterlint.findings import ZeroTensor

    path = make_adapter(tmp_path / "a", arrays("a"))
    apply_all([AdapterEdits(path, (ZeroTensor("z", "F32", (4096, 4096)),))])
    file = Path(path, SAFETENSORS_FILE)
    assert not load(path)["z"].any()
    probe = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=False)
    if probe.stdout.strip() in ("ext2/ext3", "xfs", "btrfs", "tmpfs"):
        assert file.stat().st_blocks * 512 < 1 << 20 < file.stat().st_size
