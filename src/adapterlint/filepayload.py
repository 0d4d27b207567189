"""Answers to what rules ask about tensor bytes, read from the files."""

from __future__ import annotations

import os
from collections.abc import Mapping

from adapterlint.model.tensor import Tensor, TensorTable
from adapterlint.reading import payload

_PEEK_BYTES = 512  # a multiple of every element size
_HEAD_BYTES = 64


class FilePayload:
    """Answers questions about tensor bytes by reading them in blocks.

    Args:
        directory: the adapter directory.
        base_directory: the base's directory, if there is one.
        budget: bytes that may be read in search of NaN and infinity, the one question that needs every byte;
            None for no limit.
    """

    def __init__(self, directory: str, base_directory: str | None, budget: int | None = None) -> None:
        self._directory = directory
        self._base = base_directory
        self._budget = budget
        self._files: dict[str, int | bytes] = {}  # small files whole
        self._paths: dict[str, str] = {}
        self.partial = False
        """Whether the budget left tensors unread."""

    def release(self) -> None:
        """Close the files; they are opened again if another question needs them."""
        for opened in self._files.values():
            if isinstance(opened, int):
                os.close(opened)
        self._files.clear()

    def __del__(self) -> None:
        self.release()

    def is_zero(self, tensor: Tensor) -> bool | None:
        """Whether every element is zero; None when it cannot be read."""
        if tensor.offset < 0:
            return None
        try:
            # Of a tensor that was trained, a few numbers tell.
            head = self._read(tensor, min(tensor.nbytes, _PEEK_BYTES))
            if any(head) and head.translate(None, b"\x00\x80"):
                return False
            return payload.is_zero(self._path(tensor), tensor.offset, tensor.nbytes, tensor.dtype)
        except (OSError, EOFError):
            return None

    def is_finite(self, tensor: Tensor) -> bool | None:
        """Whether no element is NaN or infinite; None when it cannot be read, or the budget is spent."""
        if tensor.offset < 0:
            return None
        if self._budget is not None:
            if tensor.nbytes > self._budget:
                self.partial = True
                return None
            self._budget -= tensor.nbytes
        try:
            if tensor.nbytes <= payload.BLOCK_BYTES and payload.surely_finite(
                self._read(tensor, tensor.nbytes), tensor.dtype
            ):
                return True
            return payload.is_finite(self._path(tensor), tensor.offset, tensor.nbytes, tensor.dtype)
        except (OSError, EOFError):
            return None

    def surely_finite(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether one look at a whole file tells that none of its tensors holds NaN or infinity.

        Only of a file that has one dtype and fits into one block and the budget; what it reads is not charged.
        """
        if not isinstance(tensors, TensorTable) or len(set(tensors.dtypes)) != 1:
            return False
        whole = tensors.whole
        limit = payload.BLOCK_BYTES if self._budget is None else min(self._budget, payload.BLOCK_BYTES)
        if whole.nbytes > limit:
            return False
        try:
            return payload.surely_finite(self._read(whole, whole.nbytes), whole.dtype)
        except (OSError, EOFError):
            return False

    def _read(self, tensor: Tensor, size: int) -> bytes:
        path = self._path(tensor)
        opened = self._files.get(path)
        if opened is None:
            opened = self._files[path] = _opened(path)
        if isinstance(opened, int):
            data = os.pread(opened, size, tensor.offset)
        else:
            data = opened[tensor.offset : tensor.offset + size]
        if len(data) < size:
            raise EOFError(f"{path} ends before its tensors do")
        return data

    def equals_base(self, tensor: Tensor, other: Tensor) -> bool | None:
        """Whether an adapter tensor holds the bytes of a base tensor; None when either cannot be read."""
        if self._base is None:
            return None
        return self._equal(tensor, self._path(tensor), other, os.path.join(self._base, other.file))

    def equal(self, tensor: Tensor, other: Tensor) -> bool | None:
        """Whether two tensors of this adapter hold the same bytes; None when either cannot be read."""
        return self._equal(tensor, self._path(tensor), other, self._path(other))

    def head(self, tensor: Tensor) -> bytes | None:
        """The first bytes of a tensor, 64 at most; None when they cannot be read."""
        if tensor.offset < 0:
            return None
        try:
            return self._read(tensor, min(tensor.nbytes, _HEAD_BYTES))
        except (OSError, EOFError):
            return None
        finally:
            self.release()

    def _path(self, tensor: Tensor) -> str:
        path = self._paths.get(tensor.file)
        if path is None:
            path = self._paths[tensor.file] = os.path.join(self._directory, tensor.file)
        return path

    def _equal(self, tensor: Tensor, path: str, other: Tensor, other_path: str) -> bool | None:
        if tensor.offset < 0 or other.offset < 0:
            return None
        if tensor.shape != other.shape:
            return False
        if tensor.dtype != other.dtype:
            return None
        try:
            return payload.equal(path, tensor.offset, other_path, other.offset, tensor.nbytes)
        except (OSError, EOFError):
            return None


def _opened(path: str) -> int | bytes:
    """A descriptor, or all the bytes of a file that has no more than a block of them."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    size = os.fstat(descriptor).st_size
    if size > payload.BLOCK_BYTES:
        return descriptor
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)
