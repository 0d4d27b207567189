"""One adapter directory, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Any

from adapterlint.findings import CONFIG_FILE, PICKLE_FILE, SAFETENSORS_FILE
from adapterlint.model.keys import Key, Kind
from adapterlint.model.keytable import KeyTable, ModuleTensors, key_table
from adapterlint.model.tensor import Tensor, TensorTable

if TYPE_CHECKING:
    from adapterlint.reading.problems import Problem

_TARGETING = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


@dataclass(frozen=True, eq=False, repr=False)
class Adapter:
    """One directory: its files, its config, the headers of its weights.

    Attributes:
        path: the directory, as given.
        name: the directory's own name; in a set the adapter's name.
        files: every file in the directory, name -> bytes.
        config: the parsed adapter_config.json, or None when it is absent, broken or not an object.
        config_problems: what its reader found.
        weights_file: the file that PEFT reads (safetensors before ``.bin``), or None.
        tensors: stored tensors by name, last duplicate wins.
        weights_problems: what the weights' reader found.
        metadata: safetensors metadata.
        nested_under: for a ``.bin``: the key under which the tensors hide.
        nested: for a ``.bin``: those tensors.
        explicit: the path was given, not found by recursion.
        other_tensors: headers of weights files that PEFT does not read, file -> tensors.
        config_value: whatever JSON value the config file holds.
        keep: components of tensor names that look like wrappers but that the base itself owns.
    """

    path: str
    name: str
    files: Mapping[str, int]
    config: Mapping[str, Any] | None = None
    config_problems: tuple[Problem, ...] = ()
    weights_file: str | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    weights_problems: tuple[Problem, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    nested_under: str | None = None
    nested: Mapping[str, Tensor] = field(default_factory=dict)
    explicit: bool = True
    other_tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    config_value: Any = None
    keep: frozenset[str] = frozenset()

    def __getstate__(self) -> dict[str, Any]:
        """What was given, without what was worked out from it."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @property
    def has_config(self) -> bool:
        """Whether an adapter_config.json is there, readable or not."""
        return CONFIG_FILE in self.files

    @cached_property
    def peft_type(self) -> str | None:
        """The declared method, as written; None when missing or not a text."""
        value = (self.config or {}).get("peft_type")
        return value if isinstance(value, str) else None

    @property
    def is_lora(self) -> bool:
        """Whether plain LoRA semantics apply."""
        return self.peft_type == "LORA"

    @cached_property
    def readable(self) -> bool:
        """Whether config and weights both load, so that names and shapes can be reasoned about."""
        return (
            self.config is not None
            and self.weights_file is not None
            and not any(problem.fatal for problem in self.config_problems + self.weights_problems)
        )

    @cached_property
    def is_pickle(self) -> bool:
        """Whether PEFT would read ``adapter_model.bin``."""
        return self.weights_file == PICKLE_FILE

    @cached_property
    def candidates(self) -> tuple[str, ...]:
        """The weights names of PEFT that exist here, in PEFT's order."""
        return tuple(name for name in (SAFETENSORS_FILE, PICKLE_FILE) if name in self.files)

    @cached_property
    def table(self) -> KeyTable:
        """The stored tensor names, taken apart and indexed."""
        tensors = self.tensors
        if not isinstance(tensors, TensorTable):
            return key_table(tuple(tensors), self.keep)
        table = key_table(tensors.names, self.keep)
        tensors.names = table.names  # one tuple for all adapters with these names
        return table

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every stored tensor name, taken apart, in file order."""
        return self.table.keys

    @property
    def unusual(self) -> tuple[Key, ...]:
        """The keys other than LoRA matrices under the very names that PEFT gives them."""
        return self.table.unusual

    @property
    def lora_keys(self) -> tuple[Key, ...]:
        """The keys that hold LoRA tensors."""
        return self.table.lora_keys

    @property
    def full_keys(self) -> tuple[Key, ...]:
        """The keys that hold whole parameters of the base: saved modules and undeclared ones."""
        return self.of_kind(Kind.FULL)

    @property
    def modules(self) -> dict[str, ModuleTensors]:
        """LoRA tensors by module path, however their names are spelt."""
        return self.table.modules

    @property
    def saved(self) -> dict[str, Key]:
        """Full tensors by parameter name in the base; copies under ``original_module`` are left out."""
        return self.table.saved

    def of_kind(self, kind: Kind) -> tuple[Key, ...]:
        """The keys of one kind, in file order."""
        return self.table.by_kind.get(kind, ())

    @property
    def _columns(self) -> tuple[Sequence[str], Sequence[tuple[int, ...]]]:
        """The dtypes and the shapes of the tensors, in file order."""
        if isinstance(self.tensors, TensorTable):
            return self.tensors.dtypes, self.tensors.shapes
        tensors = self.tensors.values()
        return [tensor.dtype for tensor in tensors], [tensor.shape for tensor in tensors]

    @cached_property
    def dtypes(self) -> frozenset[str]:
        """The dtypes that occur."""
        return frozenset(self._columns[0])

    @cached_property
    def shapes(self) -> frozenset[tuple[int, ...]]:
        """The shapes that occur."""
        return frozenset(self._columns[1])

    @cached_property
    def ranks(self) -> frozenset[int | None]:
        """The ranks that LoRA matrices are stored with; None stands for what is no matrix."""
        shapes = self._columns[1]
        return frozenset(
            stored_rank(kind, shape) for kind, mask in self.table.masks.items() for shape in set(compress(shapes, mask))
        )

    @cached_property
    def targeting(self) -> str:
        """The config's fields about where layers go, as one text: adapters with the same text are targeted alike."""
        return repr([self.get(field) for field in _TARGETING])

    def shape(self, key: Key) -> tuple[int, ...]:
        """The stored shape of a key."""
        return self.tensors[key.name].shape

    def get(self, name: str, default: Any = None) -> Any:
        """A config value, or the default when it is absent or the config unreadable."""
        return self.config.get(name, default) if self.config else default

    def names(self, field_name: str) -> tuple[str, ...]:
        """A config list of names, without what is not a text; empty for null, a text or another type."""
        value = self.get(field_name)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def stored_rank(kind: Kind, shape: tuple[int, ...]) -> int | None:
    """The rank that a LoRA tensor's shape shows; None where shapes do not tell (vectors, biases)."""
    if len(shape) < 2:
        return None
    if kind in (Kind.LORA_A, Kind.EMBEDDING_A):
        return shape[0]
    if kind in (Kind.LORA_B, Kind.EMBEDDING_B):
        return shape[1]
    return None
