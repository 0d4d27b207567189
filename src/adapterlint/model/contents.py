"""What an adapter holds, counted and folded: the answer of ``show``. Nothing here judges."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from adapterlint.model import peft, schema
from adapterlint.model.adapter import Adapter
from adapterlint.model.keys import Kind
from adapterlint.model.keytable import ModuleTensors
from adapterlint.model.target import bundled

# Digits that Python turns into a number without asking how many there are.
_NUMBER = re.compile(r"(?<![^.])([0-9]{1,9})(?![^.])")

# What every config has, or what says nothing of how the adapter is built.
_PLAIN_KEYS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "lora_alpha",
        "lora_dropout",
        "peft_type",
        "peft_version",
        "r",
        "revision",
        "target_modules",
        "task_type",
    }
)
_CONFIG_FEATURES = {
    "alpha_pattern": "alpha pattern",
    "bias": "bias",
    "exclude_modules": "excluded modules",
    "fan_in_fan_out": "fan in, fan out",
    "layer_replication": "layer replication",
    "layers_to_transform": "selected layers",
    "lora_bias": "LoRA bias",
    "modules_to_save": "saved modules",
    "rank_pattern": "rank pattern",
    "target_parameters": "target parameters",
    "trainable_token_indices": "token rows",
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_rslora": "rsLoRA",
}
_STORED_FEATURES = {
    Kind.MAGNITUDE: "DoRA",
    Kind.LORA_BIAS: "LoRA bias",
    Kind.TOKENS: "token rows",
    Kind.EMBEDDING_A: "embedding LoRA",
    Kind.BASE_LAYER: "base layer copies",
}


class Group(NamedTuple):
    """Modules whose paths differ in numbers only, of one rank and scale.

    Attributes:
        pattern: the path, numbers folded: ``model.layers.{0-31}.self_attn.q_proj``.
        leaf: last component of the path.
        modules: number of modules.
        rank: rank that the stored shapes show; None where they show none.
        scale: factor of ``B @ A`` by the config; None where it cannot be told.
    """

    pattern: str
    leaf: str
    modules: int
    rank: int | None
    scale: float | None


class Volume(NamedTuple):
    """Stored tensors of one dtype, and the size of their data in bytes."""

    dtype: str
    tensors: int
    nbytes: int


class Readers(NamedTuple):
    """Which releases know the config.

    Attributes:
        first: the first bundled release that has the method and knows every key; None if there is none.
        unknown: the keys that no bundled release knows for this method.
    """

    first: str | None
    unknown: tuple[str, ...]


class Contents(NamedTuple):
    """What an adapter holds.

    Attributes:
        path: the directory, as given.
        peft_type: as declared.
        task_type: as declared.
        base: ``base_model_name_or_path``, as declared.
        weights_file: the file that PEFT reads, or None.
        file_bytes: its size.
        payload_bytes: size of the tensor data in it.
        tensors: number of stored tensors.
        dtypes: tensors by dtype, most bytes first.
        groups: modules with adapter tensors.
        saved: parameters stored whole (``modules_to_save``, heads, biases), by module.
        features: what the config switches on, and what the tensors show of it.
        settings: the values of those config keys.
        readers: which releases know the config; None without a readable one of a known method.
        problems: what could not be read, or is odd about the files.
        others: weights files that PEFT does not read, with their number of tensors.
    """

    path: str
    peft_type: str | None
    task_type: str | None
    base: str | None
    weights_file: str | None
    file_bytes: int
    payload_bytes: int
    tensors: int
    dtypes: tuple[Volume, ...]
    groups: tuple[Group, ...]
    saved: Mapping[str, int]
    features: tuple[str, ...]
    settings: Mapping[str, Any]
    readers: Readers | None
    problems: tuple[str, ...]
    others: Mapping[str, int]

    @property
    def modules(self) -> int:
        """Number of modules with adapter tensors."""
        return sum(group.modules for group in self.groups)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Last components of their paths, each once."""
        return tuple(sorted({group.leaf for group in self.groups}))


def contents(adapter: Adapter) -> Contents:
    """What the adapter holds, as far as it can be read. Never raises on bad content."""
    settings = dict(_settings(adapter))
    return Contents(
        path=adapter.path,
        peft_type=adapter.peft_type,
        task_type=_text(adapter.get("task_type")),
        base=_text(adapter.get("base_model_name_or_path")),
        weights_file=adapter.weights_file,
        file_bytes=adapter.files.get(adapter.weights_file or "", 0),
        payload_bytes=sum(tensor.nbytes for tensor in adapter.tensors.values()),
        tensors=len(adapter.tensors),
        dtypes=_volumes(adapter),
        groups=tuple(_groups(adapter)),
        saved=_saved(adapter),
        features=tuple(_features(adapter, settings)),
        settings=settings,
        readers=_readers(adapter),
        problems=tuple(_problems(adapter)),
        others={name: len(tensors) for name, tensors in adapter.other_tensors.items()},
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _problems(adapter: Adapter) -> Iterator[str]:
    if not adapter.has_config:
        yield "there is no adapter_config.json"
    elif adapter.config is None and not adapter.config_problems:
        yield "adapter_config.json is not an object"
    if adapter.weights_file is None:
        yield "there are no weights that PEFT reads"
    for problem in (*adapter.config_problems, *adapter.weights_problems):
        yield problem.message


def _volumes(adapter: Adapter) -> tuple[Volume, ...]:
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for tensor in adapter.tensors.values():
        count[tensor.dtype] += 1
        size[tensor.dtype] += tensor.nbytes
    return tuple(
        Volume(dtype, count[dtype], size[dtype]) for dtype in sorted(count, key=lambda dtype: (-size[dtype], dtype))
    )


def _saved(adapter: Adapter) -> dict[str, int]:
    found = Counter(key.module or key.parameter for key in adapter.full_keys)
    return dict(sorted(found.items()))


# -- modules -----------------------------------------------------------------------------------------------------


def _groups(adapter: Adapter) -> Iterator[Group]:
    """Modules with LoRA tensors, or with those of another method, folded."""
    found: dict[tuple[tuple[str, ...], int | None, float | None], list[tuple[str, ...]]] = {}
    for module, entry in adapter.modules.items():
        words, numbers = _apart(module)
        found.setdefault((words, _rank(adapter, entry), _scale(adapter, module)), []).append(numbers)
    others = {key.module: None for key in adapter.keys if key.kind is Kind.METHOD and key.module not in adapter.modules}
    for module in others:
        words, numbers = _apart(module)
        found.setdefault((words, None, None), []).append(numbers)
    for (words, rank, scale), members in found.items():
        pattern = _folded(words, members)
        yield Group(pattern, pattern.rpartition(".")[2], len(members), rank, scale)


def _apart(module: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands between the numbers of a path, and the numbers."""
    parts = _NUMBER.split(module)
    return tuple(parts[::2]), tuple(parts[1::2])


def _rank(adapter: Adapter, entry: ModuleTensors) -> int | None:
    for key, axis in ((entry.a, 0), (entry.b, 1)):
        if key is not None and len(adapter.shape(key)) > axis:
            return adapter.shape(key)[axis]
    return None


def _scale(adapter: Adapter, module: str) -> float | None:
    if not adapter.is_lora:
        return None
    try:
        factor = peft.scale(adapter, module)
    except (ValueError, OverflowError):
        return None
    return factor if isfinite(factor) else None


def _folded(words: Sequence[str], members: Sequence[Sequence[str]]) -> str:
    """One pattern for paths that differ in their numbers only."""
    text = words[0]
    for position, word in enumerate(words[1:]):
        text += fold_numbers(int(numbers[position]) for numbers in members) + word
    return text


def fold_numbers(numbers: Iterable[int]) -> str:
    """Numbers as ranges in braces, ``{0-3,7}``; a single one stands alone."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
    return text if text.isdigit() else f"{{{text}}}"


# -- config ------------------------------------------------------------------------------------------------------


def _settings(adapter: Adapter) -> Iterator[tuple[str, Any]]:
    """Config keys whose value is not what PEFT takes for granted, in the file's order."""
    kind = schema.config_type(adapter.peft_type)
    for key, value in (adapter.config or {}).items():
        if key in _PLAIN_KEYS:
            continue
        known = kind.fields.get(key) if kind else None
        default = schema.default_in(known, None) if known else None
        if not schema.same_value(value, default):
            yield key, value


def _features(adapter: Adapter, settings: Mapping[str, Any]) -> Iterator[str]:
    stored = {key.kind for key in adapter.keys}
    names = [_CONFIG_FEATURES[key] for key in settings if key in _CONFIG_FEATURES]
    names += [name for kind, name in _STORED_FEATURES.items() if kind in stored]
    yield from dict.fromkeys(names)


def _readers(adapter: Adapter) -> Readers | None:
    kind = schema.config_type(adapter.peft_type)
    if kind is None or adapter.config is None:
        return None
    unknown = [schema.unknown_spans(kind, key) for key in adapter.config]
    ranges = [schema.span_text(span) for spans in unknown for span in spans]
    own = schema.span_text((kind.since, kind.before))
    first = next(
        (target.version for target in bundled() if target.within(own) and not any(map(target.within, ranges))),
        None,
    )
    whole = [(kind.since, kind.before)]
    never = tuple(key for key, spans in zip(adapter.config, unknown, strict=True) if spans == whole)
    return Readers(first, never)
