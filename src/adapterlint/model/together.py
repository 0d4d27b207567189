"""What PEFT does with modules_to_save when several adapters share one base, by release.

Sources: ``peft_model.py`` and ``utils/other.py`` of PEFT 0.4.0 to 0.21.2; every statement measured on the releases that
``schemas/peft/index.json`` marks. The model is small: a wrapper exists for every saved module of any adapter; what
differs is which adapters get an entry in it, and which entry is active after a load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapterlint.model import peft
from adapterlint.model.subject import SetSubject, Subject


@dataclass(frozen=True, slots=True)
class SavedSets:
    """The saved modules of each member, in loading order.

    Attributes:
        names: adapter names.
        saved: modules that PEFT wraps for each member.
        typed: whether the first adapter's task class adds heads (to every member, since 0.11).
    """

    names: tuple[str, ...]
    saved: tuple[frozenset[str], ...]
    typed: bool

    @property
    def union(self) -> frozenset[str]:
        """Every module that any member saves."""
        return frozenset().union(*self.saved)

    def first_overruled(self) -> tuple[str, ...]:
        """Modules that a later adapter saves and the first does not: right after loading, the later one's is active."""
        later = frozenset().union(*self.saved[1:]) if len(self.saved) > 1 else frozenset()
        return tuple(sorted(later - self.saved[0]))

    def lacking(self) -> tuple[str, str] | None:
        """The first member, in switching order, that lacks an entry in a wrapper, and that module (PEFT 0.6 to 0.14).

        A member that saves anything gets an entry in every wrapper that exists when it is loaded; one that saves
        nothing gets none.
        """
        seen: frozenset[str] = frozenset()
        entries = []
        for saved in self.saved:
            seen |= saved
            entries.append(seen if saved else frozenset())
        for name, entry in zip(self.names, entries, strict=True):
            missing = sorted(self.union - entry)
            if missing:
                return name, missing[0]
        return None

    def holders(self, module: str) -> list[str]:
        """Members that have an entry in the wrapper of a module, in loading order (PEFT 0.6 to 0.14)."""
        seen: frozenset[str] = frozenset()
        found = []
        for name, saved in zip(self.names, self.saved, strict=True):
            seen |= saved
            if saved and module in seen:
                found.append(name)
        return found


def saved_sets(subject: SetSubject, heads_for_all: bool) -> SavedSets:
    """The saved modules of a set.

    Args:
        subject: the set.
        heads_for_all: as PEFT 0.11 and later: the first adapter's task class adds its heads to every adapter; before,
            to the first only.
    """
    first = subject.members[0]
    heads = peft.implied_heads(first.adapter)
    saved = []
    for number, member in enumerate(subject.members):
        extra = heads if heads_for_all or number == 0 else ()
        saved.append(frozenset(_wrapped(member, (*member.adapter.names("modules_to_save"), *extra))))
    return SavedSets(tuple(member.adapter.name for member in subject.members), tuple(saved), bool(heads))


def _wrapped(member: Subject, names: Sequence[str]) -> Sequence[str]:
    if not names:
        return ()
    if member.base is not None:
        return peft.saved_modules(names, member.base)
    roots = (peft.saved_root(names, key.module) for key in member.adapter.saved.values())
    return tuple(dict.fromkeys(root for root in roots if root))
