"""The reader of ``.bin`` files against torch and PEFT, on healthy, odd, broken and hostile files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from math import prod
from pathlib import Path
from typing import Any

import bin_samples as samples
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterlint.reading import pickled
from adapterlint.reading.opcodes import MAX_OPCODES
from adapterlint.reading.pickled import Archive, PickledTensor, read_archive, tensor_position
from adapterlint.reading.torchglobals import ALLOWED, DTYPES, STORAGES

torch = pytest.importorskip("torch")

HEALTHY = samples.healthy(torch)
# torch loads these files; it is PEFT that raises.
PEFT_ONLY = {"not-a-dict", "non-text-key", "special-tensor"}
# Globals that torch knows only once other parts of it are imported, as transformers and PEFT do.
IMPORTED_LATER = ("torch.distributed.", "torch.nested.", "torch._dynamo.")


def torch_says(path: Path) -> str | None:
    """What ``torch.load`` raises, as PEFT calls it; None if it loads."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, map_location=torch.device("cpu"), weights_only=True)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def refusal(archive: Archive) -> Any:
    """The problem for which torch, not PEFT, raises."""
    return next((item for item in archive.problems if item.fatal and item.kind not in PEFT_ONLY), None)


def agree(path: Path, name: str = "") -> Archive:
    """Read a file and hold the verdict against torch's."""
    archive = read_archive(path)
    said, problem = torch_says(path), refusal(archive)
    assert archive.complete, (name, archive.problems)
    assert (problem is not None) == (said is not None), (name, said, archive.problems)
    if problem is not None:
        assert said.startswith(problem.detail), (name, said, problem.detail)
        assert archive.tensors == {}
    return archive


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def save(path: Path, value: Any, legacy: bool = False, **options: Any) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy, **options)
    return path


class TestHealthy:
    """Names, dtypes, shapes, strides and bytes are those that torch loads."""

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    @pytest.mark.parametrize("name", HEALTHY)
    def test_as_torch(self, tmp_path: Path, name: str, legacy: bool) -> None:
        path = save(tmp_path / "adapter_model.bin", HEALTHY[name], legacy)
        archive = agree(path)
        if torch_says(path) is not None:  # torch itself cannot load some dtypes that it saved in the legacy format
            assert legacy and name == "dtypes"
            return
        assert archive.legacy == legacy
        loaded = torch.load(path, weights_only=True)
        expected = {key: item for key, item in loaded.items() if isinstance(item, torch.Tensor)}
        assert list(archive.tensors) == list(expected)
        assert list(archive.others) == [key for key in loaded if key not in expected]
        for key, item in expected.items():
            self.same(path, archive, archive.tensors[key], item)

    @staticmethod
    def same(path: Path, archive: Archive, found: PickledTensor, item: Any) -> None:
        dtype = str(item.dtype).removeprefix("torch.")
        assert (found.dtype, found.shape) == (DTYPES[dtype].name, tuple(item.shape))
        assert found.strides == item.stride()
        assert found.contiguous == item.is_contiguous()
        with path.open("rb") as file:
            place = tensor_position(file, archive, found)
            assert place is not None
            file.seek(place)
            span = 1 + sum(step * (size - 1) for step, size in zip(found.strides, found.shape, strict=True))
            data = bytearray(file.read(span * item.element_size() if item.numel() else 0))
        if item.numel():
            seen = torch.frombuffer(data, dtype=item.dtype).as_strided(found.shape, found.strides)
            assert seen.contiguous().view(-1).view(torch.uint8).equal(item.contiguous().view(-1).view(torch.uint8))

    def test_dtype_names_are_those_of_safetensors(self, tmp_path: Path) -> None:
        safetensors = pytest.importorskip("safetensors.torch")
        safetensors.save_file(HEALTHY["dtypes"], tmp_path / "model.safetensors")
        from adapterlint.reading.safetensors import read_header

        header = read_header(tmp_path / "model.safetensors")
        archive = read_archive(save(tmp_path / "adapter_model.bin", HEALTHY["dtypes"]))
        found = {name: (item.dtype, item.shape) for name, item in archive.tensors.items()}
        assert found == {name: (item.dtype, item.shape) for name, item in header.tensors.items()}

    def test_healthy_files_have_no_problem(self, tmp_path: Path) -> None:
        for name, value in HEALTHY.items():
            archive = read_archive(save(tmp_path / "adapter_model.bin", value))
            kinds = {problem.kind for problem in archive.problems}
            assert kinds <= {"non-tensor-entry"}, name
            assert bool(kinds) == any(not isinstance(item, torch.Tensor) for item in value.values()), name

    def test_large_legacy_file(self, tmp_path: Path) -> None:
        """The pickle needs more than the first chunk, and storages lie far behind it."""
        value = {f"{'long' * 80}.{index}": torch.full((2, 300), index) for index in range(3000)}
        path = save(tmp_path / "adapter_model.bin", value, legacy=True)
        archive = read_archive(path)
        assert list(archive.tensors) == list(value) and not archive.problems
        for key in list(value)[::500]:
            self.same(path, archive, archive.tensors[key], value[key])


class TestTopLevel:
    """What stands in the place of the dictionary of tensors."""

    def test_nested(self, tmp_path: Path) -> None:
        archive = agree(save(tmp_path / "a.bin", HEALTHY["nested"]))
        assert (archive.tensors, archive.nested_under, list(archive.nested)) == ({}, "state_dict", ["a", "b"])
        assert archive.nested["a"].shape == (4, 6)

    def test_the_nested_dictionary_with_most_tensors_counts(self, tmp_path: Path) -> None:
        one = torch.ones(1)
        value = {"optimizer": {"m": one}, "model": {"a": one, "b": one}, "config": {"r": 4}}
        archive = agree(save(tmp_path / "a.bin", value))
        assert (archive.nested_under, sorted(archive.nested)) == ("model", ["a", "b"])

    def test_nested_beside_tensors_is_no_nesting(self, tmp_path: Path) -> None:
        archive = agree(save(tmp_path / "a.bin", HEALTHY["nested_beside"]))
        assert (list(archive.tensors), archive.nested_under, archive.others) == (["a"], None, {"extra": "dict"})

    def test_others(self, tmp_path: Path) -> None:
        archive = agree(save(tmp_path / "a.bin", HEALTHY["int_entry"]))
        kinds = {"epoch": "int", "lr": "float", "name": "str", "done": "bool", "none": "NoneType", "sizes": "list"}
        assert archive.others == kinds
        assert archive.problems[0].tensor == "epoch" and not archive.fatal

    @pytest.mark.parametrize(
        "value",
        [[torch.ones(1)], (torch.ones(1),), torch.ones(1), None, 5, "x", b"x", 1.5, True, {1, 2}, []],
        ids=lambda value: type(value).__name__,
    )
    def test_not_a_dict(self, tmp_path: Path, value: Any) -> None:
        archive = agree(save(tmp_path / "a.bin", value))
        assert [problem.kind for problem in archive.problems] == ["not-a-dict"]

    def test_special_tensors(self, tmp_path: Path) -> None:
        plain = torch.ones(2, 3)
        value = {
            "plain": plain,
            "meta": plain.to("meta"),
            "quantized": torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
            "negated": torch._neg_view(plain),
            "conjugated": torch.ones(2, 3, dtype=torch.complex64).conj(),
        }
        archive = agree(save(tmp_path / "a.bin", value))
        assert {item.tensor: item.fatal for item in archive.problems} == {
            "meta": True,
            "quantized": True,
            "negated": False,
            "conjugated": False,
        }
        assert {name: item.shape for name, item in archive.tensors.items()} == dict.fromkeys(value, (2, 3))
        assert [name for name, item in archive.tensors.items() if item.offset < 0] == ["meta", "quantized"]


class TestPeft:
    """What PEFT does with files that torch loads."""

    @pytest.fixture(scope="class")
    def adapter(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, dict[str, Any]]:
        peft = pytest.importorskip("peft")
        path = tmp_path_factory.mktemp("adapter")
        config = peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
        model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(3, 4)), config)
        model.save_pretrained(path, safe_serialization=False)
        return peft, path, torch.load(path / "adapter_model.bin", weights_only=True)

    @pytest.mark.parametrize(
        "change",
        [
            lambda state: state,
            lambda state: {**state, "epoch": 3},
            lambda state: {**state, "stray": torch.ones(2).to("meta")},
            lambda state: {**state, 1: torch.ones(2)},
            lambda state: {**state, b"x": 1},
            lambda state: {**state, None: 1},
            lambda state: list(state.values()),
            lambda state: tuple(state.values()),
            lambda state: next(iter(state.values())),
            lambda state: None,
            lambda state: {key: value.to("meta") for key, value in state.items()},
            lambda state: {key: torch.quantize_per_tensor(item, 0.1, 0, torch.qint8) for key, item in state.items()},
            lambda state: {"state_dict": state},
        ],
    )
    def test_outcome(self, adapter: tuple[Any, Path, dict[str, Any]], change: Any) -> None:
        peft, path, state = adapter
        file = save(path / "adapter_model.bin", change(dict(state)))
        problem = read_archive(file).fatal
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peft.PeftModel.from_pretrained(torch.nn.Sequential(torch.nn.Linear(3, 4)), path)
            said = None
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        if problem is not None and problem.tensor == "stray":
            assert said is None  # it matters only under a name that the model has
        else:
            assert (problem is None) == (said is None)
        if said is not None:
            assert said.startswith(problem.detail)


class TestOdd:
    """Files that are unusual and load all the same."""

    @pytest.mark.parametrize("name", samples.odd_but_accepted())
    def test_accepted(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path / "a.bin", samples.odd_but_accepted()[name])
        archive = agree(path, name)
        assert archive.fatal is None
        loaded = torch.load(path, weights_only=True)
        expected = {key: item for key, item in loaded.items() if isinstance(item, torch.Tensor)}
        assert {key: (item.dtype, item.shape, item.strides) for key, item in archive.tensors.items()} == {
            key: (DTYPES[str(item.dtype).removeprefix("torch.")].name, tuple(item.shape), item.stride())
            for key, item in expected.items()
        }

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("deflated", "deflated"), ("deflated_pickle", "deflated"), ("big_endian", "big-endian"), ("numbers", None)],
    )
    def test_notes(self, tmp_path: Path, name: str, kind: str | None) -> None:
        archive = read_archive(write(tmp_path / "a.bin", samples.odd_but_accepted()[name]))
        notes = {problem.kind for problem in archive.problems} - {"non-tensor-entry"}
        assert notes == ({kind} if kind else set())
        assert archive.little_endian == (kind != "big-endian")

    def test_compressed_members_have_no_position(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.bin", samples.odd_but_accepted()["deflated"])
        archive = read_archive(path)
        with path.open("rb") as file:
            assert [tensor_position(file, archive, item) for item in archive.tensors.values()] == [None]

    def test_a_storage_view_of_the_legacy_format(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.bin", samples.odd_but_accepted()["legacy_view"])
        archive = read_archive(path)
        (item,) = archive.tensors.values()
        assert path.read_bytes()[item.offset :][:16] == samples.EIGHT_FLOATS[8:24]

    def test_two_members_of_one_name(self, tmp_path: Path) -> None:
        data = samples.archive(extra={"data/1": b"x", "data/2": b"y"}).replace(b"data/2", b"data/1")
        archive = read_archive(write(tmp_path / "a.bin", data))
        assert ([item.kind for item in archive.problems], archive.complete) == (["duplicate-member"], False)

    @pytest.mark.parametrize("name", ["data.pkl", "data/0", "version"])
    def test_a_member_marked_as_a_directory(self, tmp_path: Path, name: str) -> None:
        data = bytearray(samples.archive())
        data[data.rindex(b"adapter_model/" + name.encode()) - 46 + 38] |= 0x10
        archive = read_archive(write(tmp_path / "a.bin", bytes(data)))
        assert ([item.kind for item in archive.problems], archive.complete) == (["directory-member"], False)


class TestBroken:
    """Files that are damaged, or something else."""

    @pytest.mark.parametrize("name", samples.bad_layouts())
    def test_agrees_with_torch(self, tmp_path: Path, name: str) -> None:
        assert agree(write(tmp_path / "a.bin", samples.bad_layouts()[name]), name).fatal is not None

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("storage_beyond_entry", "storage-too-large"),
            ("storage_below_entry", "storage-too-small"),
            ("storage_missing", "missing-storage"),
            ("storage_header", "broken-archive"),
            ("name_not_utf_8", "broken-archive"),
            ("tensor_beyond", "out-of-range"),
            ("tensor_stride_beyond", "out-of-range"),
            ("integers_with_gradient", "bad-tensor"),
            ("truncated", "truncated"),
            ("truncated_legacy", "truncated"),
            ("truncated_pickle", "broken-pickle"),
            ("torchscript", "torchscript"),
            ("protocol_4_dict", "unsupported-opcode"),
            ("html", "not-a-pickle"),
            ("gguf", "not-a-pickle"),
            ("zeros", "not-a-pickle"),
            ("tar", "not-a-pickle"),
            ("lfs_pointer", "lfs-pointer"),
            ("empty", "empty"),
        ],
    )
    def test_kind(self, tmp_path: Path, name: str, kind: str) -> None:
        archive = read_archive(write(tmp_path / "a.bin", samples.bad_layouts()[name]))
        assert [problem.kind for problem in archive.problems] == [kind]

    def test_another_protocol_is_named(self, tmp_path: Path) -> None:
        archive = read_archive(save(tmp_path / "a.bin", {"a": torch.ones(1)}, pickle_protocol=4))
        assert archive.fatal is not None and "protocol 4" in archive.fatal.message

    def test_safetensors_under_this_name(self, tmp_path: Path) -> None:
        safetensors = pytest.importorskip("safetensors.torch")
        path = write(tmp_path / "a.bin", safetensors.save({"a": torch.ones(2, 3)}))
        assert agree(path).problems[0].kind == "safetensors-bytes"
        path.write_bytes(path.read_bytes()[:-1])
        assert agree(path).problems[0].kind == "not-a-pickle"

    def test_no_file(self, tmp_path: Path) -> None:
        problem = read_archive(tmp_path / "none.bin").fatal
        assert problem is not None and problem.kind == "unreadable"
        said = torch_says(tmp_path / "none.bin")
        assert said is not None and said.split(":")[0] == str(problem.detail).split(":")[0] == "FileNotFoundError"

    def test_directory(self, tmp_path: Path) -> None:
        problem = read_archive(tmp_path).fatal
        said = torch_says(tmp_path)
        assert problem is not None and problem.kind == "unreadable"
        assert said is not None and said.startswith(str(problem.detail))

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_named_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert read_archive(tmp_path / "pipe").problems[0].kind == "unreadable"


class TestAttacks:
    """Payloads: no code runs, and torch refuses what we call fatal."""

    @pytest.mark.parametrize("name", samples.attacks("x"))
    def test_refused(self, tmp_path: Path, name: str) -> None:
        canary = tmp_path / "canary"
        archive = agree(write(tmp_path / "a.bin", samples.attacks(str(canary))[name]), name)
        assert not canary.exists()
        assert archive.fatal is not None and archive.tensors == {}

    @pytest.mark.parametrize(
        ("name", "word"),
        [
            ("zip_os_system", "os.system"),
            ("zip_eval_python_2", "builtins.eval"),
            ("zip_getattr", "builtins.getattr"),
            ("zip_inst", "os.system"),
            ("zip_stack_global", "posix.system"),
            ("zip_stack_global_memo", "os.system"),
            ("zip_extension", "copyreg extension 1"),
            ("zip_newobj_ex", "subprocess.Popen"),
            ("zip_protocol_0", "system"),
            ("bare_os_system", "os.system"),
            ("bare_protocol_4", "posix.system"),
            ("legacy_os_system", "os.system"),
            ("legacy_in_facts", "os.system"),
            ("legacy_in_keys", "os.system"),
            ("deflated", "os.system"),
        ],
    )
    def test_the_global_is_named(self, tmp_path: Path, name: str, word: str) -> None:
        problem = read_archive(write(tmp_path / "a.bin", samples.attacks("x")[name])).fatal
        assert problem is not None and problem.kind == "unsafe-global" and word in problem.message

    def test_payloads_are_real(self, tmp_path: Path) -> None:
        """Without ``weights_only`` torch runs them: the canary would be seen."""
        canary = tmp_path / "canary"
        path = write(tmp_path / "a.bin", samples.attacks(str(canary))["zip_os_system"])
        code = f"import torch; torch.load({str(path)!r}, weights_only=False)"
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=120)
        assert canary.exists()

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    def test_lenient_finds_the_tensors_beside_objects(self, tmp_path: Path, legacy: bool) -> None:
        import argparse
        from collections import defaultdict

        objects = {"args": argparse.Namespace(r=4, names=[1]), "seen": defaultdict(int, x=1), "at": Path("x")}
        path = save(tmp_path / "a.bin", {**HEALTHY["views"], **objects}, legacy)
        assert read_archive(path).tensors == {}
        archive = read_archive(path, lenient=True)
        assert list(archive.tensors) == list(HEALTHY["views"])
        assert list(archive.others) == list(objects)
        for name, value in HEALTHY["views"].items():
            TestHealthy.same(path, archive, archive.tensors[name], value)

    @pytest.mark.parametrize("name", samples.attacks("x"))
    def test_lenient_runs_nothing(self, tmp_path: Path, name: str) -> None:
        canary = tmp_path / "canary"
        archive = read_archive(write(tmp_path / "a.bin", samples.attacks(str(canary))[name]), lenient=True)
        assert not canary.exists()
        assert set(archive.tensors) <= {samples.NAME}

    def test_the_list_of_globals_is_that_of_torch(self) -> None:
        from torch import _weights_only_unpickler

        listed = set(_weights_only_unpickler._get_allowed_globals())
        extra = {name for name in ALLOWED if not name.startswith(IMPORTED_LATER)}
        assert extra == listed

    def test_dtypes_are_those_of_torch(self) -> None:
        for name, dtype in DTYPES.items():
            real = getattr(torch, name, None)
            if real is not None:
                floating = real.is_floating_point or real.is_complex
                assert (dtype.itemsize, dtype.floating) == (real.itemsize, floating), name
        for name, dtype_name in STORAGES.items():
            if name.startswith("torch.") and name.count(".") == 1:
                kind = torch.serialization.StorageType(name.removeprefix("torch."))
                assert kind.dtype == getattr(torch, dtype_name), name

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"\x89c", b"\x88c"),
            (b"\x89c", b"Nc"),
            (b"\x89c", b"K\x01c"),
            (b"(K\x02K\x04t", b"](K\x02K\x04e"),
            (b"(K\x02K\x04t", b"N"),
            (b"(K\x02K\x04t", b"(K\x02G" + bytes(8) + b"t"),
            (b"(K\x02K\x04t", b"(K\x02\x88t"),
            (b"(K\x04K\x01t", b"N"),
            (b"(K\x04K\x01t", b"(K\x01t"),
            (b"ctorch\nFloatStorage\n", b"ctorch.storage\nUntypedStorage\n"),
            (b"ctorch\nFloatStorage\n", b"ctorch.storage\nTypedStorage\n"),
            (b"ctorch\nFloatStorage\n", b"ctorch\nfloat32\n"),
            (b"ctorch\nFloatStorage\n", b"N"),
            (b"ccollections\nOrderedDict\n)R", b"N"),
            (b"ccollections\nOrderedDict\n)R", b"}}R"),
            (b"ccollections\nOrderedDict\n)R", b"ccollections\nOrderedDict\n}R"),
            (b"_rebuild_tensor_v2", b"_rebuild_tensor"),
            (b"_rebuild_tensor_v2", b"_rebuild_parameter"),
            (b")RtR", b")R}tR"),
            (b")RtR", b")R](K\x01etR"),
            (b")RtR", b")R}" + samples.text("conj") + b"\x88stR"),
            (b")RtR", b")R}" + samples.text("neg") + b"\x88stR"),
            (b"tQ", b"tQ0"),
            (b"u.", b"us."),
            (b"u.", b"."),
            (b"u.", b"u\x80\x05."),
            (b"u.", b"uh\x63."),
            (b"u.", b"uX\xff\0\0\0."),
            (b"u.", b"uX\x02\0\0\0\xff\xfe."),
            (b"u.", b"uJ\0."),
            (b"u.", b"uG."),
            (b"u.", b"ub."),
            (b"u.", b"uNb."),
            (b"u.", b"u]K\x01a."),
            (b"u.", b"uK\x01a."),
            (b"u.", b"u]NNs."),
            (b"u.", b"u}]Ns."),
            (b"u.", b"u}})sN."),
            (b"u.", b"uctorch\nfloat32\n)R."),
            (b"u.", b"uctorch\nfloat32\n)\x81."),
            (b"u.", b"uccollections\nOrderedDict\nNR."),
            (b"u.", b"uccollections\nOrderedDict\n]NbR."),
            (b"u.", b"uccollections\nOrderedDict\n)R}b."),
            (b"u.", b"uccollections\nOrderedDict\n)RNb."),
            (b"u.", b"uctorch.nn.parameter\nParameter\n)R."),
            (b"u.", b"uctorch.nn.parameter\nParameter\nK\x05\x85R."),
            (b"u.", b"uctorch.nn.parameter\nParameter\n)\x81."),
            (b"u.", b"u\x8a\x09" + b"\x01" * 9 + b"."),
            (b"u.", b"uU\x02ab."),
            (b"u.", b"uU\x01\xff."),
            (b"u.", b"uctorch\nSize\n]K\x02a\x85R."),
            (b"u.", b"uctorch\nSize\n]Na\x85R."),
        ],
    )
    def test_small_changes(self, tmp_path: Path, old: bytes, new: bytes) -> None:
        """One thing at a time: what torch minds, we mind, and nothing else."""
        assert samples.HEALTHY.count(old) == 1
        agree(write(tmp_path / "a.bin", samples.archive(samples.HEALTHY.replace(old, new))))


# What torch 2.13 raises on, of the bombs that it survives in a reasonable time.
FATAL_BOMBS = {
    "call_in_itself",
    "huge_dimensions",
    "bytearray",
    "storage_1e12",
    "storage_1e12_legacy",
    "storage_1e30",
}
HARMLESS_BOMBS = {"memo", "memo_with_tensor", "laughing_tuples", "laughing_dicts", "dict_in_itself"}
_MEASURE = """
import sys, time
from adapterlint.reading.pickled import read_archive
start = time.process_time()
archive = read_archive(sys.argv[1])
seconds = time.process_time() - start
try:
    peak = next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)
print(seconds, peak, archive.complete, archive.fatal is not None, *{problem.kind for problem in archive.problems})
"""


class TestBombs:
    """Five seconds and 200 MB suffice for everything."""

    @pytest.mark.parametrize("name", samples.bombs())
    def test_bounded(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path / "a.bin", samples.bombs()[name]())
        environment = {**os.environ, "PYTHONPATH": str(Path(pickled.__file__).parents[2])}
        command = [sys.executable, "-c", _MEASURE, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr[-500:]
        seconds, megabytes, complete, fatal, *kinds = done.stdout.split()
        print(f"{name}: {float(seconds):.2f} s, {megabytes} MB, {' '.join(kinds)}")
        assert float(seconds) < 5 and int(megabytes) < 200
        if name in FATAL_BOMBS:
            assert fatal == "True"
        elif name in HARMLESS_BOMBS:
            assert (complete, fatal) == ("True", "False")
        elif name == "long_global":
            assert "unsafe-global" in kinds
        else:
            assert complete == "False" or fatal == "True" or kinds, "it was read to the end: is it still a bomb?"

    @pytest.mark.parametrize("name", sorted(FATAL_BOMBS | HARMLESS_BOMBS))
    def test_agrees_with_torch(self, tmp_path: Path, name: str) -> None:
        agree(write(tmp_path / "a.bin", samples.bombs()[name]()), name)

    def test_memo_bomb_is_noted(self, tmp_path: Path) -> None:
        archive = read_archive(write(tmp_path / "a.bin", samples.bombs()["memo_with_tensor"]()))
        assert [(problem.kind, problem.fatal) for problem in archive.problems] == [("memo-bomb", False)]
        assert list(archive.tensors) == [samples.NAME]

    def test_opcodes_are_counted(self, tmp_path: Path) -> None:
        data = b"\x80\x02" * (MAX_OPCODES + 1) + b"N."
        archive = read_archive(write(tmp_path / "a.bin", samples.archive(data)))
        assert ([item.kind for item in archive.problems], archive.complete) == (["too-many-opcodes"], False)


class TestSpeed:
    def test_448_tensors_in_40_ms(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.bin", samples.many_tensors(torch))
        times = []
        for _ in range(10):
            start = time.process_time()
            archive = read_archive(path)
            times.append(time.process_time() - start)
        assert len(archive.tensors) == 448 and not archive.problems
        print(f"448 tensors: {min(times) * 1000:.1f} ms")
        assert min(times) < 0.040

    def test_many_tensors_fit_the_budget(self, tmp_path: Path) -> None:
        value = {f"model.layers.{n}.mlp.experts.gate_proj.weight": torch.ones(1) for n in range(15_000)}
        archive = read_archive(save(tmp_path / "a.bin", value))
        assert len(archive.tensors) == 15_000 and archive.complete


def _zip_of(value: Any, path: Path, legacy: bool = False) -> bytes:
    return save(path / "seed.bin", value, legacy).read_bytes()


OPCODES = b"c\x81Rbaesu(t\x85\x86\x87N\x89\x88)]}\x8fJKMGXU\x8aQhjqr\x80.0\x93"
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "opcode", "insert", "delete", "copy", "cut"]), st.integers(0), st.integers(0)),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    out = bytearray(data)
    for kind, where, what in edits:
        at = where % max(len(out), 1)
        if kind == "set":
            out[at : at + 1] = bytes([what % 256])
        elif kind == "opcode":
            out[at : at + 1] = OPCODES[what % len(OPCODES) :][:1]
        elif kind == "insert":
            out[at:at] = OPCODES[what % len(OPCODES) :][:1]
        elif kind == "delete":
            del out[at : at + what % 9]
        elif kind == "copy":
            out[at:at] = out[what % max(len(out), 1) :][:12]
        elif what % 5 == 0:
            del out[at:]
    return bytes(out)


FUZZ = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestMutations:
    """Random damage: never an exception, and in the pickle the verdict of torch."""

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    @settings(FUZZ, max_examples=400)
    @given(edits=EDITS, lenient=st.booleans())
    def test_never_raises(self, tmp_path: Path, legacy: bool, edits: list[tuple[str, int, int]], lenient: bool) -> None:
        data = samples.legacy(samples.HEALTHY_LEGACY) if legacy else samples.archive()
        archive = read_archive(write(tmp_path / "a.bin", mutate(data, edits)), lenient=lenient)
        with (tmp_path / "a.bin").open("rb") as file:
            for item in archive.tensors.values():
                tensor_position(file, archive, item)

    @settings(FUZZ, max_examples=200)
    @given(data=st.binary(max_size=200), prefix=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}("]))
    def test_noise_never_raises(self, tmp_path: Path, data: bytes, prefix: bytes) -> None:
        read_archive(write(tmp_path / "a.bin", prefix + data))

    @settings(FUZZ, max_examples=400)
    @given(edits=EDITS, attributes=st.booleans())
    def test_pickles_agree_with_torch(
        self, tmp_path: Path, edits: list[tuple[str, int, int]], attributes: bool
    ) -> None:
        import zipfile

        name = "attributes" if attributes else "int_entry"
        with zipfile.ZipFile(save(tmp_path / "seed.bin", HEALTHY[name])) as source:
            pickle, storage = source.read("seed/data.pkl"), source.read("seed/data/0")
        path = write(tmp_path / "a.bin", samples.archive(mutate(pickle, edits), {"0": storage}))
        archive = read_archive(path)
        if archive.complete:
            assert (refusal(archive) is None) == (torch_says(path) is None), archive.problems

    @settings(FUZZ, max_examples=150)
    @given(edits=EDITS)
    def test_legacy_files_agree_with_torch(self, tmp_path: Path, edits: list[tuple[str, int, int]]) -> None:
        path = write(tmp_path / "a.bin", mutate(samples.legacy(samples.HEALTHY_LEGACY), edits))
        archive = read_archive(path)
        if archive.complete:
            assert (refusal(archive) is None) == (torch_says(path) is None), archive.problems


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    """Reading a healthy file needs neither torch nor numpy, and no unpickler at all."""
    path = write(tmp_path / "a.bin", samples.archive())
    code = (
        "import sys; before = set(sys.modules); from adapterlint.reading.pickled import read_archive;"
        f"assert len(read_archive({str(path)!r}).tensors) == 1; new = set(sys.modules) - before;"
        "print(*sorted(new & {'torch', 'numpy', 'pickle', 'pickletools', 'zipfile', 'tarfile'}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(pickled.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""


def test_sizes_add_up(tmp_path: Path) -> None:
    """A contiguous tensor's bytes lie within its storage and its file."""
    path = save(tmp_path / "a.bin", HEALTHY["views"])
    archive = read_archive(path)
    with path.open("rb") as file:
        for item in archive.tensors.values():
            place = tensor_position(file, archive, item)
            assert place is not None and place + prod(item.shape) * 4 <= archive.file_bytes
