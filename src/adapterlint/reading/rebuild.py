"""What torch builds from the calls in a pickle: tensors over storages, described and checked, never built.

The checks and their texts are those of torch 2.13 (``torch/_utils.py``, ``Tensor.set_``, ``torch.nn.Parameter``).
"""

from __future__ import annotations

import re
from typing import Any

from .picklevalues import (
    Allowed,
    Counter,
    GaveUpError,
    Opaque,
    OrderedDict,
    RefusedError,
    Storage,
    Tensor,
    contiguous_strides,
    dict_key,
    type_name,
)
from .torchglobals import DTYPES, FUNCTIONS, STORAGES, TENSOR_CLASSES, Dtype

_INT64_MAX = (1 << 63) - 1
_MAX_BYTES = 1 << 40
_MAX_DIMENSIONS = 256
_SET_ARGUMENTS = "TypeError: set_()"


def call(name: str, arguments: Any, new: bool) -> Any:
    """What the allowed global ``name`` yields when it is called, or its ``__new__``, with ``arguments``.

    Raises:
        RefusedError, TypeError, ValueError, ...: torch raises.
    """
    if type(arguments) not in (tuple, list):
        if not isinstance(arguments, (dict, set)):
            raise TypeError(f"argument after * must be an iterable, not {type_name(arguments)}")
        arguments = tuple(arguments)
    if name == "torch.nn.parameter.Parameter":
        return _parameter(*arguments)
    if new:
        return _new(name, arguments)
    rebuild = _REBUILDS.get(name)
    if rebuild is not None:
        return rebuild(*arguments)
    if name in _NOT_CALLABLE:
        raise TypeError(f"'{name}' object is not callable")
    if name in TENSOR_CLASSES:
        return Opaque(name.rpartition(".")[2])
    return Opaque(name)


_NOT_CALLABLE = frozenset({f"torch.{name}" for name in DTYPES} | (STORAGES.keys() - {"torch.storage.UntypedStorage"}))


def _new(name: str, arguments: Any) -> Any:
    if name in FUNCTIONS or name in _NOT_CALLABLE:
        raise TypeError(f"object.__new__(X): X is not a type object ({name})")
    if name == "collections.OrderedDict":
        return OrderedDict()
    if name == "collections.Counter":
        return Counter()
    if name == "torch.Size":
        return _size(*arguments)
    return Opaque(name.rpartition(".")[2] if name in TENSOR_CLASSES else name)


def _view(storage: Any, offset: Any, size: Any, strides: Any, dtype: Dtype) -> Tensor:
    """``torch.empty(0, dtype).set_(storage, offset, size, strides)``."""
    if type(offset) is not int or type(size) not in (tuple, list) or type(strides) not in (tuple, list, type(None)):
        raise RefusedError("bad-tensor", "a tensor's offset, shape or strides are no integers", _SET_ARGUMENTS)
    if len(size) > _MAX_DIMENSIONS or len(strides or ()) > _MAX_DIMENSIONS:
        raise GaveUpError("too-large", f"a tensor has more than {_MAX_DIMENSIONS} dimensions")
    shape, steps = _integers(size), _integers(strides or ())
    if abs(offset) > _INT64_MAX:
        raise RefusedError("bad-tensor", "a tensor's offset does not fit 64 bits", "ValueError: Overflow")
    if any(abs(number) > _INT64_MAX for number in (*shape, *steps)):
        raise RefusedError("bad-tensor", "a tensor's shape or strides do not fit 64 bits", _SET_ARGUMENTS)
    if offset < 0:
        raise _out_of_range(storage, f"its offset is {offset}", f"Tensor: invalid storage offset {offset}")
    elements = 1
    for number in shape:
        elements *= number
        if not 0 <= elements <= _INT64_MAX:
            raise _out_of_range(storage, "it has too many elements", "numel: integer multiplication overflow")
    if not steps:
        steps = contiguous_strides(shape)
    if len(steps) != len(shape):
        detail = f"unequal size length ({len(shape)}) and stride length ({len(steps)})"
        raise _out_of_range(storage, f"it has {len(shape)} dimensions and {len(steps)} strides", detail)
    if elements:
        _check_end(storage, offset, shape, steps, dtype)
    return Tensor(dtype, shape, steps, storage, offset)


def _integers(numbers: Any) -> tuple[int, ...]:
    """A shape or strides; torch lets a boolean pass, except in the first place."""
    if numbers and (type(numbers[0]) is not int or any(type(number) not in (int, bool) for number in numbers)):
        raise RefusedError("bad-tensor", "a tensor's shape or strides are no integers", _SET_ARGUMENTS)
    return tuple(map(int, numbers))


def _check_end(storage: Storage, offset: int, shape: tuple[int, ...], steps: tuple[int, ...], dtype: Dtype) -> None:
    end = offset + 1
    for number, step in zip(shape, steps, strict=True):
        if step < 0:
            end = _INT64_MAX + 1
            break
        end += step * (number - 1)
    nbytes = end * dtype.itemsize
    if nbytes > _INT64_MAX:
        detail = f"Storage size calculation overflowed with sizes={list(shape)} and strides={list(steps)}"
        raise _out_of_range(storage, "its strides lead out of any memory", detail)
    if nbytes <= storage.nbytes:
        return
    reason = f"it ends at byte {nbytes} of a storage of {storage.nbytes}"
    if not storage.resizable:
        raise _out_of_range(storage, reason, "Trying to resize storage that is not resizable")
    if nbytes > _MAX_BYTES:
        raise _out_of_range(storage, reason, "[enforce fail at alloc_cpu.cpp")
    storage.nbytes = nbytes


def _out_of_range(storage: Storage, reason: str, detail: str) -> RefusedError:
    message = f"a tensor does not lie within its storage {str(storage.key)[:40]!r}: {reason}"
    return RefusedError("out-of-range", message, f"RuntimeError: {detail}")


def _require_grad(dtype: Dtype, requires_grad: Any, capital: bool = False) -> None:
    if type(requires_grad) is not bool:
        detail = "RuntimeError: requires_grad must be a bool"
        raise RefusedError("bad-tensor", "requires_grad of a tensor is no boolean", detail)
    if requires_grad and not dtype.floating:
        detail = f"{'Only' if capital else 'only'} Tensors of floating point and complex dtype can require gradients"
        raise RefusedError(
            "bad-tensor", f"a tensor of dtype {dtype.name} requires gradients", f"RuntimeError: {detail}"
        )


def _flag(tensor: Tensor, metadata: Any) -> Tensor:
    """Apply the lazy conjugation and negation bits."""
    if not metadata:
        return tensor
    if not isinstance(metadata, dict):
        raise AssertionError(f"expected dict, got {type_name(metadata)}")
    if metadata.get("conj") and tensor.dtype.name not in ("COMPLEX32", "C64", "COMPLEX128"):
        raise RefusedError("bad-tensor", "a real tensor is marked as conjugated", "RuntimeError: isComplexType")
    if metadata.get("conj") or metadata.get("neg"):
        tensor.special = "conjugated" if metadata.get("conj") else "negated"
    return tensor


def _storage(value: Any) -> Storage:
    if not isinstance(value, Storage):
        raise AttributeError(f"'{type_name(value)}' object has no attribute '_untyped_storage'")
    return value


def _dtype(value: Any) -> Dtype:
    """The dtype that a global names."""
    if value is None:
        return DTYPES["float32"]
    dtype = DTYPES.get(value.name.removeprefix("torch.")) if isinstance(value, Allowed) else None
    if dtype is None:
        raise TypeError(f"empty(): argument 'dtype' must be torch.dtype, not {type_name(value)}")
    return dtype


def _tensor(storage: Any, offset: Any, size: Any, strides: Any) -> Tensor:
    return _view(_storage(storage), offset, size, strides, storage.dtype)


def _tensor_v2(
    storage: Any, offset: Any, size: Any, strides: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    tensor = _tensor(storage, offset, size, strides)
    _require_grad(tensor.dtype, requires_grad)
    return _flag(tensor, metadata)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, strides: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor:
    itself = _dtype(dtype)
    _storage(storage)
    _require_grad(itself, requires_grad, capital=True)
    return _flag(_view(storage, offset, size, strides, itself), metadata)


def _parameter(data: Any = None, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> Any:
    if data is None:
        return Tensor(DTYPES["float32"], (0,), (1,))
    if not isinstance(data, Tensor):
        if isinstance(data, Opaque):
            return data
        raise AttributeError(f"'{type_name(data)}' object has no attribute 'detach'")
    if type(requires_grad) is not bool:
        detail = f"_make_subclass(): argument 'require_grad' (position 3) must be bool, not {type_name(requires_grad)}"
        raise TypeError(detail)
    _require_grad(data.dtype, requires_grad, capital=True)
    return data


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> Any:
    return _parameter(data, requires_grad)


def _rebuild_parameter_with_state(data: Any, requires_grad: Any, hooks: Any, state: Any) -> Any:
    return _parameter(data, requires_grad)


def _from_type(function: Any, new_type: Any, arguments: Any, state: Any) -> Any:
    if not isinstance(function, Allowed):
        raise TypeError(f"'{type_name(function)}' object is not callable")
    if not function.name.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_")):
        return Opaque(function.name)
    return call(function.name, arguments, new=False)


def _special(special: str, dtype: Any, shape: Any, strides: Any = None) -> Any:
    if type(shape) not in (tuple, list) or len(shape) > _MAX_DIMENSIONS:
        return Opaque(f"{special} tensor")
    if any(type(number) is not int for number in shape):
        return Opaque(f"{special} tensor")
    return Tensor(_dtype(dtype) if not isinstance(dtype, Dtype) else dtype, tuple(shape), special=special)


def _meta(dtype: Any, size: Any, strides: Any, requires_grad: Any) -> Any:
    return _special("meta", dtype, size)


def _quantized(
    storage: Any, offset: Any, size: Any, strides: Any, parameters: Any, requires_grad: Any, hooks: Any
) -> Any:
    tensor = _view(_storage(storage), offset, size, strides, storage.dtype)
    tensor.special = "quantized"
    return tensor


def _sparse(layout: Any, data: Any) -> Any:
    if type(data) is not tuple or not 3 <= len(data) <= 4:
        return Opaque("sparse tensor")
    shape = data[-2] if type(data[-1]) is bool else data[-1]
    values = [item for item in data if isinstance(item, Tensor)]
    return _special("sparse", values[-1].dtype if values else None, shape)


def _wrapper(cls: Any, dtype: Any, size: Any, *rest: Any) -> Any:
    name = cls.name.rpartition(".")[2] if isinstance(cls, Allowed) else "wrapped"
    return _special(name, dtype, size)


def _from_device(data: Any, dtype: Any, device: Any, requires_grad: Any) -> Any:
    """A tensor of another device (XLA, HPU), stored as a CPU tensor."""
    if isinstance(data, Tensor) and data.dtype is _dtype(dtype):
        return data
    return Opaque("device tensor")


def _ordered(items: Any = ()) -> OrderedDict:
    if isinstance(items, dict):
        return OrderedDict(items)
    result = OrderedDict()
    if not isinstance(items, (list, tuple, set)):
        raise TypeError(f"'{type_name(items)}' object is not iterable")
    for item in items:
        if not isinstance(item, (list, tuple)):
            raise TypeError("cannot convert dictionary update sequence element to a sequence")
        key, value = item
        result[dict_key(key)] = value
    return result


def _counter(items: Any = None) -> Counter:
    if items is None or isinstance(items, dict):
        return Counter(items or {})
    return Counter()


def _size(items: Any = ()) -> Any:
    if type(items) not in (tuple, list) or any(type(number) is not int for number in items):
        raise TypeError("torch.Size() takes an iterable of 'int'")
    return tuple(items)


_PLAIN_CODECS = frozenset({"latin1", "latin-1", "iso-8859-1", "ascii", "us-ascii", "utf-8", "utf8"})


def _encode(text: Any, encoding: Any = "utf-8", errors: Any = "strict") -> Any:
    """``_codecs.encode``: how protocol 2 stores bytes. Other codecs than the plain ones are not run."""
    if type(text) is not str or type(encoding) is not str or type(errors) is not str:
        raise TypeError("encode() takes texts")
    if encoding.lower() in _PLAIN_CODECS and errors == "strict":
        return text.encode(encoding)
    raise GaveUpError("unknown-codec", f"the pickle encodes a text as {encoding[:40]!r}, which is not followed")


_DEVICE = re.compile(
    r"(cpu|cuda|ipu|xpu|mkldnn|opengl|opencl|ideep|hip|ve|fpga|maia|xla|lazy|vulkan|mps|meta|hpu|mtia|privateuseone)"
    r"(:[0-9]{1,3})?"
)


def _device(*arguments: Any) -> Opaque:
    name = arguments[0] if arguments else None
    if type(name) is str and _DEVICE.fullmatch(name) is None:
        detail = "RuntimeError: Invalid device string"
        raise RefusedError("bad-tensor", f"the pickle names a device {name[:40]!r}, which torch does not know", detail)
    return Opaque("torch.device")


def _bytearray(*arguments: Any) -> Opaque:
    if arguments and type(arguments[0]) is int and arguments[0] > _MAX_BYTES:
        raise RefusedError("bytes-bomb", f"the pickle asks for a bytearray of {arguments[0]} bytes", "MemoryError")
    return Opaque("builtins.bytearray")


_REBUILDS: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter_with_state,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_wrapper_subclass": _wrapper,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_device,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytearray,
}
