"""AL104."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from adapterlint.findings import Effect, Finding, Fix, RemoveConfig, Safety, Severity, pointer_to, raises
from adapterlint.model import schema
from adapterlint.model.adapter import Adapter
from adapterlint.model.features import ON_WHEN_EMPTY
from adapterlint.model.schema import ConfigType, Refusal
from adapterlint.model.subject import Subject, first_names
from adapterlint.releases import version_key
from adapterlint.rules.base import Rule
from adapterlint.rules.config.lokr_scale_change import WITNESS, scaled_modules
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_WITHOUT_MEANING = frozenset({schema.RUNTIME_CONFIG, "peft_version", "auto_mapping", "revision"})
"""Keys that no release takes anything from when it loads an adapter into a given base."""


class KeyOutsideTarget(Rule):
    """## What it does
    Looks for keys that some release does not know and that hold nothing but their default: what the newer PEFT that
    wrote the file would do anyway.

    ## Why is this bad?
    PEFT 0.6 to 0.13 raises `TypeError: LoraConfig.__init__() got an unexpected keyword argument …` for any key that it
    does not know, whatever its value. Releases before and after drop the key, which then changes nothing.

    ## Example
    `"use_dora": false` for a target of PEFT 0.8.

    ## Fix
    Safe: the keys are removed; every release then takes the same default.

    ## References
    - peft#2275, peft#1979, peft#2340, LLaMA-Factory#2696; measured on 0.4.0 to 0.21.2.
    """

    code = "AL104"
    name = "key-outside-target"
    severity = Severity.NOTE
    targeted = True
    damage = "config"

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("keys of every release", lora_config(), llama_tensors()),
            Example("a setting that is no default", lora_config(use_rslora=True), llama_tensors()),
            Example("known since the type exists", {"peft_type": "LOKR", "r": 8, "rank_dropout": 0.0}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("switched off", lora_config(use_dora=False), llama_tensors()),
            Example("no default but off", lora_config(use_rslora=None, loftq_config={}), llama_tensors()),
            Example("the writer's default", lora_config(peft_version="0.18.0", qalora_group_size=16), llama_tensors()),
            Example("removed long ago", lora_config(merge_weights=False), llama_tensors()),
            Example("another type", {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "tokenizer_kwargs": None}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        kind = schema.config_type(adapter.peft_type)
        if kind is None or adapter.config is None:
            return
        refused = schema.refused_keys(kind.name, tuple(adapter.config))
        keys = {key: parts for key, parts in refused.items() if holds_default(adapter, kind, key, adapter.config[key])}
        if not keys:
            return
        names = first_names(map(repr, keys))
        one = len(keys) == 1
        yield self.finding(
            f"{names} {'holds its default' if one else 'hold their defaults'}, but a release between 0.6 and 0.13 that "
            f"does not know {'the key' if one else 'one of the keys'} refuses the file",
            subject.at_config(pointer_to(next(iter(keys))), on_key=True),
            related=tuple(subject.at_config(pointer_to(key), "default too", on_key=True) for key in list(keys)[1:4]),
            effects=_effects(kind.name, tuple(adapter.config), tuple(keys)),
            fix=_fix([key for key in keys if not _is_needed(adapter, kind, key)]),
        )


def _fix(keys: list[str]) -> Fix | None:
    edits = tuple(RemoveConfig(pointer_to(key)) for key in keys)
    return Fix(f"Remove {first_names(map(repr, keys))}", Safety.SAFE, edits) if keys else None


def _is_needed(adapter: Adapter, kind: ConfigType, key: str) -> bool:
    """Whether a release would do something else without the key.

    So it is where the default changed, and where the key is what tells one generation of a method from another.
    """
    if kind.name == "LOKR" and key == WITNESS:
        return bool(scaled_modules(adapter))
    if kind.name == "OFT" and key in ("peft_version", "oft_block_size"):
        return True
    stretches = kind.fields.get(key, ())
    return any(stretch.default != stretches[0].default for stretch in stretches)


@lru_cache(maxsize=256)
def _effects(peft_type: str, config: tuple[str, ...], keys: tuple[str, ...]) -> tuple[Effect, ...]:
    """What refuses a config for some of its keys: parts of one refusal once, as wide as all of them together."""
    refused = schema.refused_keys(peft_type, config)
    found: dict[str, Refusal] = {}
    for part in (part for key in keys for part in refused[key]):
        known = found.setdefault(part.key, part)
        since = min(known.since, part.since, key=version_key)
        before = max(known.before, part.before, key=version_key)
        found[part.key] = part._replace(since=since, before=before)
    parts = sorted(found.values(), key=lambda part: version_key(part.since))
    return tuple(raises(part.targets, part.exception) for part in parts)


def holds_default(adapter: Adapter, kind: ConfigType, key: str, value: Any) -> bool:
    """Whether a key can go without any release doing something else.

    The default is the one of the release that wrote the file; where the file does not say which, of the newest.
    """
    if key in _WITHOUT_MEANING:
        return True
    removed = schema.REMOVED_FIELDS.get(kind.name, {})
    if key in removed:
        return schema.same_value(value, removed[key])
    if key not in kind.fields or (key in ON_WHEN_EMPTY and value is not None):
        return False
    writer = adapter.get("peft_version")
    default = schema.default_in(kind.fields[key], writer if isinstance(writer, str) else None)
    return schema.same_value(value, default)
