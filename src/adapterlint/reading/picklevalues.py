"""What the values of a pickle are described by, and how reading one can end."""

from __future__ import annotations

from typing import Any

from .torchglobals import Dtype


class RefusedError(Exception):
    """torch raises here.

    Attributes:
        kind: kind of the problem.
        message: what is wrong, as a problem's message.
        detail: what torch raises.
    """

    def __init__(self, kind: str, message: str, detail: str = "UnpicklingError: Weights only load failed.") -> None:
        super().__init__(kind, message, detail)
        self.kind, self.message, self.detail = kind, message, detail


class GaveUpError(Exception):
    """The budget is spent: torch may well go on, this machine does not.

    Attributes:
        kind: ``too-large`` or ``too-many-opcodes``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message


class MoreDataError(Exception):
    """The buffer holds only the start of the file, and the pickle goes on behind it."""


class Allowed:
    """A global that torch accepts: a name, and nothing behind it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Opaque:
    """A value that only its kind is known of, such as ``"set"`` or ``"torch.device"``."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


class OrderedDict(dict[Any, Any]):
    """Stands for collections.OrderedDict."""


class Counter(dict[Any, Any]):
    """Stands for collections.Counter."""


class OddKey:
    """A dictionary key that is never hashed by its value, since that could take long or recurse without bound."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


_UNHASHABLE = {"builtins.set": "set", "builtins.bytearray": "bytearray"}


def dict_key(value: Any) -> Any:
    """The key that stands for ``value`` in a dictionary; TypeError where Python could not hash it."""
    kind = type(value)
    if kind is str or kind is bytes or kind is bool or value is None or kind is float:
        return value
    if kind is int:
        return value if -(1 << 63) <= value < 1 << 63 else OddKey("int")
    if kind is tuple:
        _check_hashable(value)
        return OddKey("tuple")
    if isinstance(value, (list, dict, set)) or (kind is Opaque and value.kind in _UNHASHABLE):
        raise TypeError(f"unhashable type: '{type_name(value)}'")
    return value


def _check_hashable(value: tuple[Any, ...]) -> None:
    pending: list[Any] = [value]
    for _ in range(10_000):
        if not pending:
            return
        item = pending.pop()
        if type(item) is tuple:
            pending.extend(item[:10_000])
        elif isinstance(item, (list, dict, set)):
            raise TypeError(f"unhashable type: '{type_name(item)}'")
    raise GaveUpError("too-large", "a tuple used as a dictionary key is too large to follow")


def type_name(value: Any) -> str:
    """Name of the type of what ``value`` stands for."""
    if isinstance(value, (Opaque, OddKey)):
        return _UNHASHABLE.get(value.kind, value.kind)
    if isinstance(value, Allowed):
        return value.name
    if isinstance(value, (OrderedDict, Counter, bool, int, float, str, bytes, tuple, list, dict, set)):
        return type(value).__name__
    return "NoneType" if value is None else str(getattr(value, "kind", type(value).__name__))


class Storage:
    """A run of bytes that tensors look into.

    Attributes:
        key: its key: the member ``data/<key>`` of a zip archive.
        dtype: what its class says.
        nbytes: its size.
        resizable: whether a tensor that reaches beyond its end makes it longer (legacy format) or torch raise (zip).
        root: the storage that this one is a slice of, or None (legacy format only).
        begin: where the slice begins in ``root``, in bytes.
        data: where its first byte is in the file; -1 while that is unknown (legacy format only).
    """

    __slots__ = ("begin", "data", "dtype", "key", "nbytes", "resizable", "root")
    kind = "TypedStorage"

    def __init__(self, key: Any, dtype: Dtype, nbytes: int, *, resizable: bool = False) -> None:
        self.key, self.dtype, self.nbytes, self.resizable = key, dtype, nbytes, resizable
        self.root: Storage | None = None
        self.begin = 0
        self.data = -1


class Tensor:
    """A tensor as torch would build it.

    Attributes:
        dtype: its dtype.
        shape: its dimensions.
        strides: elements from one index to the next, for each dimension.
        storage: where its bytes are; None if it has none.
        offset: its first element, counted from the start of the storage.
        special: ``""``, or what makes it more than a view of bytes: ``meta``, ``quantized``, ``negated``, ...
    """

    __slots__ = ("dtype", "offset", "shape", "special", "storage", "strides")
    kind = "Tensor"

    def __init__(
        self,
        dtype: Dtype,
        shape: tuple[int, ...],
        strides: tuple[int, ...] = (),
        storage: Storage | None = None,
        offset: int = 0,
        special: str = "",
    ) -> None:
        self.dtype, self.shape, self.strides = dtype, shape, strides
        self.storage, self.offset, self.special = storage, offset, special


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a row-major tensor, as torch counts them (a zero counts as one)."""
    strides = [1] * len(shape)
    for index in range(len(shape) - 2, -1, -1):
        strides[index] = strides[index + 1] * max(shape[index + 1], 1)
    return tuple(strides)


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie in row-major order without gaps."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 0:
            return True
        if size != 1:
            if stride != expected:
                return 0 in shape
            expected *= size
    return True
