"""New weights files, judged by the safetensors library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixing_util import Arrays, arrays, assert_same, header_of, load, make_adapter, make_base, metadata, raw_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from adapterlint.findings import (
    SAFETENSORS_FILE,
    CopyTensor,
    DropTensor,
    RenameTensor,
    RewriteHeader,
    ZeroTensor,
)
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import PlanError
from adapterlint.fixing.layout import DTYPE_BITS, lay_out
from adapterlint.fixing.rewrite import write_weights
from adapterlint.reading.safetensors import read_header

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}
names = st.sampled_from(["a", "b", "c", "d", "e", "base_model.model.q.lora_A.weight", "", "\u00e9\U0001f9f5", 'x"\\\n'])
forms = st.tuples(st.sampled_from(sorted(NUMPY)), st.lists(st.integers(0, 3), max_size=3))


def filled(draw: st.DrawFn, form: tuple[str, list[int]]) -> np.ndarray:
    dtype, shape = form
    count = int(np.prod(shape, dtype=int)) * np.dtype(NUMPY[dtype]).itemsize
    data = draw(st.binary(min_size=count, max_size=count))
    if dtype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, NUMPY[dtype]).reshape(shape)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[str, str, np.ndarray]], list[object], dict[str, np.ndarray], Arrays]:
    """A file's tensors in any order, edits, a base, and what a dictionary becomes by those edits."""
    old = draw(st.dictionaries(names, forms, max_size=6))
    tensors = {name: (form[0], filled(draw, form)) for name, form in old.items()}
    order = draw(st.permutations(sorted(tensors)))
    base = {f"base.{i}": (form, filled(draw, form)) for i, form in enumerate(draw(st.lists(forms, max_size=3)))}
    dropped = draw(st.sets(st.sampled_from(sorted(tensors)))) if tensors else set()
    kept = [name for name in sorted(tensors) if name not in dropped]
    targets = draw(st.permutations([*kept, "new1", "new2", "new3"]))[: len(kept)]
    edits: list[object] = [DropTensor(name) for name in dropped]
    wanted: Arrays = {}
    for name, target in zip(kept, targets, strict=True):
        wanted[target] = tensors[name][1]
        if target != name:
            edits.append(RenameTensor(name, target))
    for i, (base_name, (_, array)) in enumerate(base.items()):
        edits.append(CopyTensor(f"copied.{i}", base_name))
        wanted[f"copied.{i}"] = array
    for i, (dtype, shape) in enumerate(draw(st.lists(forms, max_size=2))):
        edits.append(ZeroTensor(f"zero.{i}", dtype, tuple(shape)))
        wanted[f"zero.{i}"] = np.zeros(shape, NUMPY[dtype])
    edits.append(RewriteHeader())
    listed = [(name, *tensors[name]) for name in order]
    return listed, draw(st.permutations(edits)), {name: array for name, (_, array) in base.items()}, wanted


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), pad=st.integers(0, 9), with_metadata=st.booleans())
def test_any_edits_of_any_file(tmp_path_factory, case, pad, with_metadata) -> None:
    listed, edits, base_tensors, wanted = case
    home = tmp_path_factory.mktemp("case")
    base = make_base(home / "base", base_tensors)
    old, new = home / SAFETENSORS_FILE, home / "new" / SAFETENSORS_FILE
    strings = {"b": "1", "a": "2"} if with_metadata else ...
    entries = [(name, dtype, list(array.shape), array.tobytes()) for name, dtype, array in listed]
    old.write_bytes(raw_file(entries, metadata=strings, pad=pad))
    new.parent.mkdir()
    before = read_header(old)
    assert before.readable
    write_weights(lay_out(str(old), before, edits, base), str(new))
    assert_same(load(new.parent), wanted)
    assert metadata(new.parent) == (strings if with_metadata else None)
    after = read_header(new)
    assert after.readable and after.data_start % 8 == 0
    if before.data_start % 8 == 0:
        assert after.data_start % 4096 == before.data_start % 4096
    added_or_dropped = any(isinstance(edit, DropTensor | CopyTensor | ZeroTensor) for edit in edits)
    if added_or_dropped:
        assert not after.problems  # misaligned would be one
    if not any(isinstance(edit, DropTensor | CopyTensor | ZeroTensor) for edit in edits):
        places = [(entry.begin, entry.end) for entry in before.tensors.values()]
        assert [(entry.begin, entry.end) for entry in after.tensors.values()] == places


def test_a_rename_keeps_order_offsets_and_metadata(tmp_path: Path) -> None:
    tensors = arrays("z", "m", "a")
    path = make_adapter(tmp_path / "a", tensors)
    length, before = header_of(Path(path, SAFETENSORS_FILE))
    apply_all([AdapterEdits(path, (RenameTensor("m", "0"),))])
    new_length, after = header_of(Path(path, SAFETENSORS_FILE))
    assert list(after) == [{"m": "0"}.get(name, name) for name in before]
    assert list(after.values()) == list(before.values())
    assert after["__metadata__"] == {"format": "pt"} and new_length % 4096 == length % 4096


def test_renames_are_simultaneous(tmp_path: Path) -> None:
    tensors = arrays("a", "b", "c")
    path = make_adapter(tmp_path / "a", tensors)
    edits = (RenameTensor("a", "b"), RenameTensor("b", "a"), DropTensor("c"), RenameTensor("a", "b"))
    proof = apply_all([AdapterEdits(path, edits)])[0]
    assert_same(load(path), {"b": tensors["a"], "a": tensors["b"]})
    assert (proof.renamed, proof.dropped, proof.untouched) == (2, 1, 0)


def test_the_header_written_anew_has_no_duplicates_or_unknown_fields(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    entry = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]'
    text = f'  {{"__metadata__":{{"k":"1","k":"2"}},"a":{entry}}},"a":{entry},"note":1}}}}'.encode()
    file = Path(path, SAFETENSORS_FILE)
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(8)))
    assert {problem.kind for problem in read_header(file).problems} >= {"duplicate-tensor", "unknown-field"}
    apply_all([AdapterEdits(path, (RewriteHeader(),))])
    assert read_header(file).problems == () and metadata(path) == {"k": "2"}
    assert load(path)["a"].tobytes() == bytes(range(8))
    again = file.read_bytes()
    inode = file.stat().st_ino
    apply_all([AdapterEdits(path, (RewriteHeader(),))])
    assert file.read_bytes() == again and file.stat().st_ino == inode, "written again for nothing"


@pytest.mark.parametrize("value", ["null", "{}"])
def test_empty_metadata_stay_what_they_are(tmp_path: Path, value: str) -> None:
    path = make_adapter(tmp_path / "a", {})
    text = f'{{"__metadata__":{value},"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}'.encode()
    Path(path, SAFETENSORS_FILE).write_bytes(len(text).to_bytes(8, "little") + text + b"\x07")
    before = metadata(path)
    apply_all([AdapterEdits(path, (RenameTensor("a", "b"),))])
    assert metadata(path) == before and load(path)["b"][0] == 7


def test_dropping_what_kept_the_others_aligned_sorts_them(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", {})
    entries = [
        ("f", "F32", [1], b"ABCD"),
        ("h", "F16", [1], b"ab"),
        ("u", "U8", [2], b"xy"),
        ("g", "F32", [1], b"WXYZ"),
    ]
    Path(path, SAFETENSORS_FILE).write_bytes(raw_file(entries, pad=5))
    apply_all([AdapterEdits(path, (DropTensor("h"),))])
    _, header = header_of(Path(path, SAFETENSORS_FILE))
    assert [header[name]["data_offsets"][0] for name in "fug"] == [0, 8, 4]
    assert list(header) == ["f", "u", "g"]
    assert load(path)["g"].tobytes() == b"WXYZ"


def test_added_tensors_begin_on_a_multiple_of_8_where_the_end_of_the_others_is_one(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    zeros = (
        ZeroTensor("z1", "U8", (3,)), ZeroTensor("z2", "F32", (1,)), ZeroTensor("z3", "F16", (8,)),
        ZeroTensor("z4", "F64", (1,)),
    )  # fmt: skip
    apply_all([AdapterEdits(path, zeros)])
    _, header = header_of(Path(path, SAFETENSORS_FILE))
    assert [header[name]["data_offsets"][0] for name in ("a", "z4", "z3", "z2", "z1")] == [0, 96, 104, 120, 124]


def test_copied_tensors_equal_the_base_also_from_several_files(tmp_path: Path) -> None:
    big = arrays("model.head", "model.norm", rows=300, columns=700, seed=3)
    base = make_base(tmp_path / "base", big)
    tensors = arrays("a", "old", "b")
    path = make_adapter(tmp_path / "a", tensors)
    edits = (CopyTensor("head", "model.head"), CopyTensor("norm", "model.norm"), DropTensor("old"))
    proof = apply_all([AdapterEdits(path, edits, base)])[0]
    wanted = {"a": tensors["a"], "b": tensors["b"], "head": big["model.head"], "norm": big["model.norm"]}
    assert_same(load(path), wanted)
    assert (proof.copied, proof.dropped, proof.untouched) == (2, 1, 2)
    assert proof.bytes_compared == sum(array.nbytes for array in wanted.values())


def test_every_dtype_of_the_library_can_be_added(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", arrays("a"))
    apply_all([AdapterEdits(path, tuple(ZeroTensor(d, d, (2, 8)) for d in DTYPE_BITS))])
    with safe_open(Path(path, SAFETENSORS_FILE), "numpy") as file:
        found = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert found == {"a": ("F32", [4, 6]), **{dtype: (dtype, [2, 8]) for dtype in DTYPE_BITS}}


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([RenameTensor("nope", "x")], "'nope'"),
        ([DropTensor("nope")], "'nope'"),
        ([RenameTensor("a", "b")], "'b'"),
        ([RenameTensor("a", "x"), RenameTensor("b", "x")], "'x'"),
        ([RenameTensor("a", "x"), RenameTensor("a", "y")], "'a'"),
        ([RenameTensor("a", "x"), DropTensor("a")], "'a'"),
        ([RenameTensor("a", "__metadata__")], "__metadata__"),
        ([ZeroTensor("a", "F32", (1,))], "'a'"),
        ([ZeroTensor("z", "F33", (1,))], "'z'"),
        ([ZeroTensor("z", "F4", (1,))], "'z'"),
        ([ZeroTensor("z", "F32", (-1,))], "'z'"),
        ([CopyTensor("c", "base.none")], "'base.none'"),
        ([CopyTensor("a", "base.x")], "'a'"),
        ([DropTensor("a"), CopyTensor("a", "base.x")], "F32 [9, 9]"),
        ([DropTensor("a"), CopyTensor("a", "base.h")], "F16 [4, 6]"),
    ],
)
def test_edits_that_do_not_fit(tmp_path: Path, edits: list[object], words: str) -> None:
    base = make_base(tmp_path / "base", {"base.x": np.ones((9, 9), np.float32), "base.h": np.ones((4, 6), np.float16)})
    path = make_adapter(tmp_path / "adapter", arrays("a", "b"))
    before = sorted(Path(path).iterdir()), Path(path, SAFETENSORS_FILE).read_bytes()
    with pytest.raises(PlanError) as caught:
        apply_all([AdapterEdits(path, tuple(edits), base)])
    assert words in str(caught.value)
    assert (sorted(Path(path).iterdir()), Path(path, SAFETENSORS_FILE).read_bytes()) == before


def test_a_copy_needs_a_base_and_a_file_that_can_be_read(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "adapter", arrays("a"))
    with pytest.raises(PlanError, match="no base was given"):
        apply_all([AdapterEdits(path, (CopyTensor("h", "head"),))])
    file = Path(path, SAFETENSORS_FILE)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(PlanError, match="cannot be read, so it cannot be rewritten"):
        apply_all([AdapterEdits(path, (RewriteHeader(),))])
