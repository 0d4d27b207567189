"""Samples of ``adapter_model.bin``: healthy files as torch writes them, and hostile ones put together by hand.

The hostile builders need the standard library only, so that fixtures can be made from them; those of healthy files need
torch. A payload, where there is one, creates the file that ``canary`` names: if that file appears, code was run.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
NAME = "base_model.model.layers.0.q_proj.lora_A.weight"


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """The opcode that torch's pickler would choose for an integer."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def group(*parts: bytes) -> bytes:
    """A tuple of what ``parts`` push."""
    return b"(" + b"".join(parts) + b"t"


def storage(key: str, numel: int, kind: str = "FloatStorage", legacy: bool = False) -> bytes:
    """A storage by its persistent id."""
    parts = [text("storage"), b"ctorch\n" + kind.encode() + b"\n", text(key), text("cpu"), number(numel)]
    return group(*parts, *([b"N"] if legacy else [])) + b"Q"


def tensor(where: bytes, offset: int, shape: Iterable[int], strides: Iterable[int]) -> bytes:
    """``_rebuild_tensor_v2`` over a storage."""
    hooks = b"ccollections\nOrderedDict\n)R"
    sizes, steps = (group(*map(number, values)) for values in (shape, strides))
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + group(where, number(offset), sizes, steps, b"\x89", hooks) + b"R"


def mapping(**entries: bytes) -> bytes:
    """A whole pickle of a dictionary; ``NAME`` is spelt ``a``."""
    items = b"".join(text(NAME if key == "a" else key) + value for key, value in entries.items())
    return b"\x80\x02}(" + items + b"u."


ONE = tensor(storage("0", 8), 0, (2, 4), (4, 1))
HEALTHY = mapping(a=ONE)
EIGHT_FLOATS = struct.pack("<8f", *range(8))


def archive(
    data_pkl: bytes = HEALTHY,
    storages: dict[str, bytes] | None = None,
    root: str = "adapter_model",
    deflate: Iterable[str] = (),
    extra: dict[str, bytes] | None = None,
    leave_out: Iterable[str] = (),
) -> bytes:
    """A zip archive with the members that torch writes.

    Args:
        data_pkl: the pickle.
        storages: bytes by key.
        root: the folder in the archive.
        deflate: members to compress, without the root.
        extra: further members, or others for those of torch, without the root.
        leave_out: members not to write.
    """
    members = {"data.pkl": data_pkl, "byteorder": b"little"}
    members |= {f"data/{key}": data for key, data in (storages or {"0": EIGHT_FLOATS}).items()}
    members |= {"version": b"3\n", ".data/serialization_id": b"0" * 40}
    members |= extra or {}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name, data in members.items():
            if name not in leave_out:
                method = zipfile.ZIP_DEFLATED if name in deflate else zipfile.ZIP_STORED
                target.writestr(zipfile.ZipInfo(f"{root}/{name}", (1980, 1, 1, 0, 0, 0)), data, method)
    return out.getvalue()


def legacy(
    pickled: bytes,
    storages: dict[str, bytes] | None = None,
    itemsize: int = 4,
    magic: int = MAGIC,
    protocol: int = PROTOCOL,
) -> bytes:
    """The format before zip; ``pickled`` must use legacy storages."""
    data = {"0": EIGHT_FLOATS} if storages is None else storages
    facts = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(value, 2) for value in (magic, protocol, facts))
    tail = b"".join(struct.pack("<q", len(raw) // itemsize) + raw for raw in data.values())
    return head + pickled + pickle.dumps(list(data), 2) + tail


HEALTHY_LEGACY = mapping(a=tensor(storage("0", 8, legacy=True), 0, (2, 4), (4, 1)))


class _Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def payloads(canary: str) -> dict[str, bytes]:
    """Pickles that create the file ``canary`` when unpickled, or try another door, by the trick that they use."""
    shell = f"touch '{canary}'"
    code = f"open({canary!r}, 'w').close()"
    call = text(shell) + b"\x85R"
    popen = b"csubprocess\nPopen\n" + group(group(text("touch"), text(canary)))
    partial = b"cfunctools\npartial\n)\x81" + group(b"cos\nsystem\n", group(text(shell)), b"}N") + b"b"
    lookup = b"cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"\x86R"
    through = group(b"cos\nsystem\n", b"ctorch\nTensor\n", group(text(shell)), b"}")
    module = group(text("module"), text("os"), text("system"))
    return {
        "os_system": mapping(a=ONE, x=b"cos\nsystem\n" + call),
        "posix_system": mapping(a=ONE, x=b"cposix\nsystem\n" + call),
        "eval_python_2": mapping(a=ONE, x=b"c__builtin__\neval\n" + text(f"[{code}]") + b"\x85R"),
        "exec": mapping(a=ONE, x=b"cbuiltins\nexec\n" + text(code) + b"\x85R"),
        "getattr": mapping(a=ONE, x=lookup + call),
        "inst": mapping(a=ONE, x=b"(" + text(shell) + b"ios\nsystem\n"),
        "obj": mapping(a=ONE, x=b"(cos\nsystem\n" + text(shell) + b"o"),
        "stack_global": mapping(a=ONE, x=b"\x8c\x05posix\x94\x8c\x06system\x94\x93" + call),
        "stack_global_memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93" + call + b".",
        "extension": mapping(a=ONE, x=b"\x82\x01" + call),
        "newobj": mapping(a=ONE, x=popen + b"\x81"),
        "newobj_ex": mapping(a=ONE, x=popen + b"}\x92"),
        "build_setstate": mapping(a=ONE, x=partial),
        "build_on_dict": mapping(a=ONE, x=b"}}b"),
        "torch_hub": mapping(a=ONE, x=b"ctorch.hub\nload\n" + call),
        "through_allowed": mapping(a=ONE, x=b"ctorch._tensor\n_rebuild_from_type_v2\n" + through + b"R"),
        "text_as_function": mapping(a=ONE, x=text("os.system") + call),
        "persistent_module": mapping(a=ONE, x=module + b"Q"),
        "persistent_text": mapping(a=ONE, x=b"Pos.system\n"),
        "first": mapping(x=b"cos\nsystem\n" + call, a=ONE),
        "protocol_0": pickle.dumps(_Call(os.system, shell), 0),
        "protocol_4": pickle.dumps(_Call(os.system, shell), 4),
    }


def attacks(canary: str) -> dict[str, bytes]:
    """The payloads in all three containers: zip, legacy, and a bare pickle."""
    found = {}
    legacy_one = tensor(storage("0", 8, legacy=True), 0, (2, 4), (4, 1))
    for name, data in payloads(canary).items():
        found[f"zip_{name}"] = archive(data)
        found[f"bare_{name}"] = data.replace(ONE, b"N")
        found[f"legacy_{name}"] = legacy(data.replace(ONE, legacy_one))
    plain = payloads(canary)["first"].replace(ONE, b"N")
    good = legacy(HEALTHY_LEGACY)
    start = good.index(HEALTHY_LEGACY)
    keys = pickle.dumps(["0"], 2)
    found["legacy_in_facts"] = pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2) + plain + good[start:]
    found["legacy_in_keys"] = good.replace(keys, plain)
    found["deflated"] = archive(payloads(canary)["os_system"], deflate=["data.pkl"])
    return found


def bombs() -> dict[str, Callable[[], bytes]]:
    """Files that make a careless reader take gigabytes or minutes. Some of them kill torch itself."""
    million = 1_000_000
    slots = range(256)
    # Each of these holds the one before it twice.
    tuples = text("ha") + b"q\x00" + b"".join(b"h%c\x86q%c" % (n, n + 1) for n in slots[:-1])
    dicts = b"}q\x00" + b"".join(
        b"}(" + text("a") + b"h%c" % n + text("b") + b"h%cuq%c" % (n, n + 1) for n in slots[:-1]
    )
    itself = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x01]q\x02(h\x01h\x01h\x02}eR"

    def packed(data: bytes) -> bytes:
        return archive(b"\x80\x02" + data + b".", deflate=["data.pkl"])

    def one(shape: list[int], strides: list[int]) -> bytes:
        return archive(mapping(a=tensor(storage("0", 8), 0, shape, strides)))

    return {
        "memo": lambda: archive(b"\x80\x02}r" + struct.pack("<I", 1 << 28) + b"."),
        "memo_with_tensor": lambda: archive(HEALTHY[:-1] + b"r" + struct.pack("<I", (1 << 32) - 1) + b"."),
        "memo_slots": lambda: archive(b"\x80\x02N" + b"".join(struct.pack("<cI", b"r", n) for n in range(2 * million))),
        "deflated_60_mb": lambda: packed(b"]" * 60 * million),
        "lists": lambda: packed(b"]" * 30 * million),
        "tuples": lambda: packed(b"N\x85" * 12 * million),
        "sets": lambda: packed(b"\x8f" * 30 * million),
        "marks": lambda: packed(b"(" * 30 * million),
        "protocols": lambda: packed(b"\x80\x02" * 15 * million + b"N"),
        "long_text": lambda: packed(text("\U0001f600" + "x" * 28 * million)),
        "long_global": lambda: packed(b"c" + b"x" * 30 * million + b"\ny\n"),
        "copied_dict": lambda: packed(
            b"](}(" + b"".join(number(n) + b"N" for n in range(50_000)) + b"uq\x01ccollections\nOrderedDict\nq\x02"
            + b"h\x02h\x01\x85R" * 100_000 + b"e"),
        "copied_text": lambda: packed(
            b"](c_codecs\nencode\nq\x01" + text("x" * 60_000) + text("utf-8") + b"\x86q\x03"
            + b"h\x01h\x03R" * 200_000 + b"e"),
        "laughing_tuples": lambda: archive(mapping(a=ONE, x=tuples)),
        "laughing_key": lambda: packed(b"}" + tuples + b"Ns"),
        "laughing_dicts": lambda: archive(mapping(x=b"](" + dicts + b"e")),
        "deep_lists": lambda: archive(mapping(a=ONE, x=b"]" * million + b"a" * (million - 1))),
        "deep_tuples": lambda: archive(mapping(a=ONE, x=b")" + b"\x85" * million)),
        "deep_key": lambda: packed(b"})" + b"\x85" * million + b"Ns"),
        "dict_in_itself": lambda: packed(b"}q\x00" + text("a") + b"h\x00s"),
        "call_in_itself": lambda: archive(mapping(a=ONE, x=itself)),
        "colliding_keys": lambda: packed(
            b"}(" + b"".join(number(n * ((1 << 61) - 1)) + b"N" for n in range(1, 60_000)) + b"u"),
        "many_dimensions": lambda: one([1] * 100_000, [1] * 100_000),
        "huge_dimensions": lambda: one([1 << 2000] * 200, [1] * 200),
        "bytearray": lambda: archive(mapping(a=ONE, x=b"cbuiltins\nbytearray\n" + number(1 << 50) + b"\x85R")),
        "storage_1e12": lambda: archive(mapping(a=tensor(storage("0", 10**12), 0, (10**12,), (1,)))),
        "storage_1e12_legacy": lambda: legacy(mapping(a=tensor(storage("0", 10**12, legacy=True), 0, (8,), (1,)))),
        "storage_1e30": lambda: archive(mapping(a=tensor(storage("0", 10**30), 0, (8,), (1,)))),
        "many_storages_legacy": lambda: legacy(mapping(a=storage("0", 0, legacy=True)), {})[:-3]
        + b"(" + text("0") + b"q\x01" + b"h\x01" * million + b"e." + bytes(8) * million,
        "many_members": lambda: _many_members(99_000),
        "too_many_members": lambda: _many_members(400_000),
    }  # fmt: skip


def _many_members(count: int) -> bytes:
    """An archive whose directory lists many members."""
    good = archive()
    entry, end = good.index(b"PK\x01\x02"), good.rindex(b"PK\x05\x06")
    one = good[entry : good.index(b"PK\x01\x02", entry + 4)]
    entries = b"".join(one.replace(b"data.pkl", b"%08d" % number) for number in range(count))
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(entries), entry)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, entry + len(entries), 1)
    return good[:entry] + entries + wide + locator + good[end:]


def bad_layouts() -> dict[str, bytes]:
    """Files that are broken, or something else, by what is wrong with them."""
    good = archive()
    end, first = good.rindex(b"PK\x05\x06"), good.index(b"PK\x01\x02")
    storage_header = good.index(b"adapter_model/data/0") - 30
    many, far, wide, header = (bytearray(good) for _ in range(4))
    header[storage_header : storage_header + 2] = b"XX"
    struct.pack_into("<HH", many, end + 8, 65535, 65535)
    struct.pack_into("<I", far, end + 16, 0xFFFFFF00)
    struct.pack_into("<II", wide, first + 20, 0xFFFFFFFF, 0xFFFFFFFF)

    def one(numel: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
        return archive(mapping(a=tensor(storage("0", numel), offset, shape, strides)))

    return {
        "many_entries": bytes(many),
        "far_directory": bytes(far),
        "zip64_without_extra": bytes(wide),
        "storage_beyond_entry": archive(storages={"0": EIGHT_FLOATS[:8]}),
        "storage_below_entry": archive(storages={"0": EIGHT_FLOATS * 2}),
        "storage_header": bytes(header),
        "id_beyond": _beyond(good, b".data/serialization_id"),
        "storage_far": _beyond(good, b"data/0"),
        "comment_beyond": _beyond(good, b".data/serialization_id", field=33),
        "encrypted": _beyond(good, b"byteorder", field=8),
        "name_not_utf_8": good.replace(b"serialization_id", b"serialization_\xff\xff"),
        "storage_missing": archive(leave_out=["data/0"]),
        "storage_negative": one(-8, 0, (8,), (1,)),
        "storage_of_texts": archive(HEALTHY.replace(b"FloatStorage", b"StringStorag")),
        "tensor_beyond": one(8, 0, (9,), (1,)),
        "tensor_offset_beyond": one(8, 4, (8,), (1,)),
        "tensor_stride_beyond": one(8, 0, (8,), (2,)),
        "tensor_negative_stride": one(8, 7, (8,), (-1,)),
        "tensor_negative_offset": one(8, -1, (8,), (1,)),
        "tensor_negative_shape": one(8, 0, (-8,), (1,)),
        "tensor_unequal_strides": one(8, 0, (2, 4), (1,)),
        "tensor_beyond_legacy": legacy(mapping(a=tensor(storage("0", 8, legacy=True), 0, (9,), (1,)))),
        "integers_with_gradient": archive(HEALTHY.replace(b"\x89", b"\x88").replace(b"FloatSt", b"IntSt")),
        "truncated": good[:-60],
        "truncated_half": good[: len(good) // 2],
        "truncated_pickle": archive(HEALTHY[:-2]),
        "truncated_legacy": legacy(HEALTHY_LEGACY)[:-5],
        "truncated_legacy_pickle": legacy(HEALTHY_LEGACY)[:120],
        "no_pickle": archive(leave_out=["data.pkl"]),
        "no_version": archive(leave_out=["version"]),
        "version_99": archive(extra={"version": b"99\n"}),
        "version_text": archive(extra={"version": b"three"}),
        "byteorder_middle": archive(extra={"byteorder": b"middle"}),
        "alignment_text": archive(extra={".storage_alignment": b"x"}),
        "torchscript": archive(extra={"constants.pkl": b""}),
        "two_roots": _two_roots(),
        "no_root": _renamed(good, "adapter_model/", ""),
        "empty_zip": b"PK\x05\x06" + bytes(18),
        "only_magic": b"PK\x03\x04",
        "wrong_magic_legacy": legacy(HEALTHY_LEGACY, magic=5),
        "wrong_protocol_legacy": legacy(HEALTHY_LEGACY, protocol=1000),
        "wrong_size_legacy": legacy(HEALTHY_LEGACY, {"0": EIGHT_FLOATS * 2}),
        "unknown_key_legacy": legacy(HEALTHY_LEGACY, {"0": EIGHT_FLOATS, "1": EIGHT_FLOATS}),
        "zip_storages_in_legacy": legacy(HEALTHY),
        "legacy_storages_in_zip": archive(HEALTHY_LEGACY),
        "protocol_4_dict": archive(pickle.dumps({"a": 1}, 4)),
        "tar": _tar(),
        "zeros": bytes(4096),
        "few_zeros": bytes(100),
        "text": b"hello\n",
        "html": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "gguf": b"GGUF\x03\0\0\0" + bytes(64),
        "gzip": b"\x1f\x8b\x08" + bytes(64),
        "noise": bytes((n * 7919 + 13) % 251 for n in range(2000)),
        "empty": b"",
    }


def _beyond(good: bytes, name: bytes, field: int = 43) -> bytes:
    """Change one byte of the directory entry of a member; 43 is in its place in the file."""
    data = bytearray(good)
    data[good.rindex(b"adapter_model/" + name) - 46 + field] += 1
    return bytes(data)


def _two_roots() -> bytes:
    out = io.BytesIO(archive())
    with zipfile.ZipFile(out, "a") as target:
        target.writestr("__MACOSX/._version", b"x")
    return out.getvalue()


def _renamed(good: bytes, old: str, new: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name.replace(old, new, 1), source.read(name))
    return out.getvalue()


def _tar() -> bytes:
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as target:
        member = tarfile.TarInfo("storages")
        member.size = 3
        target.addfile(member, io.BytesIO(b"abc"))
    return out.getvalue()


def odd_but_accepted() -> dict[str, bytes]:
    """Files that torch loads although they look unusual."""
    allowed = {
        "s": b"cbuiltins\nset\n](K\x01K\x02e\x85R",
        "c": b"cbuiltins\ncomplex\nG?\xf0\0\0\0\0\0\0G@\0\0\0\0\0\0\0\x86R",
        "n": b"ccollections\nCounter\n}\x85R",
        "d": b"ctorch\nfloat32\n",
        "z": b"ctorch\nSize\n(K\x02t\x85R",
        "e": b"c_codecs\nencode\n" + text("ab") + text("latin1") + b"\x86R",
        "b": b"cbuiltins\nbytearray\n)R",
        "v": b"ctorch\ndevice\n" + text("cpu") + b"\x85R",
    }
    numbers = {"i": number(5), "f": b"G?\xf0\0\0\0\0\0\0", "n": b"N", "t": b"\x88", "l": b"]", "u": number(10**18)}
    part = group(text("1"), number(2), number(4))
    view = storage("0", 8, legacy=True)[:-3] + part + b"tQ"
    return {
        "deflated": archive(deflate=["data.pkl", "data/0"]),
        "deflated_pickle": archive(deflate=["data.pkl"]),
        "big_endian": archive(extra={"byteorder": b"big"}),
        "no_byteorder": archive(leave_out=["byteorder"]),
        "other_root": archive(root="archive"),
        "upper_case": _renamed(archive(), "data.pkl", "DATA.PKL"),
        "trailing": archive() + b"x" * 100,
        "allowed_globals": archive(mapping(a=ONE, **allowed)),
        "numbers": archive(mapping(a=ONE, **numbers)),
        "zero_size_far": archive(mapping(a=tensor(storage("0", 8), 100, (0,), (1,)))),
        "no_strides": archive(mapping(a=tensor(storage("0", 8), 0, (2, 4), ()))),
        "cuda_storage": archive(HEALTHY.replace(b"ctorch\nFloat", b"ctorch.cuda\nFloat")),
        "second_dtype": archive(mapping(a=ONE, b=tensor(storage("0", 16, "HalfStorage"), 0, (8,), (1,)))),
        "empty_dict": archive(mapping()),
        "legacy": legacy(HEALTHY_LEGACY),
        "legacy_trailing": legacy(HEALTHY_LEGACY) + b"tail",
        "legacy_view": legacy(mapping(a=tensor(view, 0, (4,), (1,)))),
    }


def healthy(torch: Any) -> dict[str, Any]:
    """Objects to save with ``torch.save``, by what is unusual about them; all of them torch and PEFT load."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    shared = torch.arange(12, dtype=torch.float32)
    attributed = torch.nn.Parameter(base.clone())
    attributed.note = "kept"
    linear = torch.nn.Linear(3, 2)
    dtypes = [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "complex64",
        "uint16",
        "uint32",
        "uint64",
    ]
    dtypes += ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu"]
    return {
        "plain": {"a": base, "b.c": base + 1},
        "ordered": OrderedDict(a=base, b=base * 2),
        "state_dict": linear.state_dict(),
        "parameters": {"a": torch.nn.Parameter(base), "b": torch.nn.Parameter(base.half(), requires_grad=False)},
        "attributes": {"a": attributed},
        "transposed": {"a": base.t(), "b": base.t().contiguous()},
        "views": {"a": base[1:3], "b": base[:, 2:4], "c": base[::2], "d": base[1]},
        "expanded": {"a": torch.ones(1, 4).expand(3, 4)},
        "shared": {"a": shared, "b": shared[3:6], "c": shared.view(3, 4)},
        "dtypes": {name: torch.arange(6).to(getattr(torch, name)) for name in dtypes},
        "scalars": {"a": torch.tensor(1.5), "b": torch.tensor(3), "c": torch.zeros(0), "d": torch.zeros(0, 4)},
        "channels_last": {"a": torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last)},
        "int_entry": {"a": base, "epoch": 3, "lr": 0.1, "name": "x", "done": True, "none": None, "sizes": [1, (2, 3)]},
        "nested": {"state_dict": {"a": base, "b": base}, "epoch": 3},
        "nested_beside": {"a": base, "extra": {"b": base}},
        "storage_entry": {"a": base, "s": base.storage()},
        "odd_names": {"": base, "ä\n\U0001f600": base, "\ud800": base, "x" * 5000: base},
        "empty": {},
    }


def many_tensors(torch: Any, layers: int = 32) -> dict[str, Any]:
    """The names and shapes of a LoRA on all seven linear modules of ``layers`` layers, small in bytes."""
    modules = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    return {
        f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight": torch.ones(2, 8) * layer
        for layer in range(layers)
        for module in modules
        for side in "AB"
    }
