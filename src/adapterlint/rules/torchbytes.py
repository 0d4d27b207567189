"""Small files as ``torch.save`` writes them, for the examples in rules.

The opcodes are put together by hand: nothing is pickled, so that a class that does no good can be named without harm.
"""

from __future__ import annotations

import struct
from math import prod

from adapterlint.rules.examples import Shapes

# Opcodes of pickle protocol 2 (pickletools names them): each pushes or does what its name here says.
_PROTO, _STOP, _MARK, _TUPLE, _REDUCE = b"\x80\x02", b".", b"(", b"t", b"R"
_FALSE, _EMPTY_TUPLE, _EMPTY_DICT, _SET_ITEMS, _PERSISTENT = b"\x89", b")", b"}", b"u", b"Q"


def torch_bytes(tensors: Shapes, under: str | None = None, extra_class: str | None = None) -> bytes:
    """The file that ``torch.save`` makes of a dictionary of float32 tensors.

    Args:
        tensors: name -> (dtype, shape); every dtype is written as F32.
        under: put the dictionary under this key of another one.
        extra_class: also store an instance of this class, given as ``module.name``, under the key ``args``.
    """
    shapes = {name: shape for name, (_, shape) in tensors.items()}
    entries = b"".join(_text(name) + _tensor(key, shape) for key, (name, shape) in enumerate(shapes.items()))
    content = _dictionary(entries)
    if under is not None:
        content = _dictionary(_text(under) + content)
    if extra_class is not None:
        module, _, name = extra_class.rpartition(".")
        content += _MARK + _text("args") + _named(module, name) + _EMPTY_TUPLE + _REDUCE + _SET_ITEMS
    members = {"data.pkl": _PROTO + content + _STOP, "byteorder": b"little", "version": b"3\n"}
    for key, shape in enumerate(shapes.values()):
        numbers = [((index * 7 + key * 13) % 29 - 14) / 64 for index in range(prod(shape))]
        members[f"data/{key}"] = struct.pack(f"<{len(numbers)}f", *numbers)
    return _archive(members)


def _archive(members: dict[str, bytes]) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return buffer.getvalue()


def _tensor(key: int, shape: tuple[int, ...]) -> bytes:
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    storage = _tuple(
        _text("storage"), _named("torch", "FloatStorage"), _text(str(key)), _text("cpu"), _int(prod(shape))
    )
    hooks = _named("collections", "OrderedDict") + _EMPTY_TUPLE + _REDUCE
    sizes, steps = _tuple(*map(_int, shape)), _tuple(*map(_int, strides))
    arguments = _tuple(storage + _PERSISTENT, _int(0), sizes, steps, _FALSE, hooks)
    return _named("torch._utils", "_rebuild_tensor_v2") + arguments + _REDUCE


def _dictionary(entries: bytes) -> bytes:
    return _EMPTY_DICT + _MARK + entries + _SET_ITEMS


def _tuple(*items: bytes) -> bytes:
    return _MARK + b"".join(items) + _TUPLE


def _named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)
