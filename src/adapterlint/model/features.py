"""What a LoRA adapter loses in a release that leaves one of its config keys out.

Up to 0.5 and from 0.14 on PEFT drops keys that it does not know. Measured: adapters with each feature, saved by every
release that has it, then loaded by the releases 0.4.0 to 0.21.2 that do not; sources of the ``tuners/lora`` variants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import inf
from typing import Any, Literal

from adapterlint.findings import Finding, Severity
from adapterlint.model import peft
from adapterlint.model.keys import PROMPT_TYPES, Kind
from adapterlint.model.subject import Subject

Loss = Literal["nothing", "wrong", "shapes", "targets", "unknown"]
"""What happens without the key: nothing, another output, a size mismatch, no module is selected, or nobody knows."""

_INITIAL = frozenset({"loftq_config", "eva_config", "corda_config", "lora_ga_config"})
_TRAINING = frozenset({"velora_config", "monteclora_config", "megatron_core", "runtime_config"})
_RECORD = frozenset({"auto_mapping", "revision", "peft_version", "inference_mode", "base_model_name_or_path"})
STEERS_TRAINING = _INITIAL | _TRAINING
"""Keys that only say how weights are initialised or trained: a finished adapter answers the same without them."""

_WITHOUT_EFFECT = (
    STEERS_TRAINING
    | _RECORD
    | {
        "megatron_config",  # parallel layers appear only where the base has Megatron's
        "ensure_weight_tying",  # PEFT stores both ends of what it ties; a file with one end means that one
        "exclude_modules",  # more modules are selected, and those without tensors get LoRA that adds nothing
        "layers_to_transform",
        "layers_pattern",
        "qalora_group_size",
    }
)
ON_WHEN_EMPTY = frozenset({"kasa_config", "use_bdlora", "arrow_config"})
"""Objects that switch a feature on even when they are empty: all of its settings then have their defaults."""

_ADALORA = frozenset({"use_rslora", "alpha_pattern", "rank_pattern"})  # its layers read none of them at load
_OTHER_TYPES = _WITHOUT_EFFECT | {"tokenizer_kwargs", "rank_dropout_scale", "init_weights", "generator_seed"}


def lost(subject: Subject, key: str) -> Loss:
    """What the adapter loses in a release that drops this key, given the tensors that it has."""
    value = subject.adapter.get(key)
    if not subject.adapter.is_lora:
        harmless = _OTHER_TYPES | (_ADALORA if subject.adapter.peft_type == "ADALORA" else frozenset())
        if subject.adapter.peft_type in PROMPT_TYPES and key == "modules_to_save":
            added = set(peft.implied_heads(subject.adapter))  # by the task class, before the key was known
            return "nothing" if set(subject.adapter.names(key)) <= added else "unknown"
        return "nothing" if key in harmless else "unknown"
    if key in _WITHOUT_EFFECT or not (meant(value) or key in ON_WHEN_EMPTY):
        return "nothing"
    loss = _LOSSES.get(key)
    return loss(subject) if loss else "unknown"


def meant(value: Any) -> bool:
    """Whether a flag or setting is meant to be on; ``"false"`` is not, although PEFT takes any text for true."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "false", "no", "0", "none", "null")
    return bool(value)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """Whether a JSON value is a number above 0."""
    return is_number(value) and bool(value > 0)


def number_in(value: Any) -> float | None:
    """The number that a value is or, as a text, stands for; None if it is none, or true or false."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return inf if value > 0 else -inf


def _alpha(subject: Subject) -> Loss:
    default = number_in(subject.adapter.get("lora_alpha", peft.DEFAULT_ALPHA))
    found = {number_in(peft.alpha(subject.adapter, module)) for module in subject.covered}
    return _if(bool(found - {default, None}))


def alpha_era(subject: Subject, era: peft.PatternEra) -> bool:
    """Whether some module gets another alpha under the older matching of pattern keys."""
    adapter = subject.adapter
    if not adapter.get("alpha_pattern"):
        return False
    return any(peft.alpha(adapter, module, era) != peft.alpha(adapter, module) for module in subject.covered)


def _rank(subject: Subject) -> Loss:
    return "shapes" if mismatched(subject) else "nothing"


def mismatched(subject: Subject) -> list[str]:
    """Modules whose stored rank is another one than ``r``."""
    default = number_in(subject.adapter.get("r", peft.DEFAULT_RANK))
    if default is None or default <= 0:
        return []
    ranks = {module: number_in(peft.rank(subject.adapter, module)) for module in subject.covered}
    return [module for module, rank in ranks.items() if rank not in (default, None)]


def _rslora(subject: Subject) -> Loss:
    adapter = subject.adapter
    return _if(any(peft.rank(adapter, module) != 1 and peft.alpha(adapter, module) for module in subject.covered))


def _dora(subject: Subject) -> Loss:
    return _if(bool(subject.covered))


def _lora_bias(subject: Subject) -> Loss:
    return _if(any(key.kind is Kind.LORA_BIAS for key in subject.adapter.keys))


def _parameters(subject: Subject) -> Loss:
    if subject.adapter.get("target_modules") == []:
        return "targets"
    wanted = [name.rpartition(".")[0] for name in subject.adapter.names("target_parameters")]
    modules = subject.adapter.modules
    return _if(any(module == name or module.endswith("." + name) for module in modules for name in wanted if name))


def _tokens(subject: Subject) -> Loss:
    value = subject.adapter.get("trainable_token_indices")
    lists = value.values() if isinstance(value, dict) else [value]
    stored = [key.module for key in subject.adapter.of_kind(Kind.TOKENS)]
    if stored and all(peft.saved_root(subject.saved_names, module) is not None for module in stored):
        return "nothing"  # the saved matrix holds the rows too
    return _if(any(isinstance(indices, list) and indices for indices in lists))


def _blocks(subject: Subject) -> Loss:
    """A block-diagonal A is narrower than the module, a block-diagonal B shorter."""
    if not isinstance(subject.adapter.get("use_bdlora"), dict):
        return "nothing"
    if subject.base is None:
        return "shapes"
    for module, entry in subject.covered.items():
        weight = subject.base.modules.get(module, {}).get("weight")
        if weight is None or len(weight.shape) != 2 or entry.a is None or entry.b is None:
            continue
        stored = (*subject.adapter.shape(entry.b)[:1], *subject.adapter.shape(entry.a)[-1:])
        if sorted(stored) != sorted(weight.shape):
            return "shapes"
    return "nothing"


def _qalora(subject: Subject) -> Loss:
    """QALoRA pools the inputs of GPTQ layers only; on any other layer the flag does nothing."""
    if subject.base is None:
        return "unknown"
    return "unknown" if "quantization_config" in subject.base.config else "nothing"


def _if(differs: bool) -> Loss:
    return "wrong" if differs else "nothing"


_LOSSES: dict[str, Callable[[Subject], Loss]] = {
    "alpha_pattern": _alpha,
    "rank_pattern": _rank,
    "use_rslora": _rslora,
    "use_dora": _dora,
    "lora_bias": _lora_bias,
    "target_parameters": _parameters,
    "use_qalora": _qalora,
    "layer_replication": lambda subject: _if(isinstance(subject.adapter.get("layer_replication"), list)),
    "trainable_token_indices": _tokens,
    "alora_invocation_tokens": lambda _: "wrong",
    "kasa_config": lambda subject: _if(isinstance(subject.adapter.get("kasa_config"), dict)),
    "use_bdlora": _blocks,
}


def tempered(subject: Subject, found: Iterable[Finding]) -> Iterator[Finding]:
    """Findings, as notes where a config without weights was merely come across: a recipe for training, no adapter."""
    draft = subject.adapter.weights_file is None and not subject.adapter.explicit
    for finding in found:
        yield finding._replace(ceiling=Severity.NOTE) if draft else finding


def takes_default(subject: Subject, field: str) -> bool:
    """Whether some module takes ``r`` or ``lora_alpha`` itself and no pattern's value, since PEFT 0.6.

    True where no module is known.
    """
    value = peft.rank if field == "r" else peft.alpha
    marked = replace(subject.adapter, config={**(subject.adapter.config or {}), field: _MARK})
    return not subject.covered or any(value(marked, module) is _MARK for module in subject.covered)


_MARK = object()
