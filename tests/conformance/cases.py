"""What is loaded: every example of every rule, the traps and the shipped set, as directories beside their bases.

A file that an example describes by names and shapes gets numbers of its own here, drawn from the fixture's, adapter's
and tensor's names, so that every tensor shows in the output and no two adapters of a set are alike. Nothing in this
module asks adapterlint what an adapter means.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from adapterlint.rules.base import RunRule
from adapterlint.rules.examples import BaseExample, Example, SetExample, bert_base, llama_base, safetensors_bytes
from adapterlint.rules.registry import all_rules

FIXTURES = Path(__file__).parents[2] / "fixtures"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_DTYPES: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_STEP = 4096

# What holds a copy of the base's parameter instead of trained numbers: fixture -> {tensor: parameter}.
_EMBEDDING = "model.embed_tokens"
COPIES = {
    "AL203-invalid-a-copy-of-the-original": {
        f"base_model.model.classifier.original_module.{part}": f"classifier.{part}" for part in ("weight", "bias")
    },
    "AL211-valid-what-peft-saves-beside-an-embedding": {
        f"base_model.model.{_EMBEDDING}.base_layer.weight": f"{_EMBEDDING}.weight"
    },
}
RULES = tuple(rule for rule in all_rules() if not isinstance(rule, RunRule))
"""Rules about adapters; those about ignores and the baseline say nothing about PEFT."""
ALIKE = frozenset({"AL508-invalid-twice-the-same"})
"""Sets whose members hold the same numbers."""


@dataclass(frozen=True)
class Fixture:
    """One adapter, or adapters that are loaded together in this order.

    Attributes:
        name: unique, and a directory name.
        rule: code of the rule that it belongs to, or ``ok`` or ``set`` for those under fixtures/.
        title: what it shows, in a few words.
        together: whether it is loaded as a set, under the members' names.
        members: adapter name -> {file name: content}.
        base: {file name: content} of the base.
    """

    name: str
    rule: str
    title: str
    together: bool
    members: Mapping[str, Mapping[str, bytes]]
    base: Mapping[str, bytes]

    def write(self, directory: Path) -> list[Path]:
        """Write the adapters below ``directory``; returns their directories."""
        for member, files in self.members.items():
            _write(files, directory / member)
        return [directory / member for member in self.members]

    def write_base(self, directory: Path) -> Path:
        """Write the base below ``directory``, once for all fixtures that share it."""
        return place_base(self.base, directory)

    @cached_property
    def digest(self) -> str:
        """Changes with every byte of the fixture."""
        return _digest({**self.members, "/base": self.base})


def place_base(files: Mapping[str, bytes], directory: Path) -> Path:
    """Write a base below ``directory`` unless it is there."""
    target = directory / _digest({"base": files})
    if not target.exists():
        _write(files, target)
    return target


def _write(files: Mapping[str, bytes], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def _digest(tree: Mapping[str, Mapping[str, bytes]]) -> str:
    found = hashlib.sha256()
    for member, files in tree.items():
        for name, content in sorted(files.items()):
            found.update(f"{member}\0{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:12]


def fixtures() -> list[Fixture]:
    """Everything there is, in a stable order."""
    return [*_of_rules(), *_shipped()]


def _of_rules() -> Iterator[Fixture]:
    for rule in RULES:
        for kind in ("valid", "invalid"):
            for example in getattr(rule, kind)():
                yield _of_example(f"{rule.code}-{kind}-{_slug(example.title)}", rule.code, kind, example)


def _of_example(name: str, rule: str, kind: str, example: Example | SetExample) -> Fixture:
    together = isinstance(example, SetExample)
    members = example.members if isinstance(example, SetExample) else {"adapter": example}
    shape = example.base or default_base(next(iter(members.values())))
    base = base_files(shape)
    numbers = _parameters(base["model.safetensors"])
    copies = {tensor: numbers[parameter] for tensor, parameter in COPIES.get(name, {}).items()}
    return Fixture(
        name=name,
        rule=rule,
        title=f"{kind}: {example.title}",
        together=together,
        members={
            member: _files(each, rule if name in ALIKE else f"{rule}/{member}", copies)
            for member, each in members.items()
        },
        base=base,
    )


def default_base(example: Example) -> BaseExample:
    """A base for an example that has none: the one that its names fit, with as many layers as it has."""
    names = " ".join(example.tensors or {}) + str(example.config)
    layers = [int(number) for number in re.findall(r"\.layers?\.(\d+)\.", names)]
    make = bert_base if re.search(r"bert|query|'key'|SEQ_CLS", names) else llama_base
    return make(layers=max(layers, default=1) + 1)


def _files(example: Example, key: str, copies: Mapping[str, Any]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    if example.config is not None:
        data = example.config
        text = data if isinstance(data, bytes | str) else json.dumps(data, indent=2)
        files[CONFIG] = text.encode() if isinstance(text, str) else text
    if example.tensors is not None:
        files[example.weights] = renumbered(safetensors_bytes(example.tensors, example.fill), key, example.fill, copies)
    return files | dict(example.files)


def base_files(shape: BaseExample) -> dict[str, bytes]:
    """The files of a base that an example describes."""
    return {
        "config.json": json.dumps(dict(shape.config), indent=2).encode(),
        "model.safetensors": renumbered(safetensors_bytes(shape.tensors), "base", "ramp", {}),
    }


def renumbered(data: bytes, key: str, fill: str, copies: Mapping[str, Any]) -> bytes:
    """The same safetensors file with numbers of our own in every tensor of a floating type; zeros stay."""
    if fill == "zero":
        return data
    length = int.from_bytes(data[:8], "little")
    start, result = 8 + length, bytearray(data)
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__" or entry["dtype"] not in _DTYPES or 0 in entry["shape"]:
            continue
        array = _given(name, tuple(entry["shape"]), copies)
        array = numbers(f"{key}/{name}", tuple(entry["shape"])) if array is None else array.copy()
        if fill == "nan":
            array.flat[-1] = np.nan
        begin, end = entry["data_offsets"]
        result[start + begin : start + end] = array.astype(_DTYPES[entry["dtype"]]).tobytes()
    return bytes(result)


def _given(name: str, shape: tuple[int, ...], copies: Mapping[str, Any]) -> Any:
    """What may not be just any numbers: copies of the base's, and the projections that VeRA draws from its seed."""
    if len(shape) == 2 and re.search(r"(^|\.)vera_[AB](\.|$)", name):
        return vera_projection(shape, skip=0 if "vera_A" in name else 64)
    return copies.get(name)


def vera_projection(shape: tuple[int, int], skip: int) -> Any:
    """A matrix of VeRA for seed 0: torch and numpy both draw from the Mersenne twister. ``skip``: numbers drawn before."""
    rows, columns = shape
    bound = (6 / columns) ** 0.5
    drawn = np.random.RandomState(0).randint(0, 2**32, skip + rows * columns, dtype=np.uint32)[skip:]
    uniform = (drawn & (2**24 - 1)) / 2**24
    return (uniform * 2 * bound - bound).reshape(shape).astype(np.float32)


def numbers(key: str, shape: tuple[int, ...]) -> Any:
    """Float32 numbers between -1/2 and 1/2, the same for the same key; around 1 for a norm's weight and a magnitude."""
    draw = np.random.RandomState(zlib.crc32(key.encode()))
    around = 1.0 if re.search(r"(norm[^/]*\.weight|magnitude_vector[^/]*)$", key.lower()) else 0.0
    return (draw.randint(-_STEP // 2, _STEP // 2 + 1, shape) / _STEP + around).astype(np.float32)


def _parameters(data: bytes) -> dict[str, Any]:
    from safetensors.numpy import load

    return dict(load(data))


def _shipped() -> Iterator[Fixture]:
    for path in sorted((FIXTURES / "ok").iterdir()):
        if path.is_dir():
            yield Fixture(f"ok-{path.name}", "ok", _trap(path.name), False, {"adapter": _read(path)}, _named_base(path))
    for path in sorted((FIXTURES / "sets").iterdir()):
        members = {member.name: _read(member) for member in sorted(path.iterdir()) if member.is_dir()}
        first = next(each for each in sorted(path.iterdir()) if each.is_dir())
        yield Fixture(f"set-{path.name}", "set", "the shipped set", True, members, _named_base(first))


def _trap(name: str) -> str:
    rows = (FIXTURES / "ok" / "README.md").read_text(encoding="utf-8").splitlines()
    row = next(row for row in rows if row.startswith(f"| {name} |"))
    return "a naive linter says: " + row.split(" | ")[2]


def _read(directory: Path) -> dict[str, bytes]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def _named_base(directory: Path) -> dict[str, bytes]:
    config = json.loads((directory / CONFIG).read_bytes())
    named = str(config.get("base_model_name_or_path") or "").rpartition("/")[2]
    bert = "query" in json.dumps(config.get("target_modules"))
    return _read(FIXTURES / "base" / (named or ("seed" if bert else "llama")))


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
