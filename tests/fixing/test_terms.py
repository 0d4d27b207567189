"""Computed tensors: the values of terms against numpy, through plan, file and proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from fixing_util import Arrays, arrays, load, make_adapter, make_base

from adapterlint.findings import CopyTensor, DropTensor, MakeTensor, RenameTensor, Term, ZeroTensor
from adapterlint.fixing import terms, values
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.errors import PlanError, ProofError
from adapterlint.fixing.prove import prove
from adapterlint.fixing.resolve import resolve
from adapterlint.fixing.simulate import compose

OLD = arrays("a", "b", rows=5, columns=3) | {"conv": arrays("c", rows=5, columns=8)["c"].reshape(5, 2, 2, 2)}
BASE = {"head": arrays("h", rows=5, columns=3, seed=1)["h"], "bias": np.arange(5, dtype=np.float32)}
A, B, HEAD = terms.stored("a"), terms.stored("b"), terms.in_base("head")
F8 = np.float64

CASES: list[tuple[str, Term, Callable[[], np.ndarray]]] = [
    ("stored", A, lambda: OLD["a"].astype(F8)),
    ("base", terms.in_base("bias"), lambda: BASE["bias"].astype(F8)),
    ("zeros", terms.zeros((2, 7)), lambda: np.zeros((2, 7))),
    ("identity", terms.identity(4), lambda: np.eye(4)),
    ("scaled", terms.scaled(A, 1 / 3), lambda: OLD["a"].astype(F8) * (1 / 3)),
    ("difference", terms.difference(A, HEAD), lambda: OLD["a"].astype(F8) - BASE["head"]),
    ("padded", terms.padded(A, (7, 4)), lambda: np.pad(OLD["a"].astype(F8), ((0, 2), (0, 1)))),
    ("padded conv", terms.padded(terms.stored("conv"), (6, 2, 2, 2)), lambda: np.pad(OLD["conv"].astype(F8), ((0, 1), *[(0, 0)] * 3))),
    ("rows", terms.part(A, 0, 1, 4), lambda: OLD["a"][1:4].astype(F8)),
    ("columns", terms.part(A, 1, 1, 3), lambda: OLD["a"][:, 1:3].astype(F8)),
    ("chosen rows", terms.selected(A, 0, (4, 0, 1)), lambda: OLD["a"][[4, 0, 1]].astype(F8)),
    ("chosen columns", terms.selected(A, 1, (2, 0)), lambda: OLD["a"][:, [2, 0]].astype(F8)),
    ("joined rows", terms.joined(0, A, B, A), lambda: np.concatenate([OLD["a"], OLD["b"], OLD["a"]]).astype(F8)),
    ("joined columns", terms.joined(1, A, HEAD), lambda: np.concatenate([OLD["a"], BASE["head"]], 1).astype(F8)),
    ("transposed", terms.transposed(A), lambda: OLD["a"].T.astype(F8)),
    ("nested", terms.transposed(terms.padded(terms.selected(terms.scaled(A, 2.0), 1, (1,)), (5, 2))),
     lambda: np.pad(OLD["a"][:, [1]].astype(F8) * 2, ((0, 0), (0, 1))).T),
]  # fmt: skip


@pytest.fixture
def adapter(tmp_path: Path) -> AdapterEdits:
    return AdapterEdits(make_adapter(tmp_path / "adapter", OLD), (), make_base(tmp_path / "base", BASE))


def made(adapter: AdapterEdits, *edits: MakeTensor | DropTensor | RenameTensor) -> Arrays:
    apply_all([AdapterEdits(adapter.path, edits, adapter.base)])
    return load(adapter.path)


@pytest.mark.parametrize("block", [1, 4, 1 << 20])
@pytest.mark.parametrize(("term", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_values_are_those_of_numpy_in_blocks_of_any_size(
    adapter: AdapterEdits, monkeypatch: pytest.MonkeyPatch, term: Term, wanted: Callable[[], np.ndarray], block: int
) -> None:
    monkeypatch.setattr(values, "BLOCK", block)
    array = wanted()
    found = made(adapter, MakeTensor("x", "F64", array.shape, term))
    assert found["x"].dtype == F8 and found["x"].tobytes() == np.ascontiguousarray(array).tobytes()
    assert found["a"].tobytes() == OLD["a"].tobytes()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_a_value_is_rounded_once(adapter: AdapterEdits, dtype: str) -> None:
    kind = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}[dtype]
    found = made(adapter, MakeTensor("x", dtype, (5, 3), terms.scaled(A, 1 / 3)))
    exact = OLD["a"].astype(F8) * (1 / 3)
    assert found["x"].tobytes() == exact.astype(kind).tobytes()
    assert np.abs(found["x"].astype(F8) / exact - 1).max() <= values.ROUNDING[dtype]


def test_the_factors_give_the_matrix_again(adapter: AdapterEdits) -> None:
    left = MakeTensor("l", "F64", (5, 3), terms.left_factor(A, 3))
    right = MakeTensor("r", "F64", (3, 3), terms.right_factor(A, 3))
    found = made(adapter, left, right)
    assert np.abs(found["l"] @ found["r"] - OLD["a"]).max() < 1e-14


def test_a_tensor_can_be_replaced_by_what_is_made_of_it(adapter: AdapterEdits) -> None:
    found = made(adapter, DropTensor("a"), MakeTensor("a", "F32", (5, 3), terms.scaled(A, 2.0)))
    assert found["a"].tobytes() == (OLD["a"] * 2).tobytes()


@pytest.mark.parametrize(
    ("term", "shape", "text"),
    [
        (terms.stored("z"), (5, 3), "there is no tensor 'z' in the file"),
        (terms.in_base("z"), (5, 3), "there is no tensor 'z' in the base"),
        (A, (3, 5), r"is computed as \[5, 3\], and should be \[3, 5\]"),
        (terms.difference(A, terms.in_base("bias")), (5, 3), "cannot be taken from"),
        (terms.padded(A, (4, 3)), (4, 3), "cannot be padded"),
        (terms.part(A, 0, 2, 6), (4, 3), "has no part 2:6"),
        (terms.selected(A, 1, (3,)), (5, 1), "all of these indices"),
        (terms.joined(0, A, terms.stored("conv")), (10, 3), "cannot be joined"),
        (terms.transposed(terms.in_base("bias")), (5,), "is no matrix"),
        (terms.left_factor(A, 4), (5, 4), "no 4 singular values"),
        (Term("guess", ()), (5, 3), "no operation 'guess'"),
    ],
)
def test_a_term_without_a_value_is_refused_before_anything_is_written(
    adapter: AdapterEdits, term: Term, shape: tuple[int, ...], text: str
) -> None:
    with pytest.raises(PlanError, match=text):
        made(adapter, MakeTensor("x", "F32", shape, term))
    assert load(adapter.path).keys() == OLD.keys()


def test_a_dtype_that_nothing_is_computed_in_is_refused(adapter: AdapterEdits) -> None:
    with pytest.raises(PlanError, match="cannot be computed as I64"):
        made(adapter, MakeTensor("x", "I64", (5, 3), A))


def test_the_proof_works_the_values_out_again(adapter: AdapterEdits, tmp_path: Path) -> None:
    change = resolve(AdapterEdits(adapter.path, (MakeTensor("x", "F32", (5, 3), terms.scaled(A, 3.0)),)))
    right = {**OLD, "x": OLD["a"] * 3}
    assert prove(change, make_adapter(tmp_path / "right", right)).computed == 1
    right["x"][4, 2] = np.nextafter(right["x"][4, 2], np.float32(9))
    with pytest.raises(ProofError, match="'x' does not hold what was computed"):
        prove(change, make_adapter(tmp_path / "wrong", right))


def test_rounds_are_composed_into_terms_about_the_file() -> None:
    rounds = [
        (RenameTensor("a", "n"), ZeroTensor("z", "F32", (2, 2)), CopyTensor("c", "head")),
        (DropTensor("n"), MakeTensor("n", "F32", (5, 3), terms.scaled(terms.stored("n"), 2.0))),
        (
            MakeTensor("x", "F32", (5, 3), terms.difference(terms.stored("n"), terms.stored("c"))),
            MakeTensor("y", "F32", (2, 2), terms.scaled(terms.stored("z"), 2.0)),
        ),
    ]
    twice = terms.scaled(A, 2.0)
    assert set(compose(rounds)) == {
        DropTensor("a"),
        ZeroTensor("z", "F32", (2, 2)),
        CopyTensor("c", "head"),
        MakeTensor("n", "F32", (5, 3), twice),
        MakeTensor("x", "F32", (5, 3), terms.difference(twice, HEAD)),
        MakeTensor("y", "F32", (2, 2), terms.scaled(terms.zeros((2, 2)), 2.0)),
    }
    assert list(terms.stored_names(terms.difference(twice, HEAD))) == ["a"]
