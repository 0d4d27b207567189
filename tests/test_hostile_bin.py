"""Torch files that would do harm: `check` and `fix` in a process of its own, with limits that the system enforces.

No code runs, memory stays below 200 MB, time below 5 s, and the report or the refusal says what is wrong.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hostile_util import assert_clean, shell

sys.path.insert(0, str(Path(__file__).parent / "reading"))
import bin_samples as samples
from bin_samples import NAME, archive, group, legacy, mapping, number, storage, tensor, text

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
MEMORY = 200 << 20
LIMITS = {"DATA_LIMIT": str(1 << 29), "OPENBLAS_NUM_THREADS": "1"}
FIX = ("fix", "--unsafe-fixes", "--inplace", "--no-sets")
MEGA = 1 << 20
EVERY = FIX + tuple(f"--select={rule}" for rule in ("AL007", "AL008", "AL009", "AL010", "AL003", "AL005"))


def directory(path: Path, content: bytes, name: str = PICKLE) -> Path:
    path.mkdir(parents=True)
    (path / CONFIG).write_text(json.dumps(SETTINGS))
    (path / name).write_bytes(content)
    return path


def checked(path: Path) -> set[str]:
    """Check it; the rules that report."""
    done = shell("check", path, "--format", "json", env=LIMITS)
    assert done.code in (0, 1), done.stderr
    assert 0 < done.memory < MEMORY, done.memory >> 20
    report = json.loads(done.stdout)
    assert_clean(done.stdout + done.stderr)
    return {finding["rule"] for finding in report["findings"]}


def fixed(path: Path) -> str:
    """Mend what can be; what was said."""
    done = shell(*EVERY, path, env=LIMITS)
    assert done.code in (0, 1, 2), done.stderr
    assert 0 < done.memory < MEMORY, done.memory >> 20
    assert_clean(done.stdout + done.stderr)
    return done.stdout + done.stderr


def whole(path: Path, content: bytes) -> bool:
    """Whether the file is as it was and nothing lies beside."""
    return sorted(os.listdir(path)) == [CONFIG, PICKLE] and (path / PICKLE).read_bytes() == content


# -- code ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["zip", "legacy", "bare", "deflated"])
def test_no_payload_runs(container: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    root = tmp_path / "adapters"
    found = {name: data for name, data in samples.attacks(str(canary)).items() if name.startswith(container)}
    for name, content in found.items():
        directory(root / name, content)
    report = shell("check", root, "--no-sets", "--format", "json", env=LIMITS)
    assert 0 < report.memory < MEMORY
    adapters = {Path(item["path"]).name: item for item in json.loads(report.stdout)["adapters"]}
    assert adapters.keys() == found.keys()
    for name, item in adapters.items():
        assert all(verdict["outcome"] == "raises" for verdict in item["verdicts"].values()), name
        assert {rule for verdict in item["verdicts"].values() for rule in verdict["rules"]} & {"AL005", "AL008"}, name
    done = shell(*EVERY, root, limit=20, env=LIMITS)
    assert done.code in (0, 1), done.stderr
    assert done.memory < MEMORY
    assert_clean(done.stdout + done.stderr)
    assert not canary.exists()
    for name, content in found.items():
        here = sorted(os.listdir(root / name))
        if here == [CONFIG, WEIGHTS]:  # its one tensor, described in full beside an object
            data = (root / name / WEIGHTS).read_bytes()
            assert data.endswith(samples.EIGHT_FLOATS) and data.count(NAME.encode()) == 1, name
        else:
            assert whole(root / name, content), name


# -- memory and time -------------------------------------------------------------------------------------------------

BOMBS = samples.bombs()


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_in_a_finding(name: str, tmp_path: Path) -> None:
    content = BOMBS[name]()
    path = directory(tmp_path / "a", content)
    assert checked(path) & {"AL005", "AL006", "AL007", "AL008"}
    fixed(path)
    assert whole(path, content) or sorted(os.listdir(path)) == [CONFIG, WEIGHTS]
    assert not (path / WEIGHTS).exists() or (path / WEIGHTS).stat().st_size < 64 * MEGA


def many(count: int, value: Callable[[int], bytes]) -> bytes:
    """A pickle of a dictionary of that many entries."""
    entries = b"".join(text(f"base_model.model.layers.{n}.q_proj.lora_A.weight") + value(n) for n in range(count))
    return b"\x80\x02}(" + entries + b"u."


def expanded() -> bytes:
    return archive(mapping(a=tensor(storage("0", 8), 0, (1 << 20, 1 << 20), (0, 0))))


def expanded_by_the_thousand() -> bytes:
    view = tensor(storage("0", MEGA // 4), 0, (256, 1024), (1024, 1))
    return archive(many(2000, lambda n: view), {"0": bytes(MEGA)})


def one_byte_views() -> bytes:
    return archive(many(10_000, lambda n: tensor(storage("0", 8), n % 8, (1,), (1,))))


def spread() -> bytes:
    return legacy(mapping(a=tensor(storage("0", 1 << 28, legacy=True), 0, (1 << 12,), (1 << 16,))), {"0": b""})


def deflated_storage() -> bytes:
    size = 1 << 28
    return archive(
        mapping(a=tensor(storage("0", size // 4), 0, (size // 4,), (1,))), {"0": bytes(size)}, deflate=["data/0"]
    )


def many_dimensions() -> bytes:
    return archive(mapping(a=tensor(storage("0", 8), 0, [1] * 250 + [2, 2, 2], [1] * 250 + [1, 2, 4])))


def many_small_dimensions() -> bytes:
    return archive(mapping(a=tensor(storage("0", 8), 0, [2] * 60, [0] * 60)))


def overlapping(count: int = 400) -> bytes:
    """Members of 1 MB that all lie in the same place: each is behind a local header within the one before."""
    names = [f"a/data/{n}".encode() for n in range(count)]
    pickled = many(count, lambda n: tensor(storage(str(n), MEGA // 4), 0, (256, 1024), (1024, 1)))
    out = io.BytesIO()
    directory: list[bytes] = []

    def add(name: bytes, size: int, offset: int) -> None:
        directory.append(struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, size, size,
                                     len(name), 0, 0, 0, 0, 0, offset) + name)  # fmt: skip

    def header(name: bytes, size: int) -> None:
        out.write(struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, size, size, len(name), 0) + name)

    for name, data in ((b"a/data.pkl", pickled), (b"a/version", b"3\n"), (b"a/byteorder", b"little")):
        add(name, len(data), out.tell())
        header(name, len(data))
        out.write(data)
    for name in names:
        add(name, MEGA, out.tell())
        header(name, MEGA)
    out.write(bytes(MEGA + 64 * count))
    start = out.tell()
    out.write(b"".join(directory))
    count = len(directory)
    out.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, out.tell() - start, start, 0))
    return out.getvalue()


GROWING: dict[str, tuple[Callable[[], bytes], str]] = {
    "expanded": (expanded, "views of shared bytes"),
    "expanded by the thousand": (expanded_by_the_thousand, "views of shared bytes"),
    "overlapping members": (overlapping, "views of shared bytes"),
    "deflated storage": (deflated_storage, "compressed"),
    "many small dimensions": (many_small_dimensions, "views of shared bytes"),
}


@pytest.mark.parametrize("name", GROWING)
def test_what_would_grow_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = GROWING[name]
    content = make()
    path = directory(tmp_path / "a", content)
    assert checked(path) & {"AL007", "AL008"}
    assert reason in fixed(path)
    assert whole(path, content)


@pytest.mark.parametrize("make", [one_byte_views, many_dimensions], ids=lambda make: make.__name__)
def test_what_is_odd_and_small_is_moved_in_time(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = directory(tmp_path / "a", make())
    assert "AL007" in checked(path)
    assert "converted" in fixed(path)
    assert sorted(os.listdir(path)) == [CONFIG, WEIGHTS]


def test_a_view_of_storage_that_is_not_there(tmp_path: Path) -> None:
    content = spread()
    path = directory(tmp_path / "a", content)
    assert checked(path) & {"AL005", "AL008"}
    fixed(path)
    assert whole(path, content)


# -- tricks ----------------------------------------------------------------------------------------------------------


def calls(*tricks: bytes) -> list[bytes]:
    return [archive(mapping(a=samples.ONE, x=trick)) for trick in tricks]


def named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


REDUCED = calls(
    named("collections", "OrderedDict") + b"q\x05" + b"h\x05" * 3 + b"\x87R",
    named("collections", "OrderedDict") + b"](](K\x01K\x02ee\x85R",
    named("collections", "Counter") + b"}\x85R",
    named("builtins", "bytearray") + number(1 << 60) + b"\x85R",
    named("__builtin__", "bytearray") + number(1 << 38) + b"\x85R",
    named("builtins", "set") + b"\x8f\x85R",
    named("builtins", "complex") + text("1e9j") + b"\x85R",
    named("_codecs", "encode") + group(text("x" * 100), text("zip_codec")) + b"R",
    named("_codecs", "encode") + group(text("x" * 100), text("idna")) + b"R",
    named("torch", "Size") + b"](" + number(1 << 62) * 50 + b"e\x85R",
    named("torch", "device") + text("../../etc/passwd") + b"\x85R",
    named("torch", "Tensor") + b")R}" + text("__class__") + named("torch", "FloatStorage") + b"sb",
    named("torch._utils", "_rebuild_tensor_v2") + b")R",
    named("torch._utils", "_rebuild_tensor_v2") + group(storage("0", 8), number(-1), b")", b")", b"\x89", b"N") + b"R",
    named("torch._utils", "_rebuild_tensor_v2") + group(storage("0", 8), number(0), group(number(1 << 63)), group(number(1)),
                                                        b"\x89", b"N") + b"R",
    named("torch._utils", "_rebuild_sparse_tensor") + group(named("torch.serialization", "_get_layout"), b")") + b"R",
    named("torch._tensor", "_rebuild_from_type_v2") + group(named("torch._tensor", "_rebuild_from_type_v2"), b"NNN") + b"R",
    named("torch.nn.parameter", "Parameter") + samples.ONE + b"\x85R}b",
)  # fmt: skip


def lying(change: Callable[[bytes], bytes]) -> bytes:
    return change(archive())


def at(data: bytes, signature: bytes, name: bytes, field: int, value: bytes) -> bytes:
    """Change a field of the header with that signature that belongs to a member."""
    length = {b"PK\x01\x02": 46, b"PK\x03\x04": 30}[signature]
    whole_name = b"adapter_model/" + name
    start = data.index(whole_name)
    while data[start - length : start - length + 4] != signature:
        start = data.index(whole_name, start + 1)
    place = start - length + field
    return data[:place] + value + data[place + len(value) :]


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a local header elsewhere": lambda data: at(data, b"PK\x01\x02", b"data/0", 42, struct.pack("<I", 3)),
    "a local name of 64 kB": lambda data: at(data, b"PK\x03\x04", b"data/0", 26, b"\xff\xff"),
    "a local extra field of 64 kB": lambda data: at(data, b"PK\x03\x04", b"data/0", 28, b"\xff\xff"),
    "a size of 4 GB": lambda data: at(data, b"PK\x01\x02", b"data/0", 20, struct.pack("<II", 0xFFFFFFFE, 0xFFFFFFFE)),
    "zip64 without its field": lambda data: at(data, b"PK\x01\x02", b"data/0", 20, b"\xff" * 8),
    "an unknown method": lambda data: at(data, b"PK\x01\x02", b"data/0", 10, b"\x0c\0"),
    "encrypted": lambda data: at(data, b"PK\x01\x02", b"data/0", 8, b"\1\0"),
    "a comment that holds an archive": lambda data: data[:-2] + struct.pack("<H", len(data)) + data,
    "65,535 members": lambda data: data[:-14] + b"\xff\xff\xff\xff" + data[-10:],
    "a directory that begins at its end": lambda data: data[:-6] + struct.pack("<I", len(data)) + data[-2:],
    "cut in the directory": lambda data: data[:-30],
    "data in front": lambda data: b"PK\x03\x04" + bytes(4096) + data,
    "twice": lambda data: data + data,
}


def paths(*keys: str) -> Iterable[bytes]:
    for key in keys:
        yield archive(mapping(a=tensor(storage(key, 8), 0, (2, 4), (4, 1))), {key: samples.EIGHT_FLOATS})


PATHS = list(paths("../../../../etc/passwd", "/etc/passwd", "..\\..\\x", "0/../../1", "con", "\x1b[2J", "a" * 3000))


def test_tricks_of_calls_and_archives(tmp_path: Path) -> None:
    """All in one process: what is read is moved as torch would load it, the rest stays, and nothing lies elsewhere."""
    import torch
    from safetensors.torch import load_file

    root = tmp_path / "adapters"
    contents = {f"call-{n}": data for n, data in enumerate(REDUCED)}
    contents |= {f"lie-{n}": lying(change) for n, change in enumerate(LIES.values())}
    contents |= {f"path-{n}": data for n, data in enumerate(PATHS)}
    for name, content in contents.items():
        directory(root / name, content)
    report = shell("check", root, "--no-sets", "--format", "json", env=LIMITS)
    assert 0 < report.memory < MEMORY
    assert {Path(item["path"]).name for item in json.loads(report.stdout)["adapters"]} == contents.keys()
    done = shell(*EVERY, root, limit=20, env=LIMITS)
    assert done.code in (0, 1), done.stderr
    assert 0 < done.memory < MEMORY
    assert_clean(done.stdout + done.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapters"]
    moved = 0
    for name, content in contents.items():
        if whole(root / name, content):
            continue
        assert sorted(os.listdir(root / name)) == [CONFIG, WEIGHTS], name
        try:
            wanted = torch.load(io.BytesIO(content), weights_only=True)[NAME]
        except (MemoryError, TypeError, ValueError):  # of the object beside the tensor, not of the tensor
            wanted = torch.arange(8.0).reshape(2, 4)
        assert torch.equal(load_file(root / name / WEIGHTS)[NAME], wanted), name
        moved += 1
    assert moved > 8


@pytest.mark.parametrize("member", ["data.pkl", "version", "byteorder"])
def test_a_member_of_a_gigabyte(member: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in (
            ("data.pkl", samples.HEALTHY),
            ("version", b"3\n"),
            ("byteorder", b"little"),
            ("data/0", bytes(32)),
        ):
            if name != member:
                target.writestr(f"a/{name}", data)
                continue
            with target.open(f"a/{name}", "w") as out:
                for _ in range(256):
                    out.write(bytes(MEGA))
    path = directory(tmp_path / "a", packed.getvalue())
    assert checked(path) & {"AL005", "AL008"}
    fixed(path)
    assert whole(path, packed.getvalue())


def test_a_sparse_terabyte(tmp_path: Path) -> None:
    """A file of 1 TB that takes no room: its tensor is not copied where it cannot fit."""
    path = directory(tmp_path / "a", b"")
    size = 1 << 40
    pickled = mapping(a=tensor(storage("0", size // 8, kind="DoubleStorage", legacy=True), 0, (size // 8,), (1,)))
    head = legacy(pickled, {"0": b""}, itemsize=8)
    with (path / PICKLE).open("wb") as file:
        file.write(head[:-8] + struct.pack("<q", size // 8))
        file.truncate(len(head) + size)
    assert checked(path)
    said = fixed(path)
    assert "space" in said or "larger" in said or "MiB" in said or "refused" in said or "claims" in said, said
    assert sorted(os.listdir(path)) == [CONFIG, PICKLE]
