"""What the normal forms share: refusals, what an adapter is made of, layers that add nothing, targets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adapterlint.findings import DropTensor, Edit, MakeTensor, RemoveConfig, SetConfig, Term, ZeroTensor
from adapterlint.fixing import terms
from adapterlint.fixing.values import Stored, Values
from adapterlint.model import features, peft
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.keys import LORA_KINDS, PREFIX, Key, Kind
from adapterlint.model.keytable import ModuleTensors
from adapterlint.model.newer import BASE_CHANGING
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.tensor import FLOAT_DTYPES, Tensor
from adapterlint.model.together import is_base_bias, stores_bias

_SCALES = frozenset({"use_rslora", "rank_pattern", "alpha_pattern"})
_WHY = {
    "use_dora": "is DoRA, whose layers are no plain LoRA",
    "trainable_token_indices": "trains rows of an embedding (trainable_token_indices)",
    "target_parameters": "trains single parameters (target_parameters)",
    "layer_replication": "repeats layers of the base (layer_replication)",
    "alora_invocation_tokens": "is an activated LoRA (alora_invocation_tokens)",
}


class FormError(ValueError):
    """The form would lose meaning, or cannot help; the text names the adapter, the module and the cause."""


@dataclass
class Parts:
    """What an adapter is made of.

    Attributes:
        member: the adapter.
        values: the values of its tensors and of the base's.
        pairs: LoRA pairs by module.
        saved: stored parameters of saved modules, by their names in the base; trained biases too, if asked for.
        idle: tensors that change nothing: copies of the base.
    """

    member: Subject
    values: Values
    pairs: dict[str, ModuleTensors]
    saved: dict[str, Key] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The adapter's name, for refusals."""
        return self.member.adapter.name

    @property
    def dtype(self) -> str:
        """The dtype of its LoRA tensors, else of any."""
        tensors = self.member.adapter.tensors
        keys = (*self.member.adapter.lora_keys, *self.member.adapter.keys)
        return next((tensors[key.name].dtype for key in keys), "F32")

    @property
    def rank(self) -> int:
        """The largest rank of a pair."""
        return max((self.shape(entry.a)[0] for entry in self.pairs.values()), default=0)

    def shape(self, key: Key | None) -> tuple[int, ...]:
        """The shape of a stored tensor."""
        assert key is not None
        return self.member.adapter.shape(key)


def values_of(adapter: Adapter, base: Base | None) -> Values:
    """The values of an adapter's tensors and its base's, by their names in the model and the checkpoint."""
    stored = {name: stored_at(adapter.path, tensor) for name, tensor in adapter.tensors.items()}
    other = {name: stored_at(base.path, tensor) for name, tensor in base.stored.items()} if base else {}
    return Values(stored, other)


def stored_at(directory: str, tensor: Tensor) -> Stored:
    """Where a tensor of a directory lies."""
    return Stored(os.path.join(directory, tensor.file), tensor.offset, tensor.dtype, tensor.shape)


# -- what may take a form ----------------------------------------------------------------------------------------


def require_lora(member: Subject, biases: bool = False) -> None:
    """Raises FormError unless the adapter is LoRA that can be read; ``biases`` allows trained ones that are stored."""
    adapter = member.adapter
    if not adapter.readable:
        raise FormError(f"{adapter.name} cannot be read")
    if not adapter.is_lora:
        raise FormError(f"{adapter.name} is of type {adapter.peft_type}; the form is for LORA")
    mode = adapter.get("bias", "none")
    if mode not in ("none", None) and not (biases and stores_bias(member)):
        raise FormError(f"{adapter.name} trains biases (bias={mode!r}), which go into the shared base")


def take_apart(member: Subject, biases: bool = False) -> Parts:
    """The parts of an adapter that is plain LoRA with saved modules. Raises FormError if it is something else.

    Args:
        member: the adapter.
        biases: whether trained biases are taken, as parameters that are saved whole.
    """
    require_lora(member, biases)
    _require_plain(member)
    parts = Parts(member, values_of(member.adapter, member.base), {})
    for key in member.adapter.keys:
        _sort_in(parts, key, biases)
    for module, entry in parts.pairs.items():
        _require_pair(parts, module, entry)
    return parts


def _require_plain(member: Subject) -> None:
    adapter = member.adapter
    init = adapter.get("init_lora_weights")
    if isinstance(init, str) and init.startswith(BASE_CHANGING):
        raise FormError(f"{adapter.name} takes a part of the base's weights at load (init_lora_weights={init!r})")
    for key in adapter.config or {}:
        if key not in (*_SCALES, "lora_bias") and key in _named_losses(member):
            value = adapter.get(key)
            raise FormError(f"{adapter.name} {_WHY.get(key, f'has {key} = {value!r}, which plain LoRA does not have')}")


def _named_losses(member: Subject) -> set[str]:
    """Config keys that change what the adapter means, beyond those that every LoRA has."""
    config = member.adapter.config or {}
    return {key for key in config if key not in ALWAYS and features.lost(member, key) != "nothing"}


ALWAYS = (
    "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "modules_to_save", "peft_type", "r",
    "revision", "target_modules", "task_type",
)  # fmt: skip
"""The config keys of PEFT 0.4.0, which every later release and every engine knows."""


def _sort_in(parts: Parts, key: Key, biases: bool) -> None:
    """Put one stored tensor where it belongs."""
    member, name = parts.member, parts.name
    tensor = member.adapter.tensors[key.name]
    if tensor.dtype not in FLOAT_DTYPES:
        raise FormError(f"{name} stores {key.name} as {tensor.dtype}, which is not computed with")
    if key.infix == "original_module" or (key.kind in (Kind.BASE_LAYER, Kind.FULL) and _is_idle(parts, key)):
        parts.idle.append(key.name)
    elif key.name != key.canonical:
        raise FormError(f"{name} has {key.name} where PEFT looks for {key.canonical}: fix that first")
    elif key.kind in LORA_KINDS and key.kind is not Kind.MAGNITUDE:
        if key.module not in member.covered:
            raise FormError(f"{name} has tensors for {key.module}, which its config does not select: fix that first")
        if peft.saved_root(member.saved_names, key.module) is not None:
            raise FormError(f"{name} has LoRA in {key.module}, which it also saves whole")
        if key.kind is Kind.LORA_BIAS and member.adapter.get("lora_bias") is not True:
            raise FormError(f"{name} has {key.name} without lora_bias: fix that first")
        parts.pairs[key.module] = member.adapter.modules[key.module]
    elif _is_saved(member, key) or (biases and _is_trained_bias(member, key)):
        parts.saved[key.full_name] = key
    else:
        raise FormError(f"{name} has {key.name}, which is neither plain LoRA nor of a saved module")


def _is_saved(member: Subject, key: Key) -> bool:
    return key.kind is Kind.FULL and peft.saved_root(member.saved_names, key.module) is not None


def _is_trained_bias(member: Subject, key: Key) -> bool:
    """Whether PEFT 0.7 and newer loads a whole tensor as a bias that the config's ``bias`` trained."""
    if not is_base_bias(key) or member.adapter.get("bias") not in ("all", "lora_only"):
        return False
    return (key.kind is Kind.BASE_LAYER) == (key.module in member.covered)


def _is_idle(parts: Parts, key: Key) -> bool:
    """Whether a whole parameter is the base's own."""
    base = parts.member.base
    full = f"{key.module}.{key.parameter}"
    tensor = parameter(base, full) if base else None
    if tensor is None or tensor.shape != parts.shape(key) or tensor.dtype not in FLOAT_DTYPES:
        return False
    return same(parts.values, terms.stored(key.name), terms.in_base(tensor.name))


def parameter(base: Base, name: str) -> Tensor | None:
    """A parameter of the base; of a tied head, the embedding's."""
    if name.endswith(".weight") and base.embedding and is_tied_head(base, name.removesuffix(".weight")):
        return base.parameters.get(f"{base.embedding}.weight")
    return base.under(name.rpartition(".")[0]).get(name)


def is_tied_head(base: Base, module: str) -> bool:
    """Whether a module is the output side of an embedding that the base ties to it."""
    return base.tied and module.rpartition(".")[2] in ("lm_head", "embed_out", "decoder")


def same(values: Values, term: Term, other: Term) -> bool:
    """Whether two tensors of one shape hold the same numbers."""
    return not any(block.any() for block in values.blocks(terms.difference(term, other)))


def _require_pair(parts: Parts, module: str, entry: ModuleTensors) -> None:
    name = parts.name
    if entry.a is None or entry.b is None:
        raise FormError(f"{name} has only one half of the pair of {module}")
    if entry.extra:
        raise FormError(f"{name} has two tensors of one kind for {module}: {entry.extra[0].name}")
    a, b, rank = parts.shape(entry.a), parts.shape(entry.b), peft.rank(parts.member.adapter, module)
    if len(a) < 2 or len(b) < 2 or a[0] != b[1] or a[0] != rank:
        raise FormError(f"{name} has A {list(a)} and B {list(b)} in {module}, and its config says rank {rank}")
    factor(parts.member.adapter, module)


def factor(adapter: Adapter, module: str) -> float:
    """The scale of a module. Raises FormError if it has none."""
    try:
        return peft.scale(adapter, module)
    except (ValueError, OverflowError) as error:
        raise FormError(f"{adapter.name}: {error}") from error


# -- edits -------------------------------------------------------------------------------------------------------


def folded(parts: Parts, rank: int) -> list[Edit]:
    """Pairs with their scale in B, and zeros up to one rank; what is so already stays."""
    edits: list[Edit] = []
    for module, entry in parts.pairs.items():
        scale = factor(parts.member.adapter, module)
        for kind, key in entry.by_kind.items():
            shape, term = parts.shape(key), terms.stored(key.name)
            wanted = shape
            if key is entry.a:
                wanted = (rank, *shape[1:])
            else:
                term = terms.scaled(term, scale)
                wanted = (shape[0], rank, *shape[2:]) if kind is not Kind.LORA_BIAS else shape
            if wanted != shape:
                term = terms.padded(term, wanted)
            if term != terms.stored(key.name):
                dtype = parts.member.adapter.tensors[key.name].dtype
                edits += [DropTensor(key.name), MakeTensor(key.name, dtype, wanted, term)]
    return edits


def zero_pair(name: str, base: Base | None, module: str, rank: int, dtype: str) -> list[ZeroTensor]:
    """A LoRA pair that adds nothing, for a module of the base. Raises FormError if its shape cannot be told."""
    if base is None:
        raise FormError(f"{name} needs a layer that adds nothing in {module}, and for its shape the base: --base")
    weight = base.modules.get(module, {}).get("weight")
    if weight is None or len(weight.shape) != 2 or weight.dtype not in FLOAT_DTYPES:
        raise FormError(f"{name} cannot get a zero layer for {module}: its shape cannot be told")
    rows, columns = weight.shape
    if base.kind(module) == "embedding":
        a, b = Kind.EMBEDDING_A, Kind.EMBEDDING_B
        shapes = (rank, rows), (columns, rank)
        names = f"{PREFIX}{module}.{a.value}", f"{PREFIX}{module}.{b.value}"
    else:
        if base.is_conv1d(module):
            rows, columns = columns, rows
        shapes = (rank, columns), (rows, rank)
        names = f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"
    return [ZeroTensor(name, dtype, shape) for name, shape in zip(names, shapes, strict=True)]


def config_edits(adapter: Adapter, wanted: Mapping[str, Any]) -> list[Edit]:
    """What gives the config these values; a key that is absent and would be null, false or empty stays so.

    A key that PEFT 0.4 did not have is removed instead of switched off: some releases refuse it.
    """
    config = adapter.config or {}
    edits: list[Edit] = []
    for key, value in wanted.items():
        differs = config[key] != value or type(config[key]) is not type(value) if key in config else bool(value)
        if differs:
            off = not value and key not in ALWAYS and key in config
            edits.append(RemoveConfig(f"/{key}") if off else SetConfig(f"/{key}", value))
    return edits


def plain_config(parts: Parts, rank: int, targets: list[str]) -> dict[str, Any]:
    """Config values of LoRA whose scale is 1 everywhere. A task class that looks for heads would find none."""
    adapter = parts.member.adapter
    wanted: dict[str, Any] = {
        "r": rank,
        "lora_alpha": rank,
        "target_modules": targets,
        "modules_to_save": None,
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    if peft.implied_heads(adapter):
        wanted["task_type"] = None
    return wanted


def targets_for(adapter: Adapter, base: Base | None, modules: Iterable[str]) -> list[str]:
    """A list of target_modules that selects these modules and no other: by their last names, as few as will do."""
    wanted = set(modules)
    if base is None:
        return _targets_unseen(adapter, wanted)
    for names in (sorted({_short(module, base, wanted) for module in wanted}), sorted(wanted)):
        config = {"peft_type": "LORA", "target_modules": names}
        probe = replace(adapter, config=config, config_value=config)
        if all(set(peft.selected_modules(probe, base, legacy)) == wanted for legacy in (False, True)):
            return names
    raise FormError(f"{adapter.name}: no list of target_modules selects just {first_names(sorted(wanted))}")


def _short(module: str, base: Base, wanted: set[str]) -> str:
    """The last names of a module, as many as it takes to select only what is wanted."""
    parts = module.split(".")
    for start in reversed(range(len(parts))):
        name = ".".join(parts[start:])
        if all(other in wanted for other in base.modules if other.endswith("." + name)):
            return name
    return module


def _targets_unseen(adapter: Adapter, wanted: set[str]) -> list[str]:
    """Without a base a list stays as it is, if nothing else decides."""
    names = list(adapter.names("target_modules"))
    narrowed = any(adapter.get(key) not in (None, []) for key in ("exclude_modules", "layers_to_transform"))
    covered = all(any(module == name or module.endswith("." + name) for name in names) for module in wanted)
    return names if names and not narrowed and covered else sorted(wanted)
