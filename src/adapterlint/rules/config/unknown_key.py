"""AL103."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adapterlint.findings import Effect, Finding, Fix, RemoveConfig, Safety, SetConfig, Severity, pointer_to, raises
from adapterlint.model import schema
from adapterlint.model.adapter import Adapter
from adapterlint.model.features import tempered
from adapterlint.model.schema import ConfigType
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.target import bundled
from adapterlint.releases import version_key
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_SELF = "TypeError: {name}.__init__() got multiple values for argument 'self'"
_CLS = "TypeError: PeftConfigMixin.{method}() got multiple values for argument 'cls'"


class UnknownKey(Rule):
    """## What it does
    Looks for config keys that no PEFT release knows for this `peft_type`, and says which one was likely meant.

    ## Why is this bad?
    PEFT 0.6 to 0.13 raises `TypeError: LoraConfig.__init__() got an unexpected keyword argument …`. Older and newer
    releases leave the key out, so that a misspelt setting silently has its default.

    ## Example
    `"lora_aplha": 16`

    ## Fix
    Unsafe: a misspelt key is renamed, another one removed. Safe: a key is removed that says nothing: null, false or
    empty.

    ## References
    - PEFT `config.py`, `from_pretrained`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL103"
    name = "unknown-key"
    severity = Severity.WARNING
    damage = "config"

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("known keys", lora_config(), llama_tensors()),
            Example("a key of a later release", lora_config(use_dora=False, eva_config=None), llama_tensors()),
            Example("removed long ago", lora_config(merge_weights=False, enable_lora=None), llama_tensors()),
            Example("taken out of every file", lora_config(runtime_config={}), llama_tensors()),
            Example("a type that nobody knows", {"peft_type": "SUPERLORA", "power": 9000}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("misspelt", lora_config(lora_alpha=..., lora_aplha=8), llama_tensors()),
            Example("a note", lora_config(_note="trained on Tuesday"), llama_tensors()),
            Example("a flag that is off", lora_config(use_magic=False), llama_tensors()),
            Example("a field of another type", {"peft_type": "IA3", "target_modules": ["k_proj"], "lora_alpha": 8}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        yield from tempered(subject, self._findings(subject))

    def _findings(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        kind = schema.config_type(adapter.peft_type)
        if kind is None or adapter.config is None:
            return
        known = {*kind.fields, *schema.REMOVED_FIELDS.get(kind.name, {}), schema.RUNTIME_CONFIG}
        unknown = [key for key in adapter.config if key not in known]
        newer = _written_by_newer(adapter)
        other = []
        for key in unknown:
            meant = None if newer else schema.similar(key, kind.fields)
            if meant is None:
                other.append(key)
            else:
                yield self._misspelt(subject, kind, key, meant)
        if other:
            yield self._other(subject, kind, other, newer)

    def _misspelt(self, subject: Subject, kind: ConfigType, key: str, meant: str) -> Finding:
        config = subject.adapter.config or {}
        edits: list[SetConfig | RemoveConfig] = [RemoveConfig(pointer_to(key))]
        if meant not in config:
            edits.insert(0, SetConfig(pointer_to(meant), config[key]))
        title = f"Rename {key!r} to {meant!r}" if meant not in config else f"Remove {key!r}"
        return self.finding(
            f"{key!r} is no field of {kind.class_name}; did you mean {meant!r}?",
            subject.at_config(pointer_to(key), on_key=True),
            effects=_effects(subject, kind, [key]),
            fix=Fix(title, Safety.UNSAFE, tuple(edits)),
        )

    def _other(self, subject: Subject, kind: ConfigType, keys: list[str], newer: str | None) -> Finding:
        one = len(keys) == 1
        message = f"{first_names(map(repr, keys))} {'is no field' if one else 'are no fields'} of {kind.class_name}"
        message += f"; the file was written by PEFT {newer}, which may know more" if newer else " in any PEFT release"
        idle = all(_says_nothing((subject.adapter.config or {})[key]) for key in keys)
        fix = Fix(
            f"Remove {first_names(map(repr, keys))}",
            Safety.SAFE if idle else Safety.UNSAFE,
            tuple(RemoveConfig(pointer_to(key)) for key in keys),
        )
        return self.finding(
            message,
            subject.at_config(pointer_to(keys[0]), on_key=True),
            related=tuple(subject.at_config(pointer_to(key), "unknown too", on_key=True) for key in keys[1:4]),
            effects=_effects(subject, kind, keys),
            fix=None if newer else fix,
            severity=Severity.NOTE if newer else None,
        )


def _says_nothing(value: Any) -> bool:
    """Whether a setting of this value is one that is not made, whatever it is."""
    return value is None or value is False or value in ("", [], {})


def _written_by_newer(adapter: Adapter) -> str | None:
    """The writer's release, if it is newer than every release in the tables (or a build on the way to one)."""
    version = adapter.get("peft_version")
    if not isinstance(version, str):
        return None
    key, newest = version_key(version), version_key(bundled()[-1].version)
    return version if key > newest or (key == newest and "dev" in version) else None


def _effects(subject: Subject, kind: ConfigType, keys: Sequence[str]) -> tuple[Effect, ...]:
    effects = [
        raises(refusal.targets, refusal.exception)
        for refusal in schema.refusals(kind.name, subject.adapter.config or {})
    ]
    if "self" in keys:
        effects.append(raises("peft>=0.14", _SELF.format(name=kind.class_name)))
    if "cls" in keys:
        effects.append(raises("peft>=0.14", _CLS.format(method="check_kwargs")))
    return tuple(effects)
