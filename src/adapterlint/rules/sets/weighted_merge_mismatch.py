"""AL505."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model import peft
from adapterlint.model.subject import SetSubject, Subject, first_names
from adapterlint.model.together import (
    declared_sets,
    entered_copies,
    has_dora,
    has_lora_bias,
    in_model_order,
    saved_sets,
    shown,
    trains_rows,
)
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_OPERATION = "weighted"
_NARROWING = ("layers_to_transform", "exclude_modules")
_OF_LINEAR = " when using combination_type linear, ties, dare_ties or dare_linear."


class WeightedMergeMismatch(SetRule):
    """## What it does
    Looks for sets that `add_weighted_adapter` cannot combine: all adapters, with `linear` (which needs equal ranks)
    and with `cat` (which is exact for LoRA pairs of any rank).

    ## Why is this bad?
    The combination is a new plain LoRA layer, configured as the first adapter. What is no LoRA pair is dropped without
    a word: saved modules, DoRA vectors, biases of B, token rows. Two adapters that save the same module raise, as do
    unequal ranks with `linear`, and a list beside a text as `target_modules`.

    ## Example
    One adapter with `"modules_to_save": ["classifier"]`; `"r": 4` beside `"r": 8`; `"use_rslora": true` in the first.

    ## Fix
    None unasked. For ranks alone: combine with `cat` or `svd`, not `linear`. For saved modules: `adapterlint fix --form
    lowrank`, if no bias of them was trained (docs/forms.md).

    ## References
    - PEFT `tuners/lora/model.py`, `add_weighted_adapter`; peft#3761, peft#3737.
    - Measured on 0.8.2 to 0.21.2; see docs/operations.md.
    """

    code = "AL505"
    name = "weighted-merge-mismatch"
    severity = Severity.NOTE
    loading = False

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        alpha = Example("b", bert_config(lora_alpha=16), bert_tensors())
        return [SetExample("equal ranks", {"a": plain, "b": alpha}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        wide = Example("b", bert_config(r=8), bert_tensors(r=8))
        head = Example("c", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        scaled = Example("d", bert_config(use_rslora=True), bert_tensors())
        return [
            SetExample("unequal ranks", {"a": plain, "b": wide}, bert_base()),
            SetExample("one head", {"c": head, "a": plain}, bert_base()),
            SetExample("rsLoRA first", {"d": scaled, "a": plain}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        first = subject.members[0]
        methods = {member.adapter.peft_type for member in subject.members}
        if methods != {"LORA"}:
            if len(methods) == 1 and None not in methods:
                yield self._found(subject, first, "peft_type", *_method(subject, str(first.adapter.peft_type)))
            return
        for finder in _FINDERS:
            for member, field, reason, effects in finder(subject):
                yield self._found(subject, member, field, reason, effects)

    def _found(self, subject: SetSubject, member: Subject, field: str, reason: str, effects: Any) -> Finding:
        return self.finding(
            f"no weighted combination of these adapters: {reason}",
            member.at_field(field),
            effects=effects,
            adapters=subject.paths,
        )


_Cause = tuple[Subject, str, str, tuple[Any, ...]]
"""An adapter, a config field, what is the matter, and what PEFT does."""


def _raise(targets: str, text: str) -> Any:
    return raises(targets, text, operation=_OPERATION)


def _wrong(targets: str = "peft") -> Any:
    return wrong(targets, operation=_OPERATION)


def _method(subject: SetSubject, method: str) -> tuple[str, tuple[Any, ...]]:
    base = subject.base.architecture if subject.base else "the model"
    lacking = f"AttributeError: '{base}' object has no attribute 'add_weighted_adapter'"
    if method == "IA3":
        text = "TypeError: IA3Model.add_weighted_adapter() got an unexpected keyword argument 'combination_type'"
        return "IA3Model takes no combination_type", (_raise("peft<0.9", lacking), _raise("peft>=0.9", text))
    return f"{method} adapters cannot be combined", (_raise("peft", lacking),)


# -- what raises, in PEFT's order --------------------------------------------------------------------------------


def _parameters(subject: SetSubject) -> Iterator[_Cause]:
    for member in subject.members:
        if member.adapter.get("target_parameters"):
            name = member.adapter.name
            text = "ValueError: add_weighted_adapter does not support targeting nn.Parameter"
            effect = _raise("peft>=0.17", f"{text} (problematic adapter '{name}')")
            yield member, "target_parameters", f"{name} targets parameters", (effect,)
            return


def _saved(subject: SetSubject) -> Iterator[_Cause]:
    sets = saved_sets(subject, heads_for_all=True)
    if not sets.union:
        return
    owner = next(member for member, saved in zip(subject.members, sets.saved, strict=True) if saved)
    text = "ValueError: Cannot add weighted adapters if they target the same module with modules_to_save, but found"
    counted = {module: sum(module in saved for saved in sets.saved) for module in sets.union}
    shared = sorted(module for module, number in counted.items() if number > 1)
    effects = [_wrong()]
    if shared:
        effects.append(_raise("peft>=0.11", f"{text} {len(shared)} such instance(s)."))
    # Up to 0.14 every wrapper also takes in the adapters that are loaded later and save anything at all.
    entered = [module for module in sets.union if len(sets.holders(module)) > 1]
    if entered and not shared:
        effects.append(_raise("peft>=0.11,<0.15", f"{text} {len(entered)} such instance(s)."))
    effects.extend(_unswitchable(subject))
    reason = f"{first_names(shared)} is saved by several" if shared else f"{first_names(sorted(sets.union))} is dropped"
    yield owner, "modules_to_save", reason, tuple(effects)


def _unswitchable(subject: SetSubject) -> Iterator[Effect]:
    """PEFT 0.6 to 0.10 cannot switch to the combination: it has entries for what the first adapter declares only."""
    before = saved_sets(subject, heads_for_all=False)
    missing = sorted(before.union - declared_sets(subject).saved[0])
    if missing:
        listed = before.holders(missing[0])
        text = f"ValueError: Adapter combined not found in dict_keys({listed})"
        yield raises("peft>=0.6,<0.11", text, stage="switch", operation=_OPERATION)


def _top_rank(member: Subject) -> Any:
    """The largest rank that the config names, as ``linear`` compares them since 0.9."""
    patterns = member.adapter.get("rank_pattern")
    ranks = [member.adapter.get("r", peft.DEFAULT_RANK), *(patterns.values() if isinstance(patterns, dict) else ())]
    return max((rank for rank in ranks if isinstance(rank, int)), default=None)


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)


def _ranks(subject: SetSubject) -> Iterator[_Cause]:
    now = [_top_rank(member) for member in subject.members]
    before = [member.adapter.get("r", peft.DEFAULT_RANK) for member in subject.members]
    text = "ValueError: All adapters must have the same r value"
    effects = []
    if _differ(now):
        effects.append(_raise("peft>=0.9", text + _OF_LINEAR))
    if _differ(before):
        effects.append(_raise("peft>=0.6,<0.9", text + " when using `linear` combination_type"))
    if effects:
        listed = ", ".join(
            f"{member.adapter.name} {shown(rank)}" for member, rank in zip(subject.members, now, strict=True)
        )
        yield subject.members[0], "r", f"linear needs equal ranks ({listed}); cat and svd do not", tuple(effects)


def _is_text(member: Subject) -> bool:
    targets = member.adapter.get("target_modules")
    return isinstance(targets, str) and targets.lower() != "all-linear"


def _targets(subject: SetSubject) -> Iterator[_Cause]:
    kinds = {_is_text(member) for member in subject.members}
    if len(kinds) > 1:
        text = (
            "ValueError: all adapter configs should follow the same target modules type. Combining adapters with "
            "`target_modules` type being a mix of list/set and string is not supported."
        )
        odd = next(member for member in subject.members if _is_text(member))
        yield odd, "target_modules", "target_modules is a list in one and a text in another", (_raise("peft", text),)


def _names(subject: SetSubject) -> Iterator[_Cause]:
    """Up to 0.15 a target that is called as an adapter also selects that adapter's dropout."""
    listed = {name for member in subject.members for name in member.adapter.names("target_modules")}
    named = next((member for member in subject.members if member.adapter.name in listed), None)
    if named is not None:
        text = (
            "ValueError: Target module Identity() is not supported. Currently, only the following modules are "
            "supported: `torch.nn.Linear`, `torch.nn.Embedding`, `torch.nn.Conv2d`, "
            "`transformers.pytorch_utils.Conv1D`."
        )
        reason = f"up to 0.15 the target {named.adapter.name} also selects parts of the adapter of this name"
        yield named, "target_modules", reason, (_raise("peft<0.16", text),)
    first = saved_sets(subject, heads_for_all=True).saved[0]
    for owner, module, entering in entered_copies(subject, listed):
        if entering is None and module not in first:
            reason = f"the target {owner.adapter.name} also selects {module} of the adapter of this name"
            effect = _raise("peft>=0.16", "IndexError: list index out of range")
            yield owner, "target_modules", reason, (effect,)
            return


def _bias(subject: SetSubject) -> Iterator[_Cause]:
    first = subject.members[0]
    if first.adapter.get("bias", "none") not in ("none", None):
        text = (
            "ValueError: LoraModel supports only 1 adapter with bias. "
            "When using multiple adapters, set bias to 'none' for all adapters."
        )
        yield first, "bias", "the combination takes over the bias of the first", (_raise("peft", text),)


# -- what is lost ------------------------------------------------------------------------------------------------


def _dropped(subject: SetSubject) -> Iterator[_Cause]:
    kinds = (("use_dora", has_dora), ("lora_bias", has_lora_bias), ("trainable_token_indices", trains_rows))
    for field, has in kinds:
        found = [member for member in subject.members if has(member)]
        if found:
            names = first_names(member.adapter.name for member in found)
            yield found[0], field, f"{field} of {names} is left out", (_wrong(),)


def _first_config(subject: SetSubject) -> Iterator[_Cause]:
    """The combination keeps the first one's use_rslora, so that its scale is not 1 but the root of its rank."""
    first = subject.members[0]
    if first.adapter.get("use_rslora") is True:
        yield first, "use_rslora", "it is scaled as rsLoRA, because the first adapter is", (_wrong(),)


def _patterns(subject: SetSubject) -> Iterator[_Cause]:
    """Up to 0.15 the combination also keeps the first one's patterns."""
    first = subject.members[0]
    for field, effect in (("alpha_pattern", _wrong("peft>=0.6,<0.16")), ("rank_pattern", None)):
        value = first.adapter.get(field)
        if not (isinstance(value, dict) and value):
            continue
        text = (
            "RuntimeError: The expanded size of the tensor must match the existing size at non-singleton dimension 0."
        )
        shown = effect or _raise("peft>=0.6,<0.16", text)
        yield first, field, f"up to 0.15 it keeps the {field} of the first", (shown,)


def _layer_ranks(subject: SetSubject) -> Iterator[_Cause]:
    """``linear`` stacks the tensors of one module."""
    if not any(member.adapter.get("rank_pattern") for member in subject.members):
        return  # _ranks says all
    for module in _covered(subject):
        ranks = Counter(
            member.adapter.shape(entry.a)[0]
            for member in subject.members
            if (entry := member.covered.get(module)) is not None
            and entry.a is not None
            and member.adapter.shape(entry.a)
        )
        if len(ranks) > 1:
            old = "RuntimeError: The size of tensor a must match the size of tensor b at non-singleton dimension 0"
            text = "RuntimeError: stack expects each tensor to be equal size"
            reason = f"linear needs equal ranks in every module ({module} differs)"
            effects = (_raise("peft>=0.6,<0.9", old), _raise("peft>=0.9", text))
            yield subject.members[0], "rank_pattern", reason, effects
            return


def _covered(subject: SetSubject) -> list[str]:
    return in_model_order({module for member in subject.members for module in member.covered})


def _narrow(subject: SetSubject) -> Iterator[_Cause]:
    """The first one's layers_to_transform and exclude_modules go for the targets of all."""
    if not any(member.adapter.get(field) for member in subject.members for field in _NARROWING):
        return
    config = _combined(subject)
    if config is None:
        return
    first = subject.members[0]
    adapter = replace(first.adapter, config=config)
    selection = peft.Selection(adapter, first.base)
    lost = [module for module in _covered(subject) if not selection(module)]
    field = next((key for key in _NARROWING if config.get(key)), "target_modules")
    if lost:
        yield first, field, f"{first_names(lost, 1)} is left out as the {field} of the first says", (_wrong(),)
    if first.base is None:
        return
    held = frozenset().union(*(member.layers for member in subject.members))
    empty = [module for module in peft.selected_modules(adapter, first.base) if module not in held]
    if empty:
        text = "ValueError: No matching LoRAs found. Please raise an issue on GitHub."
        yield first, field, f"{empty[0]} is selected, and none of them has a layer there", (_raise("peft", text),)


def _combined(subject: SetSubject) -> dict[str, Any] | None:
    """The config of the combination; None where targets do not combine or are not written out."""
    members = subject.members
    config = dict(members[0].adapter.config or {})
    if all(_is_text(member) for member in members):
        config["target_modules"] = "|".join(f"({member.adapter.get('target_modules')})" for member in members)
        return config
    union: set[str] = set()
    for member in members:
        targets = member.adapter.get("target_modules")
        if isinstance(targets, list):
            union.update(name for name in targets if isinstance(name, str))
        elif _is_text(member) or member.base is None:
            return None
        else:
            union.update(member.layers)
    return {**config, "target_modules": sorted(union)}


_FINDERS: tuple[Callable[[SetSubject], Iterator[_Cause]], ...] = (
    _parameters,
    _saved,
    _ranks,
    _targets,
    _names,
    _bias,
    _layer_ranks,
    _narrow,
    _dropped,
    _first_config,
    _patterns,
)
