"""What ranks the stored tensors prove, and how a config says them so that every release understands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from adapterlint.findings import Edit, SetConfig
from adapterlint.model import peft
from adapterlint.model.adapter import Adapter, stored_rank
from adapterlint.model.features import is_positive
from adapterlint.model.keys import Kind
from adapterlint.model.keytable import ModuleTensors
from adapterlint.model.subject import Subject


def proven_ranks(subject: Subject) -> dict[str, int] | None:
    """The rank of every covered module; None where the two halves of one disagree, or one of them is lost."""
    found = {}
    for module, entry in subject.covered.items():
        ranks = _ranks(subject.adapter, entry)
        if len(ranks) != 1 or 0 in ranks or not _fits(subject, module, entry):
            return None
        found[module] = ranks.pop()
    return found or None


def _fits(subject: Subject, module: str, entry: ModuleTensors) -> bool:
    """Whether the outer dimensions are the base's, as far as it tells: else the pair may be transposed."""
    features = subject.base.features(module) if subject.base else None
    if features is None or entry.a is None or entry.b is None or entry.a.kind is not Kind.LORA_A:
        return True
    return (subject.adapter.shape(entry.a)[1:2], subject.adapter.shape(entry.b)[:1]) == (features[:1], features[1:])


def _ranks(adapter: Adapter, entry: ModuleTensors) -> set[int]:
    found = {stored_rank(key.kind, adapter.shape(key)) for key in (entry.a, entry.b) if key is not None}
    return {rank for rank in found if rank is not None} if entry.a and entry.b and None not in found else set()


def rank_edits(subject: Subject) -> tuple[Edit, ...] | None:
    """Edits after which the config gives every module its stored rank and the alpha that it gives it now.

    The scale is then the written alpha over the stored rank. None where the tensors do not prove the ranks, or the
    config holds no alpha to go with them.
    """
    adapter = subject.adapter
    ranks = proven_ranks(subject)
    if ranks is None or "lora_alpha" not in (adapter.config or {}):
        return None
    alphas = {module: peft.alpha(adapter, module) for module in ranks}
    if not all(is_positive(alpha) for alpha in alphas.values()):
        return None
    own = adapter.get("r")
    counted = Counter(ranks.values())
    r = own if own in counted and not isinstance(own, bool) else counted.most_common(1)[0][0]
    for changes in (
        {"r": r},
        {"r": r, "rank_pattern": {module: rank for module, rank in ranks.items() if rank != r}},
        {"r": r, **_patterns(ranks, alphas, r, adapter.get("lora_alpha"))},
    ):
        if says(adapter, changes, ranks, alphas):
            return _edits(adapter, changes)
    return None


def full_patterns(subject: Subject) -> tuple[Edit, ...] | None:
    """Edits after which both patterns name their modules in full, which every release since 0.6 reads alike."""
    adapter = subject.adapter
    ranks = {module: peft.rank(adapter, module) for module in subject.covered}
    alphas = {module: peft.alpha(adapter, module) for module in subject.covered}
    default = adapter.get("lora_alpha", peft.DEFAULT_ALPHA)
    changes = _patterns(ranks, alphas, adapter.get("r", peft.DEFAULT_RANK), default)
    return _edits(adapter, changes) if says(adapter, changes, ranks, alphas) else None


def says(adapter: Adapter, changes: Mapping[str, Any], ranks: Mapping[str, int], alphas: Mapping[str, Any]) -> bool:
    """Whether the changed config gives every module this rank and alpha, on all releases since 0.6."""
    changed = replace(adapter, config={**(adapter.config or {}), **changes})
    return all(
        peft.rank(changed, module, era) == rank and peft.alpha(changed, module, era) == alphas[module]
        for module, rank in ranks.items()
        for era in get_args(peft.PatternEra)
    )


def _patterns(ranks: Mapping[str, int], alphas: Mapping[str, Any], r: int, alpha: Any) -> dict[str, Any]:
    """Both patterns with the same keys: PEFT before 0.14 takes one key for the two of them."""
    odd = [module for module, rank in ranks.items() if rank != r or alphas[module] != alpha]
    if not any(alphas[module] != alpha for module in odd):
        return {"rank_pattern": {module: ranks[module] for module in odd}, "alpha_pattern": {}}
    return {
        "rank_pattern": {module: ranks[module] for module in odd},
        "alpha_pattern": {module: alphas[module] for module in odd},
    }


def _edits(adapter: Adapter, changes: Mapping[str, Any]) -> tuple[Edit, ...]:
    present = adapter.config or {}
    return tuple(
        SetConfig(f"/{field}", value)
        for field, value in changes.items()
        if present.get(field) != value and (value != {} or present.get(field))
    )
