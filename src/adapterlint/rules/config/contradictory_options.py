"""AL109."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from adapterlint.findings import Effect, Finding, Fix, RemoveConfig, Safety, SetConfig, Severity, raises, wrong
from adapterlint.model import schema
from adapterlint.model.features import tempered
from adapterlint.model.keys import Kind
from adapterlint.model.schema import ConfigType
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.tensors.uncovered_tensor import derive_targets, list_targets

# First releases whose config class has the check, by type.
_TEXT_TARGETS = {
    "LORA": "0.6.0",
    "ADALORA": "0.11.0",
    "BONE": "0.14.0",
    "C3A": "0.16.0",
    "DEFT": "0.20.0",
    "DELORA": "0.18.0",
    "FOURIERFT": "0.12.0",
    "HIRA": "0.20.0",
    "HRA": "0.12.0",
    "MISS": "0.17.0",
    "PSOFT": "0.19.0",
    "SHADOW": "0.21.0",
    "UNILORA": "0.20.0",
    "WAVEFT": "0.18.0",
}
_LAYERS_ONLY = frozenset({"DELORA"})  # its class checks layers_to_transform, not layers_pattern
_LONE_PATTERN = {
    **dict.fromkeys(
        ("ADALORA", "BOFT", "FOURIERFT", "HRA", "LOHA", "LOKR", "LORA", "OFT", "VBLORA", "VERA"),
        "0.14.0",
    ),
    **dict.fromkeys(("DELORA", "WAVEFT"), "0.18.0"),
    **dict.fromkeys(("LILY", "PEANUT", "PSOFT", "PVERA", "TINYLORA"), "0.19.0"),
    **dict.fromkeys(("DEFT", "FROD"), "0.20.0"),
    "SHADOW": "0.21.0",
}
_SCHEDULE = (
    "ValueError: The supplied schedule values don't allow for a budgeting phase. Decrease `tfinal`/`tinit` or "
    "increase `total_step`."
)


class Contradiction(NamedTuple):
    """Options that a config class refuses together.

    Attributes:
        key: the option that has to give way.
        message: what contradicts what.
        effects: what releases do.
        value: the value that ends it without changing what the adapter does.
        fixable: whether there is such a value.
    """

    key: str
    message: str
    effects: tuple[Effect, ...]
    value: Any = None
    fixable: bool = False


class ContradictoryOptions(Rule):
    """## What it does
    Applies the checks that PEFT's config classes make across fields: layers for targets given as a regular expression,
    `layers_pattern` without layers, `lora_bias` with DoRA or a special initialisation, DoRA with Megatron, IA3's
    feed-forward modules that are no targets, AdaLoRA without `total_step`.

    ## Why is this bad?
    The config class raises before anything is loaded. Releases from before the check loaded the same file, so that
    adapters of that time break when PEFT is updated.

    ## Example
    `"layers_pattern": "layers"` with `"layers_to_transform": null`: fine up to 0.13, a ValueError since 0.14.

    ## Fix
    Safe: a `layers_pattern` that has no layers to apply to is set to null, AdaLoRA gets a `total_step`, which only its
    training reads; what goes with a list of targets only gets one, of the modules that have tensors; of `lora_bias` and
    `use_dora` the one without tensors goes. Unsafe: `megatron_config` goes, for a DoRA that is loaded elsewhere. None
    where both options have tensors, or a value is missing that only training knew.

    ## References
    - PEFT `__post_init__` of the config classes; measured on 0.4.0 to 0.21.2.
    """

    code = "AL109"
    name = "contradictory-options"
    severity = Severity.ERROR
    damage = "config"

    @staticmethod
    def valid() -> list[AnyExample]:
        layers = lora_config(layers_to_transform=[0, 1], layers_pattern="layers")
        return [
            Example("layers and their pattern", layers, llama_tensors()),
            Example("a regular expression alone", lora_config(target_modules=".*(q|v)_proj"), llama_tensors()),
            Example("lora_bias", lora_config(lora_bias=True, init_lora_weights=False), llama_tensors()),
            Example("AdaLoRA", {"peft_type": "ADALORA", "total_step": 100, "init_r": 4}),
            Example("IA3", {"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        regex = ".*(q|v)_proj"
        return [
            Example("a lone pattern", lora_config(layers_pattern="layers"), llama_tensors()),
            Example("layers of a text", lora_config(target_modules=regex, layers_to_transform=[0]), llama_tensors()),
            Example("bias and DoRA", lora_config(lora_bias=True, use_dora=True), llama_tensors()),
            Example("bias and eva", lora_config(lora_bias=True, init_lora_weights="eva"), llama_tensors()),
            Example("DoRA and Megatron", lora_config(use_dora=True, megatron_config={"a": 1}), llama_tensors()),
            Example("an odd rank", lora_config(r=3, init_lora_weights="orthogonal"), llama_tensors(3)),
            Example("parameters as text", lora_config(target_parameters="experts.up"), llama_tensors()),
            Example("AdaLoRA without steps", {"peft_type": "ADALORA", "total_step": None}),
            Example("IA3", {"peft_type": "IA3", "target_modules": ["k"], "feedforward_modules": ["mlp"]}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        yield from tempered(subject, self._findings(subject))

    def _findings(self, subject: Subject) -> Iterator[Finding]:
        kind = schema.config_type(subject.adapter.peft_type)
        config = subject.adapter.config
        if kind is None or config is None:
            return
        for item in (*_layers(kind, config), *_by_type(kind, config)):
            fix = None
            if item.fixable:
                edits = (SetConfig(f"/{item.key}", item.value),)
                fix = Fix(f"Set {item.key} to {'null' if item.value is None else item.value}", Safety.SAFE, edits)
            elif subject.adapter.is_lora and subject.adapter.readable:
                fix = _shown(subject, item.key)
            yield self.finding(item.message, subject.at_field(item.key), effects=item.effects, fix=fix)


def _shown(subject: Subject, key: str) -> Fix | None:
    """What the tensors show to be meant."""
    adapter = subject.adapter
    kinds = {stored.kind for stored in adapter.keys}
    if key in ("layers_to_transform", "layers_pattern"):
        names = derive_targets(subject)
        return list_targets(subject, names) if names else None
    if key == "lora_bias" and not {Kind.LORA_BIAS, Kind.MAGNITUDE} <= kinds:
        idle = "lora_bias" if Kind.LORA_BIAS not in kinds else "use_dora"
        return Fix(f"Remove {idle}, of which no tensor is stored", Safety.SAFE, (RemoveConfig(f"/{idle}"),))
    if key == "use_dora" and adapter.get("megatron_config"):
        return Fix("Remove megatron_config", Safety.UNSAFE, (RemoveConfig("/megatron_config"),))
    return None


def _by_type(kind: ConfigType, config: Any) -> Iterator[Contradiction]:
    if kind.name == "LORA":
        yield from _lora(config)
    elif kind.name == "ADALORA":
        yield from _adalora(config)
    elif kind.name == "IA3":
        yield from _ia3(config)
    elif kind.name == "PROMPT_TUNING":
        yield from _prompt(config)


def _layers(kind: ConfigType, config: Any) -> Iterator[Contradiction]:
    layers, pattern = config.get("layers_to_transform"), config.get("layers_pattern")
    if isinstance(config.get("target_modules"), str) and kind.name in _TEXT_TARGETS:
        for key, value in (("layers_to_transform", layers), ("layers_pattern", pattern)):
            if value is None or key not in kind.fields or (key == "layers_pattern" and kind.name in _LAYERS_ONLY):
                continue
            text = f"ValueError: `{key}` cannot be used when `target_modules` is a str."
            effects = (raises(f"peft>={_TEXT_TARGETS[kind.name]}", text),)
            message = f"{key} is set, which works with a list of target_modules only, not with a text"
            empty = isinstance(value, (list, str, dict)) and not value
            yield Contradiction(key, message, effects, fixable=empty)
        return
    if pattern and not layers and kind.name in _LONE_PATTERN:
        text = "ValueError: When `layers_pattern` is specified, `layers_to_transform` must also be specified. "
        until = "" if layers is None else ",<0.21"
        effects = (raises(f"peft>={_LONE_PATTERN[kind.name]}{until}", text),)
        message = f"layers_pattern is set but layers_to_transform is {'null' if layers is None else layers}"
        yield Contradiction("layers_pattern", message, effects, fixable=layers is None or layers == [])


def _lora(config: Any) -> Iterator[Contradiction]:
    start = config.get("init_lora_weights", True)
    if config.get("lora_bias"):
        if start not in (True, False):
            text = (
                "ValueError: The argument lora_bias=True is only supported with init_lora_weights=True or False, "
                f"got init_lora_weights={start} instead."
            )
            yield Contradiction(
                "init_lora_weights",
                f"lora_bias works with an init_lora_weights of true or false only, not with {start!r}",
                (raises("peft>=0.14", text),),
                value=True,
                fixable=start is None or start in ("gaussian", "eva", "orthogonal", "mica"),
            )
        if config.get("use_dora"):
            text = "ValueError: The argument lora_bias=True is not supported for DoRA, please pass use_dora=False"
            yield Contradiction("lora_bias", "lora_bias and use_dora exclude each other", (raises("peft>=0.14", text),))
    if config.get("use_dora") and config.get("megatron_config"):
        text = "ValueError: DoRA does not support megatron_core"
        both = (
            raises("peft>=0.9,<0.10", f"{text} or LoftQ. Please set `use_dora=False`."),
            raises("peft>=0.10", f"{text}, please set `use_dora=False`."),
        )
        yield Contradiction("use_dora", "use_dora does not go with megatron_config", both)
    ranks = config.get("rank_pattern") or {}
    odd = [size for size in (config.get("r", 8), *(ranks.values() if isinstance(ranks, dict) else ())) if _odd(size)]
    if start == "orthogonal" and odd:
        text = f"ValueError: Orthogonal initialization requires the LoRA rank to be even, got {odd[0]} instead."
        message = f"init_lora_weights is orthogonal, which needs an even rank, not {odd[0]}"
        yield Contradiction("init_lora_weights", message, (raises("peft>=0.16", text),), True, fixable=True)
    if config.get("alora_invocation_tokens") and config.get("task_type") != "CAUSAL_LM":
        message = "alora_invocation_tokens are looked for in causal language models only: task_type is not CAUSAL_LM"
        yield Contradiction("task_type", message, (wrong("peft>=0.18", inert=True),))
    if isinstance(config.get("target_parameters"), str):
        text = "TypeError: `target_parameters` must be a list of strings or None."
        effects = (raises("peft>=0.17", text),)
        names, message = [config["target_parameters"]], "target_parameters is a text; it is a list"
        yield Contradiction("target_parameters", message, effects, names, fixable=True)


def _adalora(config: Any) -> Iterator[Contradiction]:
    if config.get("use_dora"):
        effects = (raises("peft>=0.11", "ValueError: PeftType.ADALORA does not support DoRA."),)
        yield Contradiction("use_dora", "AdaLoRA does not support DoRA", effects)
    if config.get("loftq_config"):
        effects = (raises("peft>=0.11,<0.14", "ValueError: PeftType.ADALORA does not support LOFTQ."),)
        yield Contradiction("loftq_config", "AdaLoRA does not support LoftQ", effects, {}, fixable=True)
    steps, first, last = config.get("total_step"), config.get("tinit", 0), config.get("tfinal", 0)
    if not all(_whole(item) for item in (first, last)):
        return
    enough = first + last + 1
    if steps is None or (_whole(steps) and steps <= 0):
        text = "ValueError: AdaLoRA does not work when `total_step` is None, supply a value > 0."
        effects = (raises("peft>=0.15", text),)
        message = "AdaLoRA has no total_step, which PEFT asks for since 0.15 although only training reads it"
        yield Contradiction("total_step", message, effects, max(enough, 1), fixable=True)
    elif _whole(steps) and first >= steps - last:
        message = f"AdaLoRA's tinit {first} and tfinal {last} leave nothing of a total_step of {steps}"
        yield Contradiction("total_step", message, (raises("peft>=0.15", _SCHEDULE),), enough, fixable=True)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _odd(value: Any) -> bool:
    return _whole(value) and value % 2 == 1


def _ia3(config: Any) -> Iterator[Contradiction]:
    targets, forward = config.get("target_modules"), config.get("feedforward_modules")
    if isinstance(targets, list) and isinstance(forward, list):
        extra = [name for name in forward if name not in targets]
        if extra:
            text = "ValueError: `feedforward_modules` should be a subset of `target_modules`"
            message = f"feedforward_modules names {extra[0]!r}, which target_modules does not"
            yield Contradiction("feedforward_modules", message, (raises("peft>=0.6.1", text),))


def _prompt(config: Any) -> Iterator[Contradiction]:
    start = config.get("prompt_tuning_init", "RANDOM")
    if start == "TEXT":
        for key in ("tokenizer_name_or_path", "prompt_tuning_init_text"):
            value = config.get(key)
            if value is None or (key == "tokenizer_name_or_path" and not value):
                text = f"ValueError: When prompt_tuning_init='TEXT', {key} can't be {value}."
                effects = (raises("peft>=0.10", text),)
                yield Contradiction(key, f"prompt_tuning_init is TEXT but {key} is not set", effects)
                return
    elif config.get("tokenizer_kwargs"):
        text = "ValueError: tokenizer_kwargs only valid when using prompt_tuning_init='TEXT'."
        message = f"tokenizer_kwargs is set, which only a prompt_tuning_init of TEXT reads, not {start!r}"
        effects = (raises("peft>=0.7", text),)
        yield Contradiction("tokenizer_kwargs", message, effects, None, fixable=True)
