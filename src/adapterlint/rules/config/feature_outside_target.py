"""AL105."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, isqrt, sqrt

from adapterlint.findings import (
    Edit,
    Effect,
    Finding,
    Fix,
    RemoveConfig,
    Safety,
    SetConfig,
    Severity,
    pointer_to,
    raises,
    unknown,
    wrong,
)
from adapterlint.model import features, peft, schema
from adapterlint.model.adapter import stored_rank
from adapterlint.model.keys import Key
from adapterlint.model.newer import Newer, newer_values
from adapterlint.model.schema import ConfigType, Span
from adapterlint.model.subject import Subject
from adapterlint.model.target import bundled
from adapterlint.releases import version_key
from adapterlint.rules.base import Rule
from adapterlint.rules.config.key_outside_target import holds_default
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.rank_mismatch import is_read, size_mismatch
from adapterlint.rules.tensors.uncovered_tensor import derive_targets


class FeatureOutsideTarget(Rule):
    """## What it does
    Looks for settings that some releases do not have: a key with another value than its default, a `peft_type`, or a
    value (`"all-linear"`, an initialisation, an anchored pattern) that came later than its key.

    ## Why is this bad?
    PEFT 0.6 to 0.13 raises for a key that it does not know. Older releases, and newer ones where the key is newer
    still, leave it out without an exception: where the tensors depend on it, the answers are wrong.

    ## Example
    `"use_rslora": true` for a target of PEFT 0.7 (raises) or 0.5 (scales wrongly).

    ## Fix
    Safe where the setting can be said in older words: rsLoRA as another `lora_alpha`, `all-linear` and
    `exclude_modules` as a list of targets, an initialisation as `true`, anchored patterns as full names; keys that
    only steered training are removed. For anything else a newer PEFT is needed.

    ## References
    - PEFT release notes; measured on 0.4.0 to 0.21.2 with adapters that have each feature.
    """

    code = "AL105"
    name = "feature-outside-target"
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        base = llama_base()
        return [
            Example("nothing new", lora_config(), llama_tensors()),
            Example("switched off", lora_config(use_rslora=False, exclude_modules=None), llama_tensors()),
            Example("an old initialisation", lora_config(init_lora_weights=False), llama_tensors()),
            Example("default targets of every release", lora_config(target_modules=None), llama_tensors(), base),
            Example("the key is no field", lora_config(use_magic=True), llama_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        lokr = {"peft_type": "LOKR", "r": 8, "alpha": 8, "target_modules": ["q_proj"]}
        return [
            Example("rsLoRA", lora_config(use_rslora=True), llama_tensors()),
            Example("a pattern that matches", lora_config(alpha_pattern={"q_proj": 2}), llama_tensors()),
            Example("all-linear", lora_config(target_modules="all-linear"), llama_tensors()),
            Example("an initialisation", lora_config(init_lora_weights="eva"), llama_tensors()),
            Example("a type", lokr),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        kind = schema.config_type(adapter.peft_type)
        if kind is None or adapter.config is None:
            return
        refused = schema.refused_keys(kind.name, tuple(adapter.config))
        for key in schema.unsettled_keys(kind.name, tuple(adapter.config)):
            if holds_default(adapter, kind, key, adapter.config[key]):
                continue
            effects = [raises(part.targets, part.exception) for part in refused.get(key, ())]
            effects += _dropped(subject, kind, key)
            if effects:
                yield self._key(subject, kind, key, tuple(effects))
        for newer in newer_values(subject):
            yield self._value(subject, newer)

    def _key(self, subject: Subject, kind: ConfigType, key: str, effects: tuple[Effect, ...]) -> Finding:
        message = f"{key} is set, which {_known_in(kind, key)}"
        place = subject.at_config(pointer_to(key))
        return _quiet(self.finding(message, place, effects=effects, fix=_fix(subject, key)))

    def _value(self, subject: Subject, newer: Newer) -> Finding:
        fix = _value_fix(subject, newer.key)
        return _quiet(self.finding(newer.message, subject.at_field(newer.key), effects=newer.effects, fix=fix))


def _quiet(finding: Finding) -> Finding:
    """The finding, to be reported for a target only if nothing since PEFT 0.6 is affected: few use what is older."""
    recent = [target for target in bundled() if version_key(target.version) >= version_key(schema.STRICT_SINCE)]
    ranges = [effect.targets for effect in finding.effects]
    hit = any(target.within(span) for span in ranges for target in recent)
    return finding if hit else finding._replace(targeted=True)


def _known_in(kind: ConfigType, key: str) -> str:
    stretches = kind.fields[key]
    since, before = stretches[0].since, stretches[-1].before
    first = "" if version_key(since) <= version_key(kind.since) else f"needs PEFT {since} or newer"
    last = f"PEFT {before} and newer no longer know" if before and before != kind.before else ""
    return " and ".join(part for part in (first, last) if part) or f"needs a {kind.name} of PEFT {since}"


def _dropped(subject: Subject, kind: ConfigType, key: str) -> Iterator[Effect]:
    """What the releases that drop the key without an exception then do."""
    spans = schema.ignoring_spans(kind, key)
    loss = features.lost(subject, key) if spans else "nothing"
    for span in spans:
        if loss == "wrong":
            yield wrong(schema.span_text(span))
        elif loss == "unknown":
            yield unknown(schema.span_text(span))
        elif loss == "shapes":
            yield from _other_shapes(subject, span)
        elif loss == "targets":
            shown = "[]" if version_key(span[0]) < version_key(schema.STRICT_SINCE) else "set()"
            yield raises(schema.span_text(span), f"ValueError: {peft.not_found(shown)}")


def _other_shapes(subject: Subject, span: Span) -> Iterator[Effect]:
    mismatched = features.mismatched(subject)
    for module in mismatched or list(subject.covered):
        entry = subject.adapter.modules[module]
        key = entry.a or entry.b
        if key is not None and is_read(key) and (not mismatched or _other_rank(subject, key)):
            yield size_mismatch(subject, key, schema.span_text(span))
            return


def _other_rank(subject: Subject, key: Key) -> bool:
    """Whether the stored rank is another than ``r``, which is all that releases without patterns know."""
    return bool(stored_rank(key.kind, subject.adapter.shape(key)) != subject.adapter.get("r", peft.DEFAULT_RANK))


def _fix(subject: Subject, key: str) -> Fix | None:
    if key == "use_rslora" and subject.adapter.is_lora and features.meant(subject.adapter.get(key)):
        return _without_rslora(subject)
    if key == "exclude_modules":
        return _listed(subject, (RemoveConfig("/exclude_modules"),))
    if key in features.STEERS_TRAINING and not _starts_from(subject, key):
        return Fix(f"Remove {key}, which only steered training", Safety.SAFE, (RemoveConfig(pointer_to(key)),))
    return None


def _starts_from(subject: Subject, key: str) -> bool:
    """Whether the initialisation that the adapter names reads this key when the adapter is loaded."""
    value = subject.adapter.get("init_lora_weights")
    return isinstance(value, str) and key.startswith(value)


def _value_fix(subject: Subject, key: str) -> Fix | None:
    adapter = subject.adapter
    if key == "target_modules":
        return _listed(subject)
    if key == "init_lora_weights" and adapter.get(key) in ("eva", "orthogonal", "mica"):
        edits = (SetConfig("/init_lora_weights", True),)
        return Fix("Set init_lora_weights to true: the stored tensors replace it anyway", Safety.SAFE, edits)
    if key == "layers_to_transform":
        return Fix("Set layers_to_transform to null", Safety.SAFE, (SetConfig("/layers_to_transform", None),))
    if key == "alpha_pattern":
        default = adapter.get("lora_alpha", peft.DEFAULT_ALPHA)
        found = {module: peft.alpha(adapter, module) for module in subject.covered}
        names = {module: value for module, value in found.items() if value != default}
        edits = (SetConfig("/alpha_pattern", names),)
        return Fix("Name the modules of alpha_pattern in full", Safety.SAFE, edits)
    return None


def _without_rslora(subject: Subject) -> Fix | None:
    """rsLoRA is a scale of alpha / sqrt(r): another alpha says the same, exactly where the root is a whole number."""
    adapter = subject.adapter
    r, alpha = adapter.get("r", peft.DEFAULT_RANK), adapter.get("lora_alpha", peft.DEFAULT_ALPHA)
    whole = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in (r, alpha))
    if not whole or not isinstance(r, int) or r <= 0 or adapter.get("rank_pattern") or adapter.get("alpha_pattern"):
        return None
    if features.number_in(alpha) in (inf, -inf) or features.number_in(r) == inf:
        return None
    exact = isqrt(r) ** 2 == r and isinstance(alpha, int)
    folded = alpha * isqrt(r) if exact else alpha * sqrt(r)
    if features.number_in(folded) in (inf, -inf):
        return None
    safety = Safety.SAFE if exact else Safety.UNSAFE
    edits = (SetConfig("/lora_alpha", folded), RemoveConfig("/use_rslora"))
    return Fix(f"Say the same scale without rsLoRA: lora_alpha {float(folded):g}", safety, edits)


def _listed(subject: Subject, more: tuple[Edit, ...] = ()) -> Fix | None:
    names = derive_targets(subject) if subject.adapter.is_lora else None
    if names is None:
        return None
    shown = names if len(names) <= 4 else f"{len(names)} names"
    return Fix(f"Set target_modules to {shown}", Safety.SAFE, (SetConfig("/target_modules", names), *more))
