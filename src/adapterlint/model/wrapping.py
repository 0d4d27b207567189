"""Names that PEFT finds inside its own wrappers, because it matches them anew with every adapter that it loads.

Sources: ``_set_trainable`` in PEFT's ``utils/other.py`` and ``inject_adapter`` in ``tuners/tuners_utils.py``. Both walk
through all module paths of the model, those of earlier adapters' layers and copies included: LoRA's parts are called
``<module>.lora_A.<adapter>``, copies of saved modules ``<module>.modules_to_save.<adapter>.<part>``. Measured on 0.4.0
to 0.21.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from adapterlint.model import peft, together
from adapterlint.model.base import Base
from adapterlint.model.subject import SetSubject, Subject


def nested(names: Iterable[str], modules: Iterable[str]) -> tuple[str, str] | None:
    """The first module that names select inside another one that they select, and that other one."""
    wanted = tuple(names)
    for module in modules:
        if peft.saves(wanted, module):
            root = peft.saved_root(wanted, module)
            if root is not None and root != module:
                return module, root
    return None


def paths(of: Subject | SetSubject) -> list[str]:
    """Module paths that names may select: the base's, or else those of the stored full tensors and all above them."""
    if of.base is not None:
        return list(of.base.modules)
    if isinstance(of, SetSubject):
        stored: Iterable[str] = of.stored_modules
    else:
        stored = (key.module for key in of.adapter.saved.values())
    found: dict[str, None] = {}
    for module in stored:
        parts = module.split(".")
        found.update(dict.fromkeys(".".join(parts[: end + 1]) for end in range(len(parts))))
    return list(found)


class Clash(NamedTuple):
    """An adapter whose name another one's config takes for a module.

    Attributes:
        owner: the adapter that is called so.
        reader: the adapter whose names match it, loaded at the same time or later.
        module: a module of the owner.
        name: the name that matches, where it is one of modules_to_save.
    """

    owner: Subject
    reader: Subject
    module: str
    name: str = ""


def taken_for_target(subject: SetSubject, legacy: bool = False) -> Clash | None:
    """A later adapter's targets match the layers of an earlier one, called like a target."""
    for owner, reader in _pairs(subject):
        name = owner.adapter.name
        targets = reader.adapter.names("target_modules")
        if targets and not any(_may_match(target, name, legacy) for target in targets):
            continue
        selection = peft.Selection(reader.adapter, reader.base, legacy) if legacy else reader.selection
        if not selection.known:
            continue
        module = next((module for module in owner.layers if selection(f"{module}.lora_A.{name}")), None)
        if module is not None:
            return Clash(owner, reader, module)
    return None


def _may_match(target: str, name: str, legacy: bool) -> bool:
    return (
        target == name or target.endswith("." + name) or (legacy and (name.endswith(target) or target.endswith(name)))
    )


def _pairs(subject: SetSubject) -> Iterator[tuple[Subject, Subject]]:
    """Every adapter with the last later one of each kind of target fields."""
    kinds: dict[str, int] = {}
    for number, member in enumerate(subject.members):
        kinds[member.adapter.targeting] = number
    for last in kinds.values():
        for owner in subject.members[:last]:
            yield owner, subject.members[last]


def copy_taken_for_target(subject: SetSubject) -> Clash | None:
    """A later adapter's targets match a copy that LoRA cannot change: a saved norm, or a container."""
    saved = together.saved_sets(subject, heads_for_all=True).saved
    refused = {
        id(member): [module for module in modules if together.saved_kind(subject, module) in ("norm", "container")]
        for member, modules in zip(subject.members, saved, strict=True)
    }
    for owner, reader in _pairs(subject):
        for module in refused[id(owner)]:
            path = f"{module}.modules_to_save.{owner.adapter.name}"
            if reader.selection.known and reader.selection(path) and not _left_alone(reader, path):
                return Clash(owner, reader, module)
    return None


def _left_alone(reader: Subject, path: str) -> bool:
    """Whether the path holds the name of a module that the reader saves: PEFT 0.16 and later leave such modules out."""
    return any(f".{name}." in f".{path}." for name in reader.saved_names)


def taken_for_saved(subject: SetSubject, collected: bool) -> Clash | None:
    """An adapter's layers end with a name of modules_to_save.

    Args:
        subject: the set.
        collected: as up to 0.14, where the names of earlier adapters count for every later one that has any; and token
            rows are no saved modules yet.
    """
    heads = peft.implied_heads(subject.members[0].adapter)
    owns = [_saved_names(member, heads, rows=not collected) for member in subject.members]
    for name in dict.fromkeys(name for own in owns for name in own):
        ending = (i for i, m in enumerate(subject.members) if m.adapter.name.endswith(name) and m.layers)
        number = next(ending, None)
        if number is None:
            continue
        since = next(i for i, own in enumerate(owns) if name in own)
        readers = (
            index
            for index, own in enumerate(owns)
            if index >= number and own and (name in own or (collected and index >= since))
        )
        reader = next(readers, None)
        if reader is not None:
            owner = subject.members[number]
            return Clash(owner, subject.members[reader], min(owner.layers), name)
    return None


def _saved_names(member: Subject, heads: tuple[str, ...], rows: bool) -> tuple[str, ...]:
    indices = member.adapter.get("trainable_token_indices") if rows else None
    named = tuple(indices) if isinstance(indices, dict) else ()
    return (*member.adapter.names("modules_to_save"), *heads, *named)


class Entangled(NamedTuple):
    """A saved module that lies inside one of another adapter, or around one.

    Attributes:
        member: the adapter that is loaded later.
        module: its module.
        other: the module of the earlier adapter.
        outcome: ``lost``: its tensors are dropped; ``inside`` and ``around``: PEFT looks for a tensor that is nowhere;
            ``kept``: they are read, since the adapter saves the other module too.
        tensor: that tensor.
    """

    member: Subject
    module: str
    other: str
    outcome: Literal["lost", "kept", "inside", "around"]
    tensor: str = ""


def entangled(subject: SetSubject) -> Iterator[Entangled]:
    """Saved modules of later adapters against those of earlier ones, as PEFT 0.15 and later match them."""
    heads = peft.implied_heads(subject.members[0].adapter)
    wrapped: dict[str, str] = {}
    known: dict[tuple[str, ...], list[str]] = {}
    everything = paths(subject)
    for member in subject.members:
        names = tuple(dict.fromkeys((*member.declared_names, *heads)))
        if not names:
            continue
        modules = known.get(names)
        if modules is None:
            modules = known[names] = [module for module in everything if peft.saves(names, module)]
        for module in modules:
            around = next((other for other in wrapped if other.startswith(module + ".")), None)
            if around is not None and module not in wrapped:
                yield Entangled(member, module, around, "around", f"{around}.original_module.weight")
            other = next((root for root in wrapped if module.startswith(root + ".")), None)
            if other is not None:
                yield _inside(member, names, module, other, wrapped[other])
        for module in modules:
            if peft.saved_root(names, module) == module and not any(module.startswith(root + ".") for root in wrapped):
                wrapped.setdefault(module, member.adapter.name)


def _inside(member: Subject, names: tuple[str, ...], module: str, other: str, owner: str) -> Entangled:
    part = module[len(other) + 1 :]
    for copy in (f"{other}.original_module.{part}", f"{other}.modules_to_save.{owner}.{part}"):
        if peft.saves(names, copy):
            return Entangled(member, module, other, "inside", f"{copy}.weight")
    return Entangled(member, module, other, "kept" if peft.saves(names, other) else "lost")


class Contested(NamedTuple):
    """A module that one adapter saves (or that lies inside one) and another changes by LoRA.

    Attributes:
        later: the adapter that is loaded second.
        module: the module with LoRA.
        root: the saved module.
        outcome: ``wrapper``: LoRA is to go on a wrapper; ``copies``: into the copies inside one; ``layer``: a layer is
            to be wrapped; ``block``: a block with a layer in it; ``own``: LoRA is to go into a block that the adapter
            saves itself; ``own-copies``: the same, where an earlier adapter saves it too.
    """

    later: Subject
    module: str
    root: str
    outcome: Literal["wrapper", "copies", "layer", "block", "own", "own-copies"]


def contested(subject: SetSubject, legacy: bool = False) -> Iterator[Contested]:
    """Modules that an adapter saves and another changes by LoRA, in the set's order.

    Args:
        subject: the set.
        legacy: as PEFT up to 0.5, where an adapter's targets may be modules that it saves itself.
    """
    saved: set[str] = set()
    changed: set[str] = set()
    seen: set[tuple[frozenset[str], str]] = set()
    known: set[tuple[frozenset[str], frozenset[str]]] = set()
    for member, own in zip(subject.members, together.saved_sets(subject, heads_for_all=True).saved, strict=True):
        kind = own, member.adapter.targeting
        targets = _targets(subject, member, own, legacy)
        if kind not in seen:  # a second one of its kind meets what the first one has met
            yield from _meets(member, targets, own, saved, changed)
            yield from _meets_itself(member, own, saved)
        seen.add(kind)
        if (own, targets) not in known:
            known.add((own, targets))
            saved |= own
            changed |= targets


def _targets(subject: SetSubject, member: Subject, own: frozenset[str], legacy: bool) -> frozenset[str]:
    if legacy and subject.base is not None:
        return _early_targets(subject.base, peft.Selection(member.adapter, subject.base, legacy=True))
    return _outside(member.layers, own) if own else member.layers


@lru_cache(maxsize=64)
def _early_targets(base: Base, selection: peft.Selection) -> frozenset[str]:
    return frozenset(module for module in base.modules if selection.known and selection(module))


@lru_cache(maxsize=64)
def _outside(layers: frozenset[str], own: frozenset[str]) -> frozenset[str]:
    return frozenset(module for module in layers if not any(module.startswith(f"{root}.") for root in own)) - own


def _meets(
    member: Subject, targets: frozenset[str], own: Iterable[str], saved: set[str], changed: set[str]
) -> Iterator[Contested]:
    order = together.in_model_order
    for root in order(saved):
        if root in targets:
            yield Contested(member, root, root, "wrapper")
        for module in order(module for module in targets if module.startswith(root + ".")):
            yield Contested(member, module, root, "copies")
    for root in order(own):
        if root in changed and root not in saved:
            yield Contested(member, root, root, "layer")
        else:  # its copy is one of a block with layers in it, even if the block was wrapped before it got them
            for module in order(module for module in changed if module.startswith(root + ".")):
                yield Contested(member, module, root, "block")


def _meets_itself(member: Subject, own: Iterable[str], saved: set[str]) -> Iterator[Contested]:
    for root in together.in_model_order(own) if member.base is not None and member.selection.known else ():
        for module in inside_saved(member, root)[:1]:
            yield Contested(member, module, root, "own-copies" if root in saved else "own")


def inside_saved(member: Subject, root: str) -> list[str]:
    """Modules of the base that an adapter's targets select inside a module that it saves whole."""
    inside = (module for module in (member.base.modules if member.base else ()) if module.startswith(root + "."))
    return [m for m in inside if member.selection(m) and not peft.saves(member.saved_names, m)]
