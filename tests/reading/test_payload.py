"""Answers about tensor bytes against numpy and torch."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterlint.reading import payload
from adapterlint.reading.headerjson import DTYPE_BITS
from adapterlint.reading.payload import equal, first_non_finite, is_finite, is_zero, read_blocks

torch = pytest.importorskip("torch")

TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip
START = 13  # an odd place in the file: nothing may depend on alignment


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(b"\x55" * START + content + b"\x55" * 7)
    return path


def as_numbers(content: bytes, dtype: str) -> torch.Tensor:
    """The numbers in ``content``, as torch has them, in a type that it can compute with."""
    tensor = torch.frombuffer(bytearray(content), dtype=TORCH[dtype])
    return tensor if dtype in ("F64", "C64") else tensor.to(torch.float64)


def first_by_torch(content: bytes, dtype: str) -> int | None:
    bad = (~torch.isfinite(as_numbers(content, dtype))).nonzero()
    return int(bad[0]) if len(bad) else None


def every_pattern(dtype: str) -> bytes:
    """All bit patterns of types up to 16 bits; of wider ones all upper halves, over a few lower ones."""
    if DTYPE_BITS[dtype] == 8:
        return bytes(range(256))
    patterns = np.arange(1 << 16, dtype="<u2")
    if DTYPE_BITS[dtype] == 16:
        return patterns.tobytes()
    width = 8 if dtype == "F64" else 4
    lower = np.array([0, 1, 2 ** (8 * width - 17), 2 ** (8 * width - 16) - 1], dtype=f"<u{width}")
    return (patterns.astype(f"<u{width}")[:, None] << (8 * width - 16) | lower).tobytes()


@pytest.mark.parametrize("dtype", TORCH)
def test_each_pattern_alone(dtype: str, tmp_path: Path) -> None:
    content = every_pattern(dtype)
    path = write(tmp_path / "x", content)
    width = DTYPE_BITS[dtype] // 8
    numbers = as_numbers(content, dtype)
    finite, zero = torch.isfinite(numbers).tolist(), (numbers == 0).tolist()
    step = max(1, len(finite) // 1000) | 1
    for index in [*range(0, len(finite), step), *(at for at, each in enumerate(zero) if each)]:
        offset = START + index * width
        assert is_finite(path, offset, width, dtype) == finite[index], index
        assert is_zero(path, offset, width, dtype) == zero[index], index


@pytest.mark.parametrize("dtype", TORCH)
def test_each_pattern_within_a_block(dtype: str, tmp_path: Path) -> None:
    """From each non-finite pattern on, the next one is found where torch finds it."""
    content = every_pattern(dtype)
    path = write(tmp_path / "x", content)
    width = DTYPE_BITS[dtype] // 8
    bad = (~torch.isfinite(as_numbers(content, dtype))).nonzero().flatten().tolist()
    assert bad
    for index in bad[:: max(1, len(bad) // 10)]:
        for start in {max(0, index - 3), index, min(index + 1, len(content) // width - 1)}:
            part = content[start * width :]
            assert first_non_finite(path, START + start * width, len(part), dtype) == first_by_torch(part, dtype)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E4M3FNUZ", "C64"])
@pytest.mark.parametrize("at", ["first", "block-end", "block-start", "last"])
def test_one_nan_in_many_blocks(dtype: str, at: str, tmp_path: Path) -> None:
    width = DTYPE_BITS[dtype] // 8
    count = (2 * payload.BLOCK_BYTES + 64) // width
    index = {
        "first": 0,
        "block-end": payload.BLOCK_BYTES // width - 1,
        "block-start": payload.BLOCK_BYTES // width,
    }.get(at, count - 1)
    tensor = torch.zeros(count, dtype=TORCH[dtype])
    tensor[index] = float("nan")
    content = tensor.view(torch.uint8).numpy().tobytes()
    path = write(tmp_path / "x", content)
    assert first_non_finite(path, START, len(content), dtype) == index
    assert not is_zero(path, START, len(content), dtype)
    assert first_non_finite(path, START, index * width, dtype) is None
    assert is_zero(path, START, index * width, dtype)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPE_BITS if dtype not in TORCH])
def test_types_that_are_always_finite(dtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"\xff" * 24)
    assert is_finite(path, START, 24, dtype)
    assert not is_zero(path, START, 24, dtype)
    signed = write(tmp_path / "y", b"\x80" * 24)
    assert is_zero(signed, START, 24, dtype) == (dtype == "F4")


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_zeros_and_nothing(dtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x", bytes(24))
    assert is_zero(path, START, 24, dtype) == (dtype != "F8_E8M0")
    assert is_zero(path, START, 0, dtype)
    assert is_finite(path, START, 24, dtype)
    assert first_non_finite(path, START, 0, dtype) is None


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["F64", "F32", "F16", "BF16"]),
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -1e-7, 5e-324, float("inf"), float("-inf"), float("nan")]), max_size=40),
)
def test_small_tensors(tmp_path_factory: pytest.TempPathFactory, dtype: str, values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float64).to(TORCH[dtype])
    content = tensor.contiguous().view(torch.uint8).numpy().tobytes() if values else b""
    path = write(tmp_path_factory.getbasetemp() / "small", content)
    bad = (~torch.isfinite(tensor)).nonzero()
    assert first_non_finite(path, START, len(content), dtype) == (int(bad[0]) if len(bad) else None)
    assert is_zero(path, START, len(content), dtype) == bool((tensor == 0).all())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 50), st.integers(0, 250), st.integers(1, 64))
def test_blocks_are_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, offset: int, size: int, block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks"
    path.write_bytes(content)
    blocks = []
    if offset + size > len(content) and size:
        with pytest.raises(EOFError):
            blocks.extend(view.tobytes() for view in read_blocks(path, offset, size, block))
    else:
        blocks.extend(view.tobytes() for view in read_blocks(path, offset, size, block))
        assert b"".join(blocks) == content[offset : offset + size]
    assert all(len(each) == block for each in blocks[:-1])


@pytest.mark.parametrize("size", [0, 1, payload.BLOCK_BYTES, payload.BLOCK_BYTES + 1, 3 * payload.BLOCK_BYTES - 1])
def test_equal(size: int, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(size)
    a = write(tmp_path / "a", content)
    b = tmp_path / "b"
    b.write_bytes(content)
    assert equal(a, START, b, 0, size)
    for at in {0, size // 2, size - 1} if size else ():
        b.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
        assert not equal(a, START, b, 0, size)


def test_a_short_second_file_is_not_equal(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    (tmp_path / "b").write_bytes(bytes(99))
    with pytest.raises(EOFError):
        equal(tmp_path / "a", 0, tmp_path / "b", 0, 100)


def test_memory_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    is_finite(path, 0, 1024, "BF16")
    tracemalloc.start()
    assert is_zero(path, 0, 64 << 20, "F32")
    assert is_finite(path, 0, 64 << 20, "BF16")
    assert equal(path, 0, path, 0, 64 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20
