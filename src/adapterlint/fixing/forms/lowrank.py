"""The ``lowrank`` normal form: saved linear modules as LoRA, and every adapter of a set with the same layers.

The difference of a saved weight to the base's is factored exactly, that of a bias (saved, or trained by the config's
``bias``) goes to ``lora_B.bias``. All adapters get one rank, the scale 1, the same targets and no saved modules: that
also cures hot-swapping, mixed batches, transformers' own loading and, where no bias changed, weighted merging.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from adapterlint.findings import DropTensor, Edit, MakeTensor, Term, ZeroTensor
from adapterlint.fixing import terms
from adapterlint.fixing.forms.common import (
    FormError,
    Parts,
    config_edits,
    folded,
    is_tied_head,
    parameter,
    plain_config,
    take_apart,
    targets_for,
    zero_pair,
)
from adapterlint.fixing.forms.factors import Product, product
from adapterlint.model.base import Base
from adapterlint.model.keys import PREFIX, Kind
from adapterlint.model.subject import SetSubject
from adapterlint.model.target import Target
from adapterlint.model.tensor import FLOAT_DTYPES, Tensor
from adapterlint.releases import version_key

_BIAS_SINCE = "0.14"


@dataclass
class _Heads:
    """What an adapter changes in saved modules.

    Attributes:
        weights: by module: the difference to the base's, and its dtype.
        biases: the same of biases, of modules with LoRA too.
    """

    weights: dict[str, tuple[Term, str]] = field(default_factory=dict)
    biases: dict[str, tuple[Term, str]] = field(default_factory=dict)


def plan(subject: SetSubject, targets: Sequence[Target]) -> list[tuple[Edit, ...]]:
    """The edits of each member, in the set's order.

    Args:
        subject: the set (or one adapter), its members' own names already canonical.
        targets: requested releases; a changed bias needs 0.14 or newer.

    Raises:
        FormError: a member is no plain LoRA, or saves something other than linear modules that the base has.
    """
    members = [take_apart(member, biases=True) for member in subject.members]
    heads = [_heads(parts, subject.base) for parts in members]
    modules = _modules(members, heads)
    biased = _biased(members, heads, modules, targets)
    rank = max((parts.rank for parts in members), default=0)
    products: list[dict[str, Product]] = []
    for parts, own in zip(members, heads, strict=True):
        enough = max([rank, *(made.rank for each in products for made in each.values())])
        products.append(
            {module: product(term, parts.values, dtype, enough) for module, (term, dtype) in own.weights.items()}
        )
    rank = max([rank, 1, *(made.rank for each in products for made in each.values())])
    names = targets_for(members[0].member.adapter, subject.base, modules)
    alike = len({parts.member.adapter.get("lora_dropout", 0.0) for parts in members}) == 1
    edits = []
    for parts, own, made in zip(members, heads, products, strict=True):
        wanted = {**plain_config(parts, rank, names), "bias": "none", "lora_bias": biased}
        if not alike:  # hot-swapping compares it
            wanted["lora_dropout"] = 0.0
        edits.append((
            *config_edits(parts.member.adapter, wanted),
            *(DropTensor(name) for name in (*parts.idle, *(key.name for key in parts.saved.values()))),
            *folded(parts, rank),
            *_layers(parts, own, made, rank, modules),
            *(_biases(parts, own, modules) if biased else ()),
        ))  # fmt: skip
    return edits


def _heads(parts: Parts, base: Base | None) -> _Heads:
    """What one adapter changes in whole parameters; the tensors that equal the base's are idle already."""
    found = _Heads()
    for name, key in parts.saved.items():
        module, _, last = name.rpartition(".")
        if base is None:
            raise FormError(f"{parts.name} stores {name}, and the base is needed to compare it with: --base")
        tensor = _comparable(parts, base, name)
        delta = terms.difference(terms.stored(key.name), terms.in_base(tensor.name))
        dtype = parts.member.adapter.tensors[key.name].dtype
        (found.weights if last == "weight" else found.biases)[module] = (delta, dtype)
    return found


def _comparable(parts: Parts, base: Base, name: str) -> Tensor:
    """The base's parameter of that name, if the change of it can be LoRA."""
    module, _, last = name.rpartition(".")
    if module in base.missing_heads:
        raise FormError(f"the base checkpoint has no {module}: it is random at every load, and no LoRA can say so")
    tensor = parameter(base, name)
    if tensor is None:
        raise FormError(f"{parts.name} stores {name}, which the base does not have")
    shape = parts.shape(parts.saved[name])
    if tensor.shape != shape:
        raise FormError(f"{parts.name} stores {name} as {list(shape)}, the base has {list(tensor.shape)}")
    if tensor.dtype not in FLOAT_DTYPES:
        raise FormError(f"{name} is quantised in the base ({tensor.dtype})")
    kind = base.kind(module)
    if last == "weight" and (is_tied_head(base, module) or (base.tied and module == base.embedding)):
        raise FormError(
            f"{parts.name} changes {name}, and the base's embedding and head are one tensor: "
            "LoRA on it could not be merged without changing both"
        )
    if kind == "embedding":
        raise FormError(f"{parts.name} changes the embedding {module}, whose LoRA could not be hot-swapped")
    if kind != "linear" or base.is_conv1d(module) or last not in ("weight", "bias"):
        raise FormError(f"{parts.name} changes {name}, and {module} is no linear module, which LoRA could stand for")
    return tensor


def _modules(members: Sequence[Parts], heads: Sequence[_Heads]) -> list[str]:
    """Modules that get a layer in every adapter."""
    found: dict[str, None] = {}
    for parts in members:
        found.update(dict.fromkeys(parts.pairs))
    for own in heads:
        found.update(dict.fromkeys((*own.weights, *own.biases)))
    for parts, own in zip(members, heads, strict=True):
        for module in own.biases:
            if module in parts.pairs and Kind.LORA_BIAS in parts.pairs[module].by_kind:
                raise FormError(f"{parts.name} changes the bias of {module} and has one of B there")
    return list(found)


def _biased(
    members: Sequence[Parts], heads: Sequence[_Heads], modules: Iterable[str], targets: Sequence[Target]
) -> bool:
    """Whether the layers need biases of B. Raises FormError if they do and cannot have them."""
    why = next(
        (f"{parts.name} changes the bias of {next(iter(own.biases))}"
         for parts, own in zip(members, heads, strict=True) if own.biases),
        None,
    )  # fmt: skip
    has = next((parts.name for parts in members if _own_biases(parts)), None)
    if why is None and has is not None:
        why = f"{has} has biases of B"
    if why is None:
        return False
    for target in targets:
        if version_key(target.version) < version_key(_BIAS_SINCE):
            raise FormError(f"{why}: that needs lora_bias, which {target} does not have (PEFT {_BIAS_SINCE} has)")
    base = members[0].member.base
    for module in modules:
        kind = base.kind(module) if base else "linear"
        if kind != "linear":
            raise FormError(f"{why}: that needs lora_bias, which the {kind} module {module} cannot have")
        if base and parameter(base, f"{module}.bias") is None:
            raise FormError(f"{why}: that needs lora_bias, and {module} has no bias in the base to merge it into")
    return True


def _own_biases(parts: Parts) -> bool:
    return any(Kind.LORA_BIAS in entry.by_kind for entry in parts.pairs.values())


def _layers(
    parts: Parts, own: _Heads, made: dict[str, Product], rank: int, modules: Iterable[str]
) -> list[MakeTensor | ZeroTensor]:
    """Pairs for the modules that this adapter has none for."""
    edits: list[MakeTensor | ZeroTensor] = []
    for module in modules:
        if module in parts.pairs:
            continue
        if module not in made:
            edits += zero_pair(parts.name, parts.member.base, module, rank, parts.dtype)
            continue
        delta, dtype = own.weights[module]
        rows, columns = parts.values.shape(delta)
        for letter, term, shape in (("A", made[module].a, (rank, columns)), ("B", made[module].b, (rows, rank))):
            if parts.values.shape(term) != shape:
                term = terms.padded(term, shape)
            edits.append(MakeTensor(f"{PREFIX}{module}.lora_{letter}.weight", dtype, shape, term))
    return edits


def _biases(parts: Parts, own: _Heads, modules: Iterable[str]) -> list[MakeTensor | ZeroTensor]:
    """Biases of B for the modules that have none: the change of the module's bias, or zero."""
    edits: list[MakeTensor | ZeroTensor] = []
    for module in modules:
        entry = parts.pairs.get(module)
        if entry is not None and Kind.LORA_BIAS in entry.by_kind:
            continue
        name = f"{PREFIX}{module}.lora_B.bias"
        if module in own.biases:
            delta, dtype = own.biases[module]
            edits.append(MakeTensor(name, dtype, parts.values.shape(delta), delta))
        else:
            edits.append(ZeroTensor(name, parts.dtype, (_outputs(parts, module),)))
    return edits


def _outputs(parts: Parts, module: str) -> int:
    entry = parts.pairs.get(module)
    if entry is not None:
        return parts.shape(entry.b)[0]
    assert parts.member.base is not None  # zero_pair had it
    return zero_pair(parts.name, parts.member.base, module, 1, parts.dtype)[1].shape[0]
