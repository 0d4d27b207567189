"""AL503."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isclose, sqrt
from typing import NamedTuple

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model import peft
from adapterlint.model.adapter import Adapter
from adapterlint.model.features import is_positive
from adapterlint.model.keys import PREFIX, Key, Kind
from adapterlint.model.subject import SetSubject, Subject, first_names
from adapterlint.model.together import in_model_order, shown, trains_rows
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors
from adapterlint.rules.tensors.undeclared_full_tensor import altering_keys

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_COMPARED = {"lora_alpha": 8, "use_rslora": False, "lora_dropout": 0.0, "alpha_pattern": {}, "use_dora": False}
_WITH_NAME = {
    Kind.LORA_A: "lora_A.weight",
    Kind.LORA_B: "lora_B.weight",
    Kind.LORA_BIAS: "lora_B.bias",
    Kind.EMBEDDING_A: "lora_embedding_A",
    Kind.EMBEDDING_B: "lora_embedding_B",
    Kind.MAGNITUDE: "lora_magnitude_vector",
}
_PLAIN = frozenset({Kind.LORA_A, Kind.LORA_B})
_PATTERNS = ("rank_pattern", "alpha_pattern")
_FAILED = "RuntimeError: Hot swapping the adapter did not succeed"
_OLD, _NEW = "peft>=0.14,<0.15", "peft>=0.15"


class _Slot(NamedTuple):
    """The first adapter, and the modules in which it has layers."""

    member: Subject
    layers: frozenset[str]


class _Problem(NamedTuple):
    """Why an adapter cannot take the place of the first: what happens, and where it is written."""

    reason: str
    effect: Effect
    field: str


class HotswapMismatch(SetRule):
    """## What it does
    Looks for adapters that cannot take the place of the set's first one: `hotswap_adapter(model, path, adapter_name)`
    of `peft.utils.hotswap`, where only the first one is loaded.

    ## Why is this bad?
    Hot-swapping writes LoRA tensors into layers that exist. Anything else in the file (a saved module, DoRA, token
    rows, LoRA on an embedding or in a module without a layer) raises; a saved module of the first adapter stays, and
    scales from `rank_pattern` or `alpha_pattern` are not found, so that the answer is wrong without a word.

    ## Example
    `"modules_to_save": ["classifier"]` in the first adapter only; `"lora_dropout": 0.1` in the second only.

    ## Fix
    None unasked: `adapterlint fix --form lowrank` gives equal targets, one rank and scale, nothing saved whole
    (docs/forms.md).

    ## References
    - PEFT `utils/hotswap.py`.
    - Measured on 0.14.0 to 0.21.2; see docs/operations.md.
    """

    code = "AL503"
    name = "hotswap-mismatch"
    severity = Severity.NOTE
    loading = False

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        return [SetExample("alike", {"a": plain, "b": plain}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        dropout = Example("c", bert_config(lora_dropout=0.1), bert_tensors())
        return [
            SetExample("a saved module that stays", {"b": head, "a": plain}, bert_base()),
            SetExample("a saved module to put in", {"a": plain, "b": head}, bert_base()),
            SetExample("another dropout", {"a": plain, "c": dropout}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        first, *others = subject.members
        slot = _Slot(first, first.layers)
        alike: dict[object, list[tuple[Subject, list[_Problem]]]] = {}
        for other in others:
            problems = list(_problems(slot, other))
            cause = tuple((problem.field, problem.effect.targets, problem.effect.outcome) for problem in problems)
            if problems:
                alike.setdefault(cause, []).append((other, problems))
        for group in alike.values():
            other, problems = group[0]
            reasons = dict.fromkeys(problem.reason for problem in problems)
            others_too = f" (nor {first_names(m.adapter.name for m, _ in group[1:])})" if group[1:] else ""
            yield self.finding(
                f"{other.adapter.name} cannot be swapped in for {first.adapter.name}: {'; '.join(reasons)}{others_too}",
                other.at_field(problems[-1].field),
                related=(first.at_field(problems[-1].field, first.adapter.name),),
                effects=tuple(problem.effect for problem in problems),
                adapters=subject.paths,
            )


def _problems(slot: _Slot, other: Subject) -> Iterator[_Problem]:
    """What goes wrong in 0.14, and since; at most one each."""
    first = slot.member
    method = _other_method(first, other)
    if method is not None:
        yield method
        return
    if not other.adapter.readable or first.adapter.config is None:
        return
    for old in (True, False):
        found = _config(first, other, old) or _keys(slot, other, old) or _shapes(slot, other, old)
        found = found or _scales(slot, other, old) or _left_behind(slot, other, old)
        if found is not None:
            yield found


def _other_method(first: Subject, other: Subject) -> _Problem | None:
    one, two = first.adapter.peft_type, other.adapter.peft_type
    if one is None or two is None or one == two == "LORA":
        return None
    text = f"ValueError: Hotswapping only supports LORA but {one} was passed."
    if one != two:
        text = f"ValueError: Incompatible PEFT types found: {one} and {two}"
    return _Problem("only LoRA can be hot-swapped", _raises("peft>=0.14", text, other), "peft_type")


def _raises(targets: str, text: str, member: Subject) -> Effect:
    return raises(targets, text, operation="hotswap", adapter=member.adapter.name)


def _config(first: Subject, other: Subject, old: bool) -> _Problem | None:
    for key, default in _COMPARED.items():
        one, two = first.adapter.get(key, default), other.adapter.get(key, default)
        if one != two and (old or key != "lora_alpha"):
            text = f"ValueError: Configs are incompatible: for {key}, {shown(one)} != {shown(two)}"
            return _Problem(
                f"{key} is {shown(two)}, not {shown(one)}", _raises(_OLD if old else _NEW, text, other), key
            )
    return None


# -- names -------------------------------------------------------------------------------------------------------


def _keys(slot: _Slot, other: Subject, old: bool) -> _Problem | None:
    """PEFT looks every name up in the model; one that is there but no LoRA parameter is a KeyError."""
    if _alike(slot, other):
        return None
    name, targets = slot.member.adapter.name, _OLD if old else _NEW
    unexpected: list[str] = []
    found: set[tuple[str, Kind]] = set()
    for key in other.adapter.keys:
        state = _state(slot, key)
        if state == "foreign":
            reason = f"{key.canonical.removeprefix(PREFIX)} is no LoRA tensor that can be swapped"
            return _Problem(reason, _raises(targets, f"KeyError: '{_in_model(key, name)}'", other), _field(key))
        if state == "absent":
            unexpected.append(_in_model(key, name))
        else:
            found.add((key.module, key.kind))
    missing = _parameters(slot) - found if old else set()
    if unexpected or missing:
        reason = "it has tensors where the first has no layer" if unexpected else "it lacks layers of the first"
        text = _old_text(missing, unexpected, name) if old else f", unexpected keys found: {', '.join(unexpected)}."
        return _Problem(reason, _raises(targets, _FAILED + text, other), "target_modules")
    return None if old else _embeddings(slot.member, other)


def _alike(slot: _Slot, other: Subject) -> bool:
    """The usual case, quickly told: the same LoRA pairs as the first adapter's, and nothing else."""
    first = slot.member
    if first.adapter.table is not other.adapter.table and first.adapter.tensors.keys() != other.adapter.tensors.keys():
        return False
    if not slot.layers == first.covered.keys() == other.covered.keys():
        return False
    adapter = other.adapter
    named = all(key.has_canonical_prefix and not key.adapter for key in adapter.unusual)
    return named and adapter.table.by_kind.keys() <= _PLAIN


def _old_text(missing: set[tuple[str, Kind]], unexpected: list[str], name: str) -> str:
    text = "."
    if missing:
        text += f" Missing keys: {', '.join(sorted(_parameter_name(*item, name) for item in missing))}."
    if unexpected:
        text += f" Unexpected keys: {', '.join(sorted(unexpected))}."
    return text


def _field(key: Key) -> str:
    return {Kind.MAGNITUDE: "use_dora", Kind.LORA_BIAS: "lora_bias", Kind.TOKENS: "trainable_token_indices"}.get(
        key.kind, "modules_to_save"
    )


def _in_model(key: Key, name: str) -> str:
    """The name under which PEFT looks for a stored tensor, the first adapter's name put in."""
    if key.kind in _WITH_NAME:
        return _parameter_name(key.module, key.kind, name)
    return key.canonical if key.has_canonical_prefix else key.name


def _parameter_name(module: str, kind: Kind, name: str) -> str:
    token, _, parameter = _WITH_NAME[kind].partition(".")
    return f"{PREFIX}{module}.{token}.{name}" + (f".{parameter}" if parameter else "")


def _state(slot: _Slot, key: Key) -> str:
    """Whether a name is one of the first adapter's LoRA parameters (``slot``), ``absent`` or ``foreign``: no such."""
    if not key.has_canonical_prefix or key.adapter is not None:
        return "absent"
    first, layer = slot.member, key.module in slot.layers
    if key.kind in (Kind.LORA_A, Kind.LORA_B, Kind.EMBEDDING_A, Kind.EMBEDDING_B):
        return "slot" if layer and _embeds(first, key.module) == key.name.endswith(("_A", "_B")) else "absent"
    if key.kind is Kind.LORA_BIAS:
        has_bias = first.adapter.get("lora_bias") is True
        return "absent" if not layer else "slot" if has_bias else "foreign"
    if key.kind is Kind.MAGNITUDE:
        return "foreign" if layer and first.adapter.get("use_dora") is True else "absent"
    if key.kind is Kind.TOKENS:
        return "foreign" if trains_rows(first) else "absent"
    if key.kind is Kind.BASE_LAYER:
        return "foreign" if layer else "absent"
    if key.kind is Kind.FULL:
        return "foreign" if first.module_exists(key.module) is not False else "absent"
    return "absent"


def _embeds(member: Subject, module: str) -> bool:
    """Whether the LoRA layer of a module is one of an embedding."""
    if member.base is not None:
        return member.base.kind(module) == "embedding"
    entry = member.adapter.modules.get(module)
    return entry is not None and Kind.EMBEDDING_A in entry.by_kind


def _parameters(slot: _Slot) -> set[tuple[str, Kind]]:
    """Every LoRA parameter of the first adapter, by module and kind."""
    first = slot.member
    linear = [Kind.LORA_A, Kind.LORA_B, *([Kind.LORA_BIAS] if first.adapter.get("lora_bias") is True else [])]
    return {
        (module, kind)
        for module in slot.layers
        for kind in ((Kind.EMBEDDING_A, Kind.EMBEDDING_B) if _embeds(first, module) else linear)
    }


def _shapes(slot: _Slot, other: Subject, old: bool) -> _Problem | None:
    """Ranks may differ, but there must be something to copy."""
    for module, entry in other.covered.items():
        for key in (entry.a, entry.b) if module in slot.layers else ():
            shape = other.adapter.shape(key) if key is not None else ()
            if key is not None and (len(shape) < 2 or 0 in shape):
                text = "RuntimeError: The size of tensor a must match the size of tensor b at non-singleton dimension 1"
                reason = f"{key.name} has the shape {list(shape)}"
                return _Problem(reason, _raises(_OLD if old else _NEW, text, other), "target_modules")
            if key is not None and _turned(slot.member, key, shape):
                text = "RuntimeError: mat1 and mat2 shapes cannot be multiplied"
                reason = f"{key.name} has the shape {list(shape)}, which does not fit the base"
                return _Problem(reason, _raises(_OLD if old else _NEW, text, other), "target_modules")
    return None


def _turned(first: Subject, key: Key, shape: tuple[int, ...]) -> bool:
    """Whether A takes another number of features than the layer and is not cut down to what is there."""
    features = first.base.features(key.module) if first.base is not None else None
    own = first.adapter.modules.get(key.module)
    if features is None or key.kind is not Kind.LORA_A or len(shape) != 2 or own is None or own.a is None:
        return False
    return shape[1] != features[0] and any(n > o for n, o in zip(shape, first.adapter.shape(own.a), strict=False))


def _embeddings(first: Subject, other: Subject) -> _Problem | None:
    """Since 0.15 PEFT sets the scale on the module three names up: one too many for an embedding's parameters."""
    found = [key.module for key in other.adapter.of_kind(Kind.EMBEDDING_A)]
    if not found:
        return None
    text = f"AttributeError: '{_class_above(first, found[0])}' object has no attribute 'scaling'"
    reason = f"LoRA on an embedding ({found[0]}) cannot be swapped"
    return _Problem(reason, _raises(_NEW, text, other), "target_modules")


def _class_above(member: Subject, module: str) -> str:
    """Class name of the module that holds an embedding, as far as the architecture tells."""
    architecture = member.base.architecture if member.base else ""
    stem = re.split("For|LMHead", architecture)[0]
    return stem + ("Embeddings" if ".embeddings." in f".{module}" else "Model")


# -- numbers -----------------------------------------------------------------------------------------------------


def _scales(slot: _Slot, other: Subject, old: bool) -> _Problem | None:
    """Whether the swapped tensors are multiplied with another factor than their own."""
    first, differing = slot.member, []
    modules = slot.layers.intersection(other.adapter.modules)
    if not any(member.adapter.get(pattern) for member in (first, other) for pattern in _PATTERNS):
        modules = frozenset(sorted(modules)[:1])  # one for all
    for module in in_model_order(modules):
        try:
            own = _own_scale(other, module)
            used = (
                peft.scale(first.adapter, module) if old else _swapped_scale(other.adapter, module, first.adapter.name)
            )
        except (ValueError, OverflowError):
            unusable = None if old else _unusable(other)
            if unusable is not None:
                return unusable
            continue
        if not isclose(own, used, rel_tol=1e-9):
            differing.append(module)
    if not differing:
        return None
    pattern = next((name for name in _PATTERNS if other.adapter.get(name)), "r")
    reason = f"{first_names(differing, 1)} would be scaled by another factor than its own"
    effect = wrong(_OLD if old else _NEW, operation="hotswap", adapter=other.adapter.name)
    return _Problem(reason, effect, pattern)


def _own_scale(member: Subject, module: str) -> float:
    """The factor with which a module was trained: of the rank that its tensors have."""
    entry = member.adapter.modules[module]
    shape = member.adapter.shape(entry.a) if entry.a else ()
    size, factor = peft.rank(member.adapter, module), peft.scale(member.adapter, module)
    if len(shape) != 2 or entry.a is None or entry.a.kind is not Kind.LORA_A or not shape[0] or shape[0] == size:
        return factor
    return factor * (sqrt(size / shape[0]) if member.adapter.get("use_rslora") is True else size / shape[0])


def _unusable(other: Subject) -> _Problem | None:
    """Since 0.15 the scale is worked out anew, from whatever the config says."""
    size, weight = other.adapter.get("r", peft.DEFAULT_RANK), other.adapter.get("lora_alpha", peft.DEFAULT_ALPHA)
    kinds = [type(value).__name__ for value in (weight, size)]
    if "str" in kinds:
        text = f"TypeError: unsupported operand type(s) for /: '{kinds[0]}' and '{kinds[1]}'"
    elif size == 0:
        text = "ZeroDivisionError: division by zero"
    else:
        return None
    field = "lora_alpha" if kinds[0] == "str" else "r"
    return _Problem(f"{field} is no usable number", _raises(_NEW, text, other), field)


def _swapped_scale(adapter: Adapter, module: str, slot: str) -> float:
    """The factor since 0.15: patterns are held against a tensor's whole name, which they rarely match."""
    name = f"{PREFIX}{module}.lora_A.{slot}.weight"
    size, weight = peft.rank(adapter, name), peft.alpha(adapter, name)
    if not is_positive(size) or not is_positive(weight):
        raise ValueError("no usable scale")
    return float(weight) / (sqrt(size) if adapter.get("use_rslora") is True else float(size))


def _left_behind(slot: _Slot, other: Subject, old: bool) -> _Problem | None:
    """What the first adapter changes besides its LoRA tensors, and what therefore stays."""
    first = slot.member
    stays = [module for module in first.saved_modules if _trained(first, module)]
    stays += [key.full_name for key in altering_keys(first, first.undeclared) if key.module not in slot.layers]
    stays += [key.module for key in first.adapter.of_kind(Kind.TOKENS)]
    stays += [key.module for key in first.adapter.of_kind(Kind.BASE_LAYER) if first.equals_base(key) is not True]
    if not stays:
        return None
    effect = wrong(_OLD if old else _NEW, operation="hotswap", adapter=other.adapter.name)
    return _Problem(f"{first_names(stays)} of the first adapter stays", effect, "modules_to_save")


def _trained(member: Subject, module: str) -> bool:
    """Whether a saved module has a tensor that is not known to be the base's."""
    saved = [key for key in member.adapter.saved.values() if peft.saved_root((module,), key.module) is not None]
    return any(member.equals_base(key) is not True for key in saved)
