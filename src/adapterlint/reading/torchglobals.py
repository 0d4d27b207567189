"""The globals that ``torch.load(weights_only=True)`` accepts, by name, and the dtypes behind them.

Source: ``torch/_weights_only_unpickler.py`` of torch 2.13 (``_get_allowed_globals``), and what torch, transformers and
PEFT add to it on import (nested and distributed tensors). Nothing here is ever looked up in a module.
"""

from __future__ import annotations

from typing import NamedTuple


class Dtype(NamedTuple):
    """A torch dtype.

    Attributes:
        name: its safetensors name; the torch name in capitals where safetensors has none.
        itemsize: bytes an element.
        floating: whether tensors of it can require gradients (floating point or complex).
    """

    name: str
    itemsize: int
    floating: bool = False


DTYPES: dict[str, Dtype] = {
    "float64": Dtype("F64", 8, True),
    "float32": Dtype("F32", 4, True),
    "float16": Dtype("F16", 2, True),
    "bfloat16": Dtype("BF16", 2, True),
    "float8_e4m3fn": Dtype("F8_E4M3", 1, True),
    "float8_e5m2": Dtype("F8_E5M2", 1, True),
    "float8_e4m3fnuz": Dtype("F8_E4M3FNUZ", 1, True),
    "float8_e5m2fnuz": Dtype("F8_E5M2FNUZ", 1, True),
    "float8_e8m0fnu": Dtype("F8_E8M0", 1, True),
    "complex32": Dtype("COMPLEX32", 4, True),
    "complex64": Dtype("C64", 8, True),
    "complex128": Dtype("COMPLEX128", 16, True),
    "int64": Dtype("I64", 8),
    "int32": Dtype("I32", 4),
    "int16": Dtype("I16", 2),
    "int8": Dtype("I8", 1),
    "uint64": Dtype("U64", 8),
    "uint32": Dtype("U32", 4),
    "uint16": Dtype("U16", 2),
    "uint8": Dtype("U8", 1),
    "bool": Dtype("BOOL", 1),
    "float4_e2m1fn_x2": Dtype("FLOAT4_E2M1FN_X2", 1, True),
    "qint8": Dtype("QINT8", 1),
    "qint32": Dtype("QINT32", 4),
    "quint8": Dtype("QUINT8", 1),
    "quint4x2": Dtype("QUINT4X2", 1),
    "quint2x4": Dtype("QUINT2X4", 1),
    **{name: Dtype(name.upper(), 1) for name in ("bits8", "bits1x8", "bits2x4", "bits4x2")},
    "bits16": Dtype("BITS16", 2),
    **{f"{kind}{bits}": Dtype(f"{kind.upper()}{bits}", 1) for kind in ("int", "uint") for bits in range(1, 8)},
}
"""torch dtypes by their name without ``torch.``."""

STORAGE_DTYPES: dict[str, str] = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "QInt8": "qint8",
    "QInt32": "qint32",
    "QUInt8": "quint8",
    "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4",
}
"""``Float`` of ``torch.FloatStorage``, and so on, to the dtype's torch name."""

_CUDA_STORAGES = tuple(name for name in STORAGE_DTYPES if not name.startswith("Q"))
_SPARSE = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte")

STORAGES: dict[str, str] = {
    **{f"torch.{name}Storage": dtype for name, dtype in STORAGE_DTYPES.items()},
    **{f"torch.cuda.{name}Storage": STORAGE_DTYPES[name] for name in _CUDA_STORAGES},
    "torch.storage.UntypedStorage": "uint8",
}
"""Storage classes to the torch name of their dtype."""

FUNCTIONS = frozenset(
    {
        "_codecs.encode",
        "torch.serialization._get_layout",
        "torch._tensor._rebuild_from_type_v2",
        "torch.nested._internal.nested_tensor._rebuild_njt",
        *(
            f"torch._utils._rebuild_{name}"
            for name in (
                "device_tensor_from_cpu_tensor",
                "device_tensor_from_numpy",
                "meta_tensor_no_storage",
                "nested_tensor",
                "parameter",
                "parameter_with_state",
                "qtensor",
                "sparse_tensor",
                "tensor",
                "tensor_v2",
                "tensor_v3",
                "wrapper_subclass",
            )
        ),
    }
)

TENSOR_CLASSES = frozenset(
    {
        "torch.Tensor",
        "torch.nested._internal.nested_tensor.NestedTensor",
        "torch.distributed.tensor.DTensor",
        *(f"torch.{name}Tensor" for name in (*_SPARSE, "Bool")),
        *(f"torch.cuda.{name}Tensor" for name in (*_SPARSE, "Bool")),
        *(f"torch.{device}sparse.{name}Tensor" for device in ("", "cuda.") for name in _SPARSE),
    }
)

CLASSES = frozenset(
    {
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
        "torch._dynamo.decorators._DimRange",
        "torch.distributed._mesh_layout._FlatLayout",
        "torch.distributed._mesh_layout._MeshLayout",
        "torch.distributed.device_mesh.DeviceMesh",
        *(
            f"torch.distributed.tensor.{name}"
            for name in (
                "_dtensor_spec.DTensorSpec",
                "_dtensor_spec.ShardOrderEntry",
                "_dtensor_spec.TensorMeta",
                "placement_types.Partial",
                "placement_types.Replicate",
                "placement_types.Shard",
                "placement_types._StridedShard",
            )
        ),
    }
)

_VALUES = frozenset(
    {
        *(f"torch.{name}" for name in DTYPES),
        *(f"torch.per_{name}" for name in ("tensor_affine", "tensor_symmetric", "channel_affine", "channel_symmetric")),
        "torch.per_channel_affine_float_qparams",
    }
)

ALLOWED = FUNCTIONS | TENSOR_CLASSES | CLASSES | _VALUES | frozenset(STORAGES)
"""Every global that does not make ``torch.load(weights_only=True)`` raise."""

_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "Queue": "queue",
    "repr": "reprlib",
    "_abcoll": "collections.abc",
    "UserDict": "collections",
    "UserList": "collections",
    "UserString": "collections",
    "whichdb": "dbm",
    "StringIO": "io",
    "cStringIO": "io",
}


def modern_name(module: str, name: str) -> str:
    """The dotted Python 3 name of a global that a pickle may give by its Python 2 name.

    Only modules are translated. torch also renames some builtins (``unicode`` to ``str``); it accepts none of those
    under either name, so the difference shows in no verdict.
    """
    return f"{_MODULES.get(module, module)}.{name}"
