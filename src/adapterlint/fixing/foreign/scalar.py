"""The value of a stored number, such as kohya's alpha."""

from __future__ import annotations

import os
import struct
from math import prod

from adapterlint.fixing.foreign.layers import CannotConvertError
from adapterlint.model.tensor import Tensor

_FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}


def scalar(directory: str, tensor: Tensor) -> float:
    """The one element of a tensor. Raises CannotConvertError if it is none, or not finite."""
    if prod(tensor.shape) != 1 or tensor.offset < 0 or (tensor.dtype not in _FORMATS and tensor.dtype != "BF16"):
        raise CannotConvertError(f"{tensor.name} is no number, but {tensor.dtype} {list(tensor.shape)}")
    try:
        with open(os.path.join(directory, tensor.file), "rb") as file:
            file.seek(tensor.offset)
            data = file.read(tensor.nbytes)
    except OSError as error:
        raise CannotConvertError(f"{tensor.file} cannot be read: {error.strerror}") from None
    kind = "<f" if tensor.dtype == "BF16" else _FORMATS[tensor.dtype]
    data = b"\0\0" + data if tensor.dtype == "BF16" else data
    if len(data) != struct.calcsize(kind):
        raise CannotConvertError(f"{tensor.file} ends before {tensor.name} does")
    value = float(struct.unpack(kind, data)[0])
    if not abs(value) < float("inf"):
        raise CannotConvertError(f"{tensor.name} is {value}")
    return value
