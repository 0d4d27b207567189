"""What PEFT does with modules_to_save when several adapters share one base, by release.

Sources: ``peft_model.py`` and ``utils/other.py`` of PEFT 0.4.0 to 0.21.2; every statement measured on the releases that
``schemas/peft/index.json`` marks. The model is small: a wrapper exists for every saved module of any adapter; what
differs is which adapters get an entry in it, and which entry is active after a load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from adapterlint.model import peft
from adapterlint.model.keys import Key, Kind
from adapterlint.model.subject import SetSubject, Subject

# Siblings in the order in which transformers' model classes create them; the order of a checkpoint is alphabetical.
_CREATED = (
    "shared wte wpe embed_tokens embed_in embeddings embeddings_project "
    "word_embeddings position_embeddings token_type_embeddings "
    "encoder decoder layers layer h block transformer attention self_attn attn self_attention SelfAttention self "
    "query_key_value c_attn q_proj k_proj v_proj o_proj query key value q k v o q_lin k_lin v_lin out_lin "
    "intermediate ffn mlp DenseReluDense gate_proj up_proj down_proj dense_h_to_4h dense_4h_to_h c_fc c_proj lin1 lin2 "
    "wi wi_0 wi_1 wo output dense out_proj norm ln_f pooler"
)
_RANK = {name: number for number, name in enumerate(_CREATED.split())}
_HEADS = ("lm_head", "embed_out", "pre_classifier", "classifier", "score", "qa_outputs")  # behind all others


class SavedSets(NamedTuple):
    """The saved modules of each member, in loading order.

    Attributes:
        names: adapter names.
        saved: modules that PEFT wraps for each member.
        typed: whether the first adapter's task class adds heads (to every member, since 0.11).
        listed: whether a member has a list of them at all; an empty one is a list, and so is one that matches nothing.
    """

    names: tuple[str, ...]
    saved: tuple[frozenset[str], ...]
    typed: bool
    listed: tuple[bool, ...]

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

        A member with a list of saved modules gets an entry in every wrapper that exists when it is loaded; one without
        gets none.
        """
        seen: frozenset[str] = frozenset()
        entries = []
        for saved, listed in zip(self.saved, self.listed, strict=True):
            seen |= saved
            entries.append(seen if listed else frozenset())
        for name, entry in zip(self.names, entries, strict=True):
            missing = sorted(self.union - entry)
            if missing:
                return name, missing[0]
        return None

    def holders(self, module: str) -> list[str]:
        """Members that have an entry in the wrapper of a module, in loading order (PEFT 0.6 to 0.14)."""
        seen: frozenset[str] = frozenset()
        found = []
        for name, saved, listed in zip(self.names, self.saved, self.listed, strict=True):
            seen |= saved
            if listed and module in seen:
                found.append(name)
        return found


@lru_cache(maxsize=4)
def saved_sets(subject: SetSubject, heads_for_all: bool) -> SavedSets:
    """The saved modules of a set.

    Args:
        subject: the set.
        heads_for_all: as PEFT 0.11 and later: the first adapter's task class adds its heads to every adapter; before,
            to the first only.
    """
    first = subject.members[0]
    heads = peft.implied_heads(first.adapter)
    saved: list[frozenset[str]] = []
    listed: list[bool] = []
    earlier: set[str] = set()
    for number, member in enumerate(subject.members):
        extra = heads if heads_for_all or number == 0 else ()
        listed.append(isinstance(member.adapter.get("modules_to_save"), list) or bool(extra))
        roots = _wrapped(subject, member, (*member.declared_names, *extra))
        saved.append(frozenset(_enclosing(earlier, root) or root for root in roots))
        earlier |= saved[-1]
    return SavedSets(tuple(member.adapter.name for member in subject.members), tuple(saved), bool(heads), tuple(listed))


@lru_cache(maxsize=2)
def declared_sets(subject: SetSubject) -> SavedSets:
    """The saved modules of a set where no task class adds heads: as transformers' own ``load_adapter`` has it."""
    saved = tuple(frozenset(_wrapped(subject, member, member.declared_names)) for member in subject.members)
    return SavedSets(
        tuple(member.adapter.name for member in subject.members), saved, False, tuple(bool(each) for each in saved)
    )


def _enclosing(roots: Iterable[str], module: str) -> str | None:
    """A module that is wrapped already and holds this one: PEFT does not look inside."""
    return next((root for root in roots if module.startswith(root + ".")), None)


def _wrapped(subject: SetSubject, member: Subject, names: Sequence[str]) -> Sequence[str]:
    if not names:
        return ()
    if member.base is not None:
        return peft.saved_modules(names, member.base)
    roots = (peft.saved_root(names, module) for module in subject.stored_modules)
    return tuple(dict.fromkeys(root for root in roots if root))


def in_model_order(modules: Iterable[str]) -> list[str]:
    """Module paths in the order in which a model creates them, as far as their names tell; numbers count as numbers."""
    return sorted(modules, key=lambda module: [_place(part) for part in module.split(".")])


def first_layer(subject: SetSubject) -> str | None:
    """The layer that tells which adapter a model calls active: the first one in the model that any adapter has."""
    modules = frozenset().union(*{member.layers for member in subject.members})
    return min(modules, key=lambda module: [_place(part) for part in module.split(".")]) if modules else None


def successor_of(subject: SetSubject) -> Subject | None:
    """The adapter that the model calls active once the first is deleted: every layer takes its first one by name."""
    others = sorted(subject.members[1:], key=attrgetter("adapter.name"))
    if subject.all_lora:
        start = first_layer(subject)
        others = [member for member in others if start in member.layers]
    return others[0] if others else None


def _place(part: str) -> tuple[int, int, str]:
    if part.isdigit():
        return 0, int(part), ""
    if part in _HEADS:
        return 3, _HEADS.index(part), ""
    return (1, _RANK[part], "") if part in _RANK else (2, 0, part)


def saved_kind(subject: SetSubject, module: str) -> str:
    """What a saved module is: ``linear``, ``embedding``, ``conv``, ``norm`` or ``container``.

    Without a base, the tensors stored below it tell, and an embedding passes for a linear module.
    """
    if subject.base is not None:
        return subject.base.kind(module)
    for member in subject.members:
        for key in member.adapter.saved.values():
            if key.module.startswith(module + "."):
                return "container"
            if key.module == module and key.parameter == "weight":
                return {1: "norm", 2: "linear"}.get(len(member.adapter.shape(key)), "conv")
    return "linear"


def trains_rows(member: Subject) -> bool:
    """Whether an adapter replaces rows of an embedding (``trainable_token_indices``)."""
    return bool(member.adapter.get("trainable_token_indices"))


def vocabulary_ends(member: Subject, tied_only: bool = True) -> frozenset[str]:
    """The input embedding, and the output heads that share its weight (or, not ``tied_only``, any).

    Without a base: the modules that the adapter trains rows of.
    """
    base = member.base
    if base is None or base.embedding is None:
        return frozenset(key.module for key in member.adapter.keys if key.kind is Kind.TOKENS)
    if base.tied:
        return frozenset((base.embedding, *base.tied_heads))
    heads = () if tied_only else tuple(name for name in ("lm_head", "embed_out") if name in base.modules)
    return frozenset((base.embedding, *heads))


def has_dora(member: Subject) -> bool:
    """Whether an adapter has DoRA layers."""
    return member.adapter.get("use_dora") is True and bool(member.layers)


def has_lora_bias(member: Subject) -> bool:
    """Whether an adapter stores a bias of B and uses it."""
    return member.adapter.get("lora_bias") is True and bool(member.adapter.of_kind(Kind.LORA_BIAS))


def entered_copies(subject: SetSubject, names: Iterable[str]) -> list[tuple[Subject, str, Subject | None]]:
    """Copies of saved modules that pass for targets, because their adapter is called as one (``query``, say).

    Args:
        subject: the set.
        names: target names; adapters called otherwise are left out.

    Returns:
        The adapter, its saved module, and the later adapter that has put LoRA layers into the copy, if one has.
    """
    sets, wanted = saved_sets(subject, heads_for_all=True), set(names)
    found = []
    for number, owner in enumerate(subject.members):
        for module in sorted(sets.saved[number]) if owner.adapter.name in wanted else ():
            later = range(number + 1, len(subject.members))
            entering = (
                subject.members[index]
                for index in later
                if owner.adapter.name in subject.members[index].adapter.names("target_modules")
                and module not in sets.saved[index]
            )
            found.append((owner, module, next(entering, None)))
    return found


def shown(value: object) -> str:
    """A config value as Python prints it, if it is of a reasonable length."""
    try:
        text = str(value)
    except (ValueError, RecursionError):  # Python refuses to write numbers of more than 4300 digits
        return "a value too long to print"
    return text if len(text) <= 80 else f"{text[:77]}..."


def stores_bias(member: Subject) -> bool:
    """Whether a bias of the base is in the file, under the name of any release; those of saved modules are copies."""
    return any(
        is_base_bias(key) and (key.kind is Kind.BASE_LAYER or peft.saved_root(member.saved_names, key.module) is None)
        for key in member.adapter.keys
    )


def is_base_bias(key: Key) -> bool:
    """Whether a tensor is a bias of the base, under the name of any release, outside of PEFT's own wrappers."""
    return key.parameter == "bias" and key.kind in (Kind.BASE_LAYER, Kind.FULL) and not key.infix
