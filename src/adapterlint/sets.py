"""Which adapters are loaded together: sets, and the loading orders that stand for all of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from adapterlint.model.peft import implied_heads
from adapterlint.model.subject import SetSubject, Subject

if TYPE_CHECKING:
    from adapterlint.ignores import Pattern

Grouping = Literal["auto", "one", "none"]

_CHECKPOINT = re.compile(r"(checkpoint|epoch|step)[-_]?\d+")
# Config keys that decide how an adapter answers, but not what becomes of the others.
_OWN_AFFAIR = frozenset(
    {
        "alpha_pattern",
        "inference_mode",
        "lora_alpha",
        "lora_dropout",
        "peft_version",
        "r",
        "rank_pattern",
        "revision",
        "use_rslora",
    }
)
_ALL_ORDERS = 4  # up to this many members every order is tried, 24 at most


class HasSubject(Protocol):
    """Anything that carries the subject of one adapter."""

    subject: Subject


Member = TypeVar("Member", bound=HasSubject)


def group(members: Sequence[Member], grouping: Grouping, same_base: bool) -> list[list[Member]]:
    """The sets among adapters.

    Args:
        members: adapters in the order given or found.
        grouping: ``auto``: explicit adapters are one set, siblings with one base and task class are a set;
            ``one``: all of them are one set; ``none``: there are none.
        same_base: a base was given for all, so that adapters which name none still share it.
    """
    if grouping == "none" or len(members) < 2:
        return []
    if grouping == "one":
        return [list(members)]
    explicit = [member for member in members if member.subject.adapter.explicit]
    sets = [explicit] if len(explicit) > 1 else []
    siblings: dict[tuple[str, str, str], list[Member]] = {}
    for member in members:
        adapter = member.subject.adapter
        if adapter.explicit or adapter.config is None or _CHECKPOINT.fullmatch(adapter.name):
            continue
        reference = adapter.get("base_model_name_or_path")
        if not (isinstance(reference, str) and reference) and not same_base:
            continue
        key = (os.path.dirname(adapter.path), "" if same_base else str(reference), str(adapter.get("task_type")))
        siblings.setdefault(key, []).append(member)
    for found in siblings.values():
        loadable = [member for member in found if member.subject.adapter.weights_file is not None]
        if len(loadable) > 1:
            sets.append(sorted(loadable, key=lambda member: member.subject.adapter.name))
    return sets


def declared_sets(
    members: Sequence[Member], sets: Sequence[Sequence[Pattern]]
) -> tuple[list[list[Member]], list[Member]]:
    """The sets that were declared, as far as their members are here, and the adapters that are in none.

    Args:
        members: adapters in the order given or found.
        sets: of every set the patterns of its members, in loading order; those that one pattern matches are sorted.
    """
    if not sets:
        return [], list(members)
    found: list[list[Member]] = []
    used: set[str] = set()
    for patterns in sets:
        chosen: dict[str, Member] = {}
        for pattern in patterns:
            matched = [member for member in members if pattern.matches(member.subject.adapter.path, below=False)]
            for member in sorted(matched, key=lambda member: member.subject.adapter.path):
                chosen.setdefault(member.subject.adapter.path, member)
        if len(chosen) > 1:
            found.append(list(chosen.values()))
            used |= chosen.keys()
    return found, [member for member in members if member.subject.adapter.path not in used]


def orders(subject: SetSubject) -> list[SetSubject]:
    """Loading orders that together show whatever any order shows; the given one is the first.

    The outcome of a set depends on which adapter is first, which is last, and on what came before each; beyond four
    members it is enough to let every member be first once and last once, and of members that are alike to a set, one.
    """
    members = subject.members
    if len(members) <= _ALL_ORDERS:
        arranged = list(permutations(members))
    else:
        arranged = [members]
        for member in _unlike(members):
            rest = tuple(other for other in members if other is not member)
            arranged += [(member, *rest), (*rest, member)]
    return [subject] + [replace(subject, members=order) for order in arranged if order != members]


def _unlike(members: Sequence[Subject]) -> list[Subject]:
    """One member of each kind: those of a kind differ in nothing that decides how a set loads."""
    named = {
        name
        for member in members
        for field in ("target_modules", "modules_to_save")
        for name in member.adapter.names(field)
    }
    heads = (head for member in members for head in implied_heads(member.adapter))
    words = tuple({name.rpartition(".")[2] for name in named} | set(heads))
    kinds: dict[object, Subject] = {}
    for member in members:
        adapter = member.adapter
        config = adapter.config or {}
        told = repr([(key, config[key]) for key in sorted(config) if key not in _OWN_AFFAIR])
        name = adapter.name if adapter.name.endswith(words) else None  # PEFT may take it for a module
        kinds.setdefault((told, name, adapter.readable, adapter.table), member)
    return list(kinds.values())
