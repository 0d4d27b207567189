"""The ``union`` normal form: every adapter of a set declares and stores the same saved modules, by leaf names.

Loading, switching and merging are then right on every release measured, in every order. What an adapter lacks is
copied from the base byte for byte, so that its output stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapterlint.findings import CopyTensor, Edit, SetConfig, ZeroTensor
from adapterlint.fixing.forms.common import FormError, require_lora, zero_pair
from adapterlint.model import peft
from adapterlint.model.base import Base
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import SetSubject, Subject, first_names
from adapterlint.model.target import Target
from adapterlint.model.tensor import FLOAT_DTYPES
from adapterlint.model.together import saved_sets, shown
from adapterlint.releases import version_key


def plan(subject: SetSubject, targets: Sequence[Target]) -> list[tuple[Edit, ...]]:
    """The edits of each member, in the set's order.

    Args:
        subject: the set, its members' own names already canonical.
        targets: requested releases; up to 0.10 every adapter also needs the same LoRA layers.

    Raises:
        FormError: the base is missing or lacks a head, a member has another method or biases, shapes differ.
    """
    base = subject.base
    if base is None:
        raise FormError("the base is needed to copy modules from: give it with --base")
    for member in subject.members:
        _require(member)
    _require_a_way(subject, targets)
    leaves = _leaves(subject, base)
    for member in subject.members:
        _require_uncontested(member, leaves)
    layers = _layers(subject) if any(version_key(target.version) < (0, 11) for target in targets) else {}
    return [(*_saved_edits(member, base, leaves), *_layer_edits(member, base, layers)) for member in subject.members]


def _require(member: Subject) -> None:
    require_lora(member)
    if member.adapter.get("trainable_token_indices"):
        raise FormError(f"{member.adapter.name} has trainable_token_indices, which PEFT keeps apart from saved modules")


def _require_a_way(subject: SetSubject, targets: Sequence[Target]) -> None:
    """Raises FormError where all targets are of PEFT 0.13, which loads no second adapter into a task class."""
    first = subject.members[0].adapter
    hopeless = all(version_key("0.13") <= version_key(target.version) < version_key("0.14") for target in targets)
    if targets and hopeless and len(subject.members) > 1 and peft.implied_heads(first):
        raise FormError(
            f"{first.name} has task_type {first.get('task_type')}, and PEFT 0.13 loads no second adapter into "
            f"{peft.model_class(first)}: no file can help there; the lowrank form does without task_type"
        )


def _require_uncontested(member: Subject, leaves: tuple[str, ...]) -> None:
    """A module that an adapter changes by LoRA cannot be saved whole in it as well: its LoRA would be lost."""
    taken = next((leaf for leaf in leaves if leaf in member.covered and leaf not in _own(member)), None)
    if taken is not None:
        raise FormError(f"{member.adapter.name} changes {taken} by LoRA, and another adapter of the set saves it whole")


def _own(member: Subject) -> set[str]:
    """Modules that the member saves already, where LoRA beside it has no effect."""
    return {leaf for leaf in member.covered if peft.saved_root(member.saved_names, leaf) is not None}


def _leaves(subject: SetSubject, base: Base) -> tuple[str, ...]:
    """Modules with parameters of their own below any saved module, by full path, closed under PEFT's suffix match."""
    roots = set(saved_sets(subject, heads_for_all=True).union)
    while True:
        leaves = tuple(module for module in base.modules if _owns(base, module) and _below(module, roots))
        more = set(peft.saved_modules(leaves, base)) - set(leaves) - roots
        if not more:
            break
        roots |= more
    for root in roots:
        if root in base.missing_heads:
            raise FormError(f"the base checkpoint has no {root}: random at every load, it cannot be copied")
    return leaves


def _owns(base: Base, module: str) -> bool:
    return bool(base.modules[module]) or module in base.tied_heads


def _below(module: str, roots: set[str]) -> bool:
    return any(module == root or module.startswith(root + ".") for root in roots)


def _saved_edits(member: Subject, base: Base, leaves: tuple[str, ...]) -> list[Edit]:
    adapter = member.adapter
    edits: list[Edit] = []
    if list(leaves) != (adapter.get("modules_to_save") or []):
        edits.append(SetConfig("/modules_to_save", list(leaves)))
    for leaf in leaves:
        for name, tensor in base.under(leaf).items():
            if name.rpartition(".")[0] != leaf:
                continue
            stored = adapter.saved.get(name)
            if stored is None:
                if tensor.dtype not in FLOAT_DTYPES:
                    raise FormError(f"{name} is quantised in the base ({tensor.dtype}) and cannot be copied")
                edits.append(CopyTensor(PREFIX + name, tensor.name))
            elif adapter.shape(stored) != tensor.shape:
                raise FormError(
                    f"{adapter.name} stores {name} as {list(adapter.shape(stored))}, the base has {list(tensor.shape)}"
                )
    return edits


def _layers(subject: SetSubject) -> dict[str, bool]:
    """Modules with LoRA layers in any member, in the first one's order; empty when all members agree."""
    modules = [tuple(member.covered) for member in subject.members]
    if len({frozenset(each) for each in modules}) == 1:
        return {}
    return {module: True for each in modules for module in each}


def _layer_edits(member: Subject, base: Base, layers: dict[str, bool]) -> list[Edit]:
    """Zero LoRA where other members have layers, so that PEFT up to 0.10 switches every layer to this adapter."""
    missing = [module for module in layers if module not in member.covered]
    if not missing:
        return []
    adapter = member.adapter
    if adapter.get("use_dora") is True:
        raise FormError(f"{adapter.name} is DoRA: it cannot get zero layers for {first_names(missing)}")
    dtype = next((adapter.tensors[key.name].dtype for key in adapter.lora_keys), "F32")
    edits: list[Edit] = [SetConfig("/target_modules", sorted({*member.covered, *layers}))]
    for field in ("exclude_modules", "layers_to_transform", "layers_pattern"):
        if adapter.get(field):
            edits.append(SetConfig(f"/{field}", None))
    for module in missing:
        edits += _zero_layer(member, base, module, dtype)
    return edits


def _zero_layer(member: Subject, base: Base, module: str, dtype: str) -> list[Edit]:
    rank = peft.rank(member.adapter, module)
    if not isinstance(rank, int) or rank < 1:
        raise FormError(f"{member.adapter.name} has no usable rank for {module}: {shown(rank)}")
    pair = zero_pair(member.adapter.name, base, module, rank, dtype)
    edits: list[Edit] = [*pair]
    if member.adapter.get("lora_bias") is True:
        edits.append(ZeroTensor(f"{PREFIX}{module}.lora_B.bias", dtype, pair[1].shape[:1]))
    return edits
