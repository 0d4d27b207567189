"""Config values that only some releases understand although all of them know the key.

Measured on 0.4.0 to 0.21.2, bounds between measured releases read in PEFT's sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from adapterlint.findings import Effect, raises, unknown, wrong
from adapterlint.model import features, peft, schema
from adapterlint.model.defaults import default_since
from adapterlint.model.keys import PROMPT_TYPES, Kind
from adapterlint.model.subject import Subject
from adapterlint.releases import version_key

BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How the initialisations that take a part of the base's weights into the adapter begin."""

_NO_TARGETS = "ValueError: Please specify `target_modules` in `peft_config`"
_NO_TARGETS_017 = "ValueError: Please specify `target_modules` or `target_parameters`in `peft_config`"
_ADALORA_DROPOUT = (
    "TypeError: peft.tuners.adalora.AdaLoraLayer.update_layer.<locals>.lora_dropout_layer is not a Module subclass"
)
_MEGATRON = "ModuleNotFoundError: No module named 'megatron'"


class Newer(NamedTuple):
    """A value and what becomes of it in releases that do not understand it.

    Attributes:
        key: the config key.
        message: what it needs.
        effects: what the other releases do.
    """

    key: str
    message: str
    effects: tuple[Effect, ...]


def newer_values(subject: Subject) -> Iterator[Newer]:
    """The values of a config that some release does not understand."""
    yield from _type(subject)
    if schema.config_type(subject.adapter.peft_type) is None:
        return
    yield from _all_linear(subject)
    if subject.adapter.is_lora:
        yield from _initialisation(subject)
        yield from _alpha_keys(subject)
        yield from _null_targets(subject)
        yield from _no_layers(subject)
        yield from _environment(subject)
    if subject.adapter.peft_type == "ADALORA":
        yield from _adalora(subject)


def _type(subject: Subject) -> Iterator[Newer]:
    kind = schema.config_type(subject.adapter.peft_type)
    if kind is None:
        return
    effects = []
    text = f"KeyError: {kind.name!r}"
    if version_key(kind.since) > version_key("0.3.0"):
        effects.append(raises(f"peft<{kind.since}", text))
    if kind.before:
        effects.append(raises(f"peft>={kind.before}", text))
    if effects:
        until = f" and older than {kind.before}" if kind.before else " or newer"
        yield Newer("peft_type", f"peft_type {kind.name!r} needs PEFT {kind.since}{until}", tuple(effects))


def _all_linear(subject: Subject) -> Iterator[Newer]:
    value = subject.adapter.get("target_modules")
    if isinstance(value, str) and value.lower() == "all-linear" and subject.adapter.peft_type not in PROMPT_TYPES:
        text = f"ValueError: {peft.not_found(value)}"
        yield Newer("target_modules", "'all-linear' needs PEFT 0.8.0 or newer", (raises("peft<0.8", text),))


def makes_linear(subject: Subject) -> bool:
    """Whether a LoRA layer other than an embedding's is made, as far as the stored tensors tell."""
    modules = subject.adapter.modules.values()
    return not modules or any(Kind.EMBEDDING_A not in entry.by_kind for entry in modules)


def _initialisation(subject: Subject) -> Iterator[Newer]:
    value = subject.adapter.get("init_lora_weights")
    kind = schema.config_type("LORA")
    if not isinstance(value, str) or not value or kind is None or not makes_linear(subject):
        return
    stretches = kind.fields["init_lora_weights"]
    if not schema.fits(value, stretches[-1].kind):
        return
    spans = schema.misfits(stretches, value)
    text = f"ValueError: Unknown initialization init_lora_weights={value!r}"
    if spans:
        since = spans[-1][1]
        message = f"init_lora_weights {value!r} needs PEFT {since} or newer"
        yield Newer("init_lora_weights", message, tuple(raises(schema.span_text(span), text) for span in spans))


def _alpha_keys(subject: Subject) -> Iterator[Newer]:
    effects = []
    if features.alpha_era(subject, "combined"):
        effects.append(wrong("peft>=0.6,<0.14"))
    if features.alpha_era(subject, "dotted"):
        effects.append(wrong("peft>=0.14,<0.15"))
    if effects:
        message = "alpha_pattern has keys that PEFT before 0.15 matches otherwise (anchors, or keys that compete)"
        yield Newer("alpha_pattern", message, tuple(effects))


def _null_targets(subject: Subject) -> Iterator[Newer]:
    adapter, base = subject.adapter, subject.base
    if base is None or not base.model_type or adapter.get("target_modules") is not None:
        return
    if adapter.get("target_parameters"):
        return
    since = default_since(base.model_type)
    newest = ".".join(map(str, since)) if since else None
    effects = [
        raises(schema.span_text(span), text)
        for low, high, text in (("0.3.0", "0.17.0", _NO_TARGETS), ("0.17.0", None, _NO_TARGETS_017))
        if (span := schema.clip((low, high), "0.3.0", newest))
    ]
    if effects:
        which = f"PEFT before {newest} does" if newest else "PEFT does"
        message = f"target_modules is null, and {which} not know which modules {base.model_type!r} has"
        yield Newer("target_modules", message, tuple(effects))


def _no_layers(subject: Subject) -> Iterator[Newer]:
    adapter = subject.adapter
    targets = adapter.get("target_modules")
    if adapter.get("layers_to_transform") == [] and isinstance(targets, list):
        old, new = f"{targets!r}", "{" + ", ".join(map(repr, targets)) + "}"
        effects = (
            raises("peft>=0.4,<0.6", f"ValueError: {peft.not_found(old)}"),
            raises("peft>=0.6,<0.8", f"ValueError: {peft.not_found(new)}"),
        )
        message = "an empty layers_to_transform means every layer since PEFT 0.8.0, and no layer before"
        yield Newer("layers_to_transform", message, effects)


def _environment(subject: Subject) -> Iterator[Newer]:
    if subject.adapter.get("megatron_config"):
        message = "megatron_config is set, so PEFT 0.7.0 or newer imports Megatron-Core (pip install megatron-core)"
        # a config with use_dora raises earlier, since PEFT 0.9 and by AL109
        targets = "peft>=0.7,<0.9" if subject.adapter.get("use_dora") else "peft>=0.7"
        yield Newer("megatron_config", message, (raises(targets, _MEGATRON),))
    blocks = subject.adapter.get("use_bdlora")
    named = ("target_modules_bd_a", "target_modules_bd_b")
    if isinstance(blocks, dict) and blocks.get("match_strict") is not False and not any(map(blocks.get, named)):
        message = "use_bdlora names no modules for its blocks, and PEFT 0.19 or newer wants every target among them"
        text = "ValueError: Target"
        if subject.selected:
            text += f" {subject.selected[0]} matches neither A nor B block-diagonal patterns."
        yield Newer("use_bdlora", message, (raises("peft>=0.19", text),))
    if subject.adapter.get("arrow_config"):
        message = "arrow_config makes this a router over other LoRA adapters, which have to be loaded before it"
        yield Newer("arrow_config", message, (unknown("peft>=0.18"),))


def _adalora(subject: Subject) -> Iterator[Newer]:
    dropout = subject.adapter.get("lora_dropout", 0.0)
    if isinstance(dropout, (int, float)) and dropout > 0:
        text = "AttributeError: 'PreTrainedModel' object has no attribute 'trainable_adapter_name'"
        if subject.base is not None and subject.base.architecture:
            text = text.replace("PreTrainedModel", subject.base.architecture)
        effect = raises("peft<0.5", text, stage="after_load")
    else:
        effect = raises("peft<0.5", _ADALORA_DROPOUT)
    yield Newer("peft_type", "AdaLoRA can be loaded for inference since PEFT 0.5.0", (effect,))
