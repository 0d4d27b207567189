"""Bad input that is too large to keep, that Git does not hold, or that is one of many: made here, then checked."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_util import MEMORY, PROJECT, SEED_BASE, assert_clean, invoke, shell, time_limit

from adapterlint.model.schema import config_type
from adapterlint.rules.examples import Example, SetExample, write_any
from adapterlint.rules.registry import all_rules
from adapterlint.run import Request, examine

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
SEED = PROJECT / "fixtures" / "sets" / "seed" / "d"
COMMANDS = (("check", "--format", "json"), ("check",), ("fix",), ("show",))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy of a healthy adapter of the seed base."""
    return Path(shutil.copytree(SEED, tmp_path / "adapter"))


def run_all(directory: Path, *options: object) -> dict[str, Any]:
    """Every command in a process of its own: in time, in memory, without a traceback; returns the JSON report."""
    report: dict[str, Any] = {}
    for command in COMMANDS:
        done = shell(*command, directory, *(options if command[0] != "show" else ()))
        assert done.code in (0, 1, 3) or (command[0] == "fix" and done.code == 2), done.stderr
        assert done.memory < MEMORY, (command, done.memory)
        assert_clean(done.stdout + done.stderr)
        if "json" in command:
            report = json.loads(done.stdout)
    return report


def rules(report: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in report["findings"]}


# -- large ---------------------------------------------------------------------------------------------------------


def weights(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def long_name() -> bytes:
    shape = {"dtype": "F32", "shape": [4, 16], "data_offsets": [0, 256]}
    return weights(json.dumps({f"base_model.model.{'a.' * 50_000}lora_A.weight": shape}).encode(), bytes(256))


def many_names() -> bytes:
    entry = {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}
    return weights(json.dumps({f"base_model.model.layers.{n}.q.lora_A.weight": entry for n in range(20_000)}).encode())


LARGE: dict[str, tuple[str, Callable[[], bytes], set[str]]] = {
    "a name of 100 kB": (WEIGHTS, long_name, {"AL205", "AL208", "AL401"}),
    "20,000 tensors": (WEIGHTS, many_names, {"AL209"}),
    "a header of a million braces": (WEIGHTS, lambda: weights(b'{"a":' * 1_000_000), {"AL005"}),
    "a header of a million brackets": (WEIGHTS, lambda: weights(b'{"a":' + b"[" * 1_000_000), {"AL005"}),
    "a config of a million brackets": (CONFIG, lambda: b"[" * 1_000_000, {"AL101"}),
    "a config of a million braces": (CONFIG, lambda: b'{"a":' * 1_000_000, {"AL101"}),
    "a config with a number of a million digits": (CONFIG, lambda: b'{"r": ' + b"9" * 1_000_000 + b"}", {"AL101"}),
    "a config of 9 MB": (CONFIG, lambda: b'{"r": "' + b"x" * 9_000_000 + b'"}', {"AL101"}),
    "a config on one line of 1 MB": (
        CONFIG,
        lambda: (SEED / CONFIG).read_bytes().replace(b'"bias"', b'"zzz": "' + b"\\u001b" * 180_000 + b'", "bias"'),
        {"AL103"},
    ),
}


@pytest.mark.parametrize("what", LARGE)
def test_large(what: str, adapter: Path) -> None:
    name, make, expected = LARGE[what]
    (adapter / name).write_bytes(make())
    report = run_all(adapter)
    assert rules(report) & expected, rules(report)


@pytest.mark.parametrize("opcode", [b"]", b"(", b"\x8f", b"N\x85"], ids=["lists", "marks", "sets", "tuples"])
def test_deflated_bomb(opcode: bytes, adapter: Path) -> None:
    """40 MB of opcodes in a file of 40 kB."""
    (adapter / WEIGHTS).unlink()
    with zipfile.ZipFile(adapter / PICKLE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + opcode * (40_000_000 // len(opcode)) + b".")
        archive.writestr("archive/version", b"3\n")
    assert rules(run_all(adapter)) & {"AL005", "AL008"}


# -- what is no plain file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, PICKLE])
@pytest.mark.parametrize("kind", ["pipe", "endless", "socket", "sparse", "to itself", "to nowhere"])
def test_no_plain_file(name: str, kind: str, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = adapter / name
    if name == PICKLE:
        (adapter / WEIGHTS).unlink()
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        monkeypatch.chdir(adapter)  # the path of a socket has to be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to(path.name if kind == "to itself" else "/nowhere/at/all")
    report = run_all(adapter)
    assert rules(report) & {"AL001", "AL002", "AL005", "AL101"}, rules(report)
    assert all(verdict["outcome"] != "loads" for verdict in report["adapters"][0]["verdicts"].values())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, ""])
def test_unreadable(name: str, adapter: Path) -> None:
    (adapter / name).chmod(0)
    try:
        report = run_all(adapter)
    finally:
        (adapter / name).chmod(0o700)
    assert all(verdict["outcome"] != "loads" for item in report["adapters"] for verdict in item["verdicts"].values())


def test_directories_in_a_circle(adapter: Path) -> None:
    (adapter / "again").symlink_to(".")
    (adapter / "up").symlink_to("..")
    assert len(run_all(adapter)["adapters"]) == 1


@pytest.mark.parametrize(
    "name",
    [
        b"line\nbreak",
        b"\x1b[2Jclear",
        b"\xff\xfe",
        b"-h",
        b"::error::x",
        "\u202egnp".encode(),
        b"a" * 250,
        b"%41&;$(id)",
    ],
    ids=["line", "escape", "bytes", "option", "command", "right-to-left", "long", "shell"],
)
def test_directory_names(name: bytes, tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(name)
    shutil.copytree(SEED, directory)
    report = run_all(directory, "--base", SEED_BASE)
    assert [item["outcome"] for item in report["adapters"][0]["verdicts"].values()] == ["loads"]
    for format_ in ("concise", "github"):
        done = shell("check", tmp_path, "--format", format_)
        assert done.code == 0, done.stderr
        assert_clean(done.stdout)


# -- bases ---------------------------------------------------------------------------------------------------------

BASES: dict[str, dict[str, bytes]] = {
    "empty config": {"config.json": b""},
    "list": {"config.json": b"[]"},
    "deep": {"config.json": b"[" * 100_000},
    "numbers for names": {
        "config.json": b'{"architectures": 5, "model_type": [], "tie_word_embeddings": {}, "auto_map": 1}'
    },
    "quantised by a number": {"config.json": b'{"model_type": "bert", "quantization_config": 5, "text_config": [1]}'},
    "truncated weights": {"model.safetensors": b"\xff" * 7},
    "weights that lie": {"model.safetensors": struct.pack("<Q", 1 << 62) + b"{}"},
    "index outside": {
        "model.safetensors.index.json": b'{"weight_map": {"a": "../../../etc/passwd", "b": "/dev/zero", "c": 5, "d": null}}'
    },
    "index of a list": {"model.safetensors.index.json": b'{"weight_map": ["a"]}'},
    "index of nothing": {"model.safetensors.index.json": b""},
    "deep index": {"model.safetensors.index.json": b'{"weight_map":' * 50_000},
    "pickle": {"pytorch_model.bin": b"cos\nsystem\n(S'echo code was run'\ntR."},
}


@pytest.mark.parametrize("kind", BASES)
def test_bad_bases(kind: str, tmp_path: Path) -> None:
    base = Path(shutil.copytree(SEED_BASE, tmp_path / "base"))
    if not any(name == "config.json" for name in BASES[kind]):
        (base / "model.safetensors").unlink()
    for name, content in BASES[kind].items():
        (base / name).write_bytes(content)
    for command in (("check", "--format", "json"), ("check",), ("fix",), ("matrix",)):
        result = invoke(*command, SEED, "--base", base)
        assert result.exit_code in (0, 1, 2)
        assert_clean(result.output)
        assert "internal error" not in result.output
        if result.exit_code == 2:
            assert len(result.stderr.splitlines()) <= 2


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_bases_of_no_plain_files(name: str, kind: str, tmp_path: Path) -> None:
    base = Path(shutil.copytree(SEED_BASE, tmp_path / "base"))
    if name.startswith("model"):
        (base / "model.safetensors").unlink()
    (base / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(base / name)
    else:
        (base / name).symlink_to("/dev/zero")
    done = shell("check", SEED, "--base", base)
    assert done.code in (0, 1, 2)
    assert_clean(done.stdout + done.stderr)
    assert done.memory < MEMORY


# -- every field, every type ---------------------------------------------------------------------------------------

# Deliberately of no use to anyone: each type that JSON has, empty, nested, huge, and near misses of what is meant.
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**70, 1.5, float("nan"), float("inf"), "", "text", "(", r"^a\.(b|c)$", "(a+)+$",
    "all-linear", "\ud800\x1b", [], [None], [1, None], ["query", [1]], [[["a"]]], [""], ["query", "query"], [-1],
    [True], [2**70], {}, {"": None}, {"query": 1}, {"query": [1]}, {"query": {"a": {}}}, {"(": "x"}, {"(a+)+$": 4},
    {"0": 0},
]  # fmt: skip
_TYPES = ("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "VERA", "PREFIX_TUNING")


def _fields() -> list[tuple[str, str]]:
    found = []
    for name in _TYPES:
        table = config_type(name)
        assert table is not None
        wanted = [*table.fields, "peft_type", "runtime_config"] if name == "LORA" else list(table.fields)
        found += [(name, field) for field in wanted]
    return found


@pytest.mark.parametrize(("peft_type", "field"), _fields())
def test_values_of_every_type(peft_type: str, field: str, tmp_path: Path) -> None:
    config = json.loads((SEED / CONFIG).read_text())
    for number, value in enumerate(VALUES):
        directory = tmp_path / f"v{number}"
        directory.mkdir()
        (directory / CONFIG).write_text(json.dumps({**config, "peft_type": peft_type, field: value}))
        (directory / WEIGHTS).symlink_to(SEED / WEIGHTS)
    base = str(SEED_BASE)
    for targets, base_given in (((), None), (("peft>=0.4",), base)):
        with time_limit():
            run = examine(Request([str(tmp_path)], targets=targets, base=base_given, grouping="none"))
        assert run.errors == []
        assert len(run.adapters) == len(VALUES)
    some = [str(tmp_path / f"v{number}") for number in range(0, len(VALUES), 6)]
    with time_limit():
        assert examine(Request(some, base=base, grouping="one")).errors == []


# -- rule examples, changed at random ------------------------------------------------------------------------------

_MEANT: list[Any] = [
    ["classifier"], ["lm_head"], ["q_proj"], {"q_proj": 8}, {"q_proj": [1]}, "SEQ_CLS", "IA3", "LOKR", "all", "lora_only",
    "pissa", [0, 1], [1, 2, 3], "PREFIX_TUNING", "ADALORA",
]  # fmt: skip
_NAMES: list[Callable[[str], str]] = [
    lambda name: "", lambda name: ".", lambda name: "lora_A", lambda name: "base_model.model.lora_A.weight",
    lambda name: name + ".x", lambda name: name.replace("weight", "default.weight"),
    lambda name: name.replace("lora_A", "modules_to_save"), lambda name: name.removeprefix("base_model.model."),
    lambda name: "module." + name, lambda name: name.removesuffix(".weight"), lambda name: name.replace("lora_", "ia3_"),
]  # fmt: skip


def changed(example: Example, dice: random.Random, fields: list[str]) -> Example:
    """The example with up to three config values and two tensors replaced."""
    if isinstance(example.config, dict):
        config = dict(example.config)
        for _ in range(dice.randrange(4)):
            config[dice.choice(fields)] = dice.choice(VALUES + _MEANT)
        example = example._replace(config=config)
    tensors = list((example.tensors or {}).items())
    for _ in range(dice.randrange(3) if tensors else 0):
        number = dice.randrange(len(tensors))
        name, (dtype, shape) = tensors[number]
        tensors[number] = dice.choice([
            (dice.choice(_NAMES)(name), (dtype, shape)), (name, (dtype, ())), (name, (dtype, (0, *shape))),
            (name, (dtype, (*shape, 1))), (name, (dtype, shape[::-1])),
            (name, (dice.choice(["U8", "F8_E4M3", "BF16", "BOOL"]), shape)),
        ])  # fmt: skip
    return example._replace(tensors=dict(tensors)) if example.tensors is not None else example


@pytest.mark.parametrize("seed", range(8))
def test_changed_examples(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    examples = [example for rule in all_rules() for example in (*rule.valid(), *rule.invalid())]
    table = config_type("LORA")
    assert table is not None
    fields = sorted({*table.fields, "peft_type"})
    for number in range(60):
        example = dice.choice(examples)
        if isinstance(example, SetExample):
            members = {name: changed(member, dice, fields) for name, member in example.members.items()}
            example = example._replace(members=members)
        else:
            example = changed(example, dice, fields)
        directory = tmp_path / str(number)
        paths, base = write_any(example, directory)
        options = ["--base", base] if base else []
        targets = ["--target", "peft>=0.4"] if dice.random() < 0.5 else []
        for command in ("check", "fix"):
            unsafe = ["--unsafe-fixes", "--inplace"] if command == "fix" and dice.random() < 0.5 else []
            result = invoke(command, *paths, *options, *targets, *unsafe)
            assert result.exit_code in (0, 1, 2), (example, result.output)
            assert command == "fix" or result.exit_code != 2, (example, result.output)
            assert "internal error" not in result.output, (example, result.output)
            assert_clean(result.output)
        assert all(invoke("show", path).exit_code == 0 for path in paths)
        shutil.rmtree(directory)
