"""The one model of PEFT's semantics: which modules a config selects, saves and scales, by release.

Sources: PEFT 0.4.0 to 0.21.2, ``tuners/tuners_utils.py`` (check_target_module_exists), ``utils/other.py``
(_set_trainable, get_pattern_key), ``peft_model.py`` (task classes); outcomes measured on the releases that
``schemas/peft/index.json`` marks as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from math import sqrt
from typing import Any, Literal

from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.methoddefaults import targets_by_default
from adapterlint.model.patterns import compiled, explosive

IMPLIED_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
TASK_CLASSES = {
    "SEQ_CLS": "PeftModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "PeftModelForSeq2SeqLM",
    "CAUSAL_LM": "PeftModelForCausalLM",
    "TOKEN_CLS": "PeftModelForTokenClassification",
    "QUESTION_ANS": "PeftModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "PeftModelForFeatureExtraction",
}
DEFAULT_RANK = 8
DEFAULT_ALPHA = 8
_SELECTING = (
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "task_type",
)
_OUTPUT_LEAVES = ("lm_head", "embed_out")
TIED_NAMES = ("embed_tokens", "lm_head")
_COMMON_LAYERS = ["layers", "h", "block", "blocks", "layer"]

Numbering = Literal["common", "last", "first"]
"""Which number of a path is its layer's: the one behind a common name of lists (before 0.8), the last one (0.8 to
0.19), or the first one (0.20 and later)."""


def model_class(adapter: Adapter) -> str:
    """The PEFT class that loads this adapter, as it stands in error texts."""
    return TASK_CLASSES.get(str(adapter.get("task_type")), "PeftModel")


def not_found(targets: object) -> str:
    """What PEFT says where none of the base's modules is a target, behind the kind of the exception."""
    return f"Target modules {targets} not found in the base model. Please check the target modules and try again."


def size_mismatch(owner: str, parameter: str = "", shape: Sequence[int] | None = None) -> str:
    """The text with which torch refuses a stored tensor of another shape than the parameter's, as far as it is known.

    Args:
        owner: class of the model whose state is loaded, see :func:`model_class`.
        parameter: the parameter's full name.
        shape: shape of the stored tensor.
    """
    text = f"RuntimeError: Error(s) in loading state_dict for {owner}: size mismatch"
    text += f" for {parameter}" if parameter else ""
    copied = f": copying a param with shape torch.Size({list(shape)}) from checkpoint" if shape is not None else ""
    return text + copied


def implied_heads(adapter: Adapter) -> tuple[str, ...]:
    """Heads that the task class adds to ``modules_to_save`` (PEFT: peft_model.py)."""
    return IMPLIED_HEADS.get(str(adapter.get("task_type")), ())


def speaks_of(heads: Iterable[str], adapter: Adapter) -> bool:
    """Whether tensors of the adapter stand in such a head, so that the base that it was made for has one."""
    wanted = tuple(heads)
    return any(saved_root(wanted, key.module) is not None for key in adapter.keys)


def saved_names(adapter: Adapter, implied: bool = True) -> tuple[str, ...]:
    """Declared and implied ``modules_to_save``, each once, in order."""
    declared = adapter.names("modules_to_save")
    return tuple(dict.fromkeys((*declared, *(implied_heads(adapter) if implied else ()))))


def vocabulary_heads(base: Base) -> tuple[str, ...]:
    """The output heads that PEFT may tie to the input embedding, if the base has both."""
    return tuple(head for head in _OUTPUT_LEAVES if head in base.modules) if base.embedding else ()


def names_an_end(names: Iterable[str]) -> bool:
    """Whether config names speak of an end of the vocabulary by a name that PEFT knows (EMBEDDING_LAYER_NAMES)."""
    return any(name.rpartition(".")[2] in TIED_NAMES for name in names)


def tied_ends(adapter: Adapter, base: Base | None) -> tuple[str, ...]:
    """Modules that ``ensure_weight_tying`` adds to ``modules_to_save`` (PEFT 0.18 and later; 0.20: on a tied base)."""
    if base is None or (adapter.config or {}).get("ensure_weight_tying") is not True:
        return ()
    if not base.tied or not adapter.is_lora:
        return ()
    heads = vocabulary_heads(base)
    if not heads or base.embedding is None or not names_an_end(adapter.names("modules_to_save")):
        return ()
    return (base.embedding, *heads)


def saves(names: Iterable[str], module: str) -> bool:
    """Whether PEFT wraps this module for saving: its path ends with a name, without a dot in between."""
    return any(module.endswith(name) for name in names)


def saved_root(names: Iterable[str], module: str) -> str | None:
    """The outermost ancestor of ``module`` (or itself) that the names select; None if none is."""
    wanted = tuple(names)
    end = 0 if wanted else -1
    while end >= 0:
        end = module.find(".", end + 1)
        stop = end if end >= 0 else len(module)
        if any(module.endswith(name, 0, stop) for name in wanted):
            return module[:stop]
    return None


def saved_modules(names: Iterable[str], base: Base) -> tuple[str, ...]:
    """Modules of the base that the names select, outermost only, in the base's order."""
    wanted = tuple(names)
    if not wanted:
        return ()
    return tuple(module for module in base.modules if saves(wanted, module) and saved_root(wanted, module) == module)


class Selection:
    """Which modules ``target_modules`` and its companions select.

    Args:
        adapter: the adapter whose config is read.
        base: needed for ``all-linear`` and for null targets.
        legacy: match as PEFT 0.3 and 0.4 did: a list entry needs no dot before it, and there is no exclude_modules.
        dotted: with ``legacy``: as 0.5, where the dot is needed.
        numbering: which number of a path is its layer's.
    """

    def __init__(
        self,
        adapter: Adapter,
        base: Base | None = None,
        legacy: bool = False,
        dotted: bool = False,
        numbering: Numbering = "first",
    ) -> None:
        self._type = adapter.peft_type
        self._config = dict(adapter.config or {})
        self._numbering: Numbering = "common" if legacy else numbering
        self._legacy, self._loose = legacy, legacy and not dotted
        self._base = base
        self.known = True
        self._match = self._matcher(base)

    @cached_property
    def _signature(self) -> str:
        """All that the selection depends on, but for the base."""
        era = (self._legacy, self._numbering)
        return repr((self._type, era, [self._config.get(field) for field in _SELECTING]))

    def __eq__(self, other: object) -> bool:
        """Whether both select the same modules of the same base, as far as their configs tell."""
        return isinstance(other, Selection) and self._base is other._base and self._signature == other._signature

    def __hash__(self) -> int:
        return hash(self._signature)

    def __call__(self, module: str) -> bool:
        """Whether this module path (without ``base_model.model.``) is selected."""
        return (self._legacy or not self.excluded(module)) and self._match(module)

    def excluded(self, module: str) -> bool:
        """Whether ``exclude_modules`` takes the module out."""
        excluded = self._config.get("exclude_modules")
        if isinstance(excluded, str):
            return _fullmatch(excluded, module) if excluded else False
        if isinstance(excluded, list):
            return any(isinstance(name, str) and _ends(module, name) for name in excluded)
        return False

    def _matcher(self, base: Base | None) -> Callable[[str], bool]:
        targets = self._config.get("target_modules")
        if targets is None and self._config.get("target_parameters") is None:
            targets = self._by_default(base) if base else None
            if targets is None:
                self.known = False
                return lambda module: True
        if isinstance(targets, str) and targets.lower() == "all-linear":
            return self._all_linear(base)
        if isinstance(targets, str):
            pattern = targets
            if explosive(pattern):
                self.known = False  # AL115 says so
                return lambda module: True
            if compiled(pattern) is None:
                return lambda module: False
            return lambda module: _fullmatch(pattern, module)
        listed = targets if isinstance(targets, (list, tuple, dict)) else ()  # of an object, PEFT takes the keys
        names = tuple(name for name in listed if isinstance(name, str))
        return lambda module: self._in_list(names, module)

    def _by_default(self, base: Base) -> tuple[str, ...] | str | None:
        if self._type == "TRAINABLE_TOKENS":
            return (base.embedding,) if base.embedding else None
        return targets_by_default(self._type, base.model_type)

    def _in_list(self, names: tuple[str, ...], module: str) -> bool:
        if self._loose:
            return any(module.endswith(name) for name in names) and self._layer_wanted(module)
        if module in names:
            return True
        return any(module.endswith("." + name) for name in names) and self._layer_wanted(module)

    def _layer_wanted(self, module: str) -> bool:
        layers = self._config.get("layers_to_transform")
        if layers is None or (layers == [] and self._numbering != "common"):
            return True
        index = layer_index(module, self._config.get("layers_pattern"), self._numbering)
        if index is None:
            return False
        return index == layers if isinstance(layers, int) else isinstance(layers, list) and index in layers

    def _all_linear(self, base: Base | None) -> Callable[[str], bool]:
        if base is None:
            return lambda module: module.rpartition(".")[2] not in _OUTPUT_LEAVES
        heads = self._left_out(base)
        linear = frozenset(
            module
            for module in base.modules
            if base.kind(module) == "linear" and module.rpartition(".")[2] not in heads
        )
        return lambda module: module in linear

    def _left_out(self, base: Base) -> tuple[str, ...]:
        """What ``all-linear`` leaves out: the output embedding of a language model, else a SEQ_CLS head."""
        if "LMHead" in base.architecture or base.architecture.endswith(("ForCausalLM", "ForConditionalGeneration")):
            return _OUTPUT_LEAVES
        if self._config.get("task_type") == "SEQ_CLS":
            return ("score",) if "score" in base.modules else ("classifier",)
        return ()


def selected_modules(adapter: Adapter, base: Base, legacy: bool = False) -> tuple[str, ...]:
    """Modules of the base that the adapter's config selects and that it does not save whole, in the base's order."""
    return _selected(base, Selection(adapter, base, legacy), saved_names(adapter))


@lru_cache(maxsize=64)
def _selected(base: Base, selection: Selection, saved: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(module for module in base.modules if selection(module) and saved_root(saved, module) is None)


def names_for(modules: Sequence[str], universe: Iterable[str]) -> list[str]:
    """Entries of ``target_modules`` that select these modules of a model and no others of it.

    The last names where those do, sorted; else the paths as given.

    Args:
        modules: module paths, some of which may be missing from the model.
        universe: every module path of the model.
    """
    every, wanted = set(universe), set(modules)
    leaves = {module.rpartition(".")[2] for module in modules}
    selected = {module for module in every if module.rpartition(".")[2] in leaves}
    return sorted(leaves) if selected == wanted & every else list(modules)


def _fullmatch(pattern: str, module: str) -> bool:
    found = compiled(pattern)
    return found is not None and found.fullmatch(module) is not None


def _ends(module: str, name: str) -> bool:
    return module == name or module.endswith("." + name)


def layer_index(module: str, layers_pattern: Any = None, numbering: Numbering = "first") -> int | None:
    """The layer number that ``layers_to_transform`` is compared with, or None.

    Args:
        module: module path.
        layers_pattern: name, or names, of the list of layers; None or empty for any.
        numbering: as which releases count.
    """
    patterns = [layers_pattern] if isinstance(layers_pattern, str) else layers_pattern
    if not isinstance(patterns, list) or not layers_pattern:
        patterns = _COMMON_LAYERS if numbering == "common" else [None]
    for pattern in patterns:
        start = r"\.[^.]*" if pattern is None else rf"\.{pattern}" if numbering == "last" else str(pattern)
        if numbering == "first":
            start = rf".*?{start}" if pattern is None else rf"(?:^|.*?\.){start}"
        else:
            start = rf".*.{start}" if numbering == "common" else rf".*{start}"
        found = compiled(rf"{start}\.(?P<idx>\d+){'' if numbering == 'common' else '[.]'}")
        match = found.match(module) if found else None
        if match:
            return int(match["idx"])
    return None


PatternEra = Literal["combined", "dotted", "regex"]
"""How pattern keys are matched: one key for rank and alpha together (0.6 to 0.13), apart (0.14), or with the full
regular expression, anchors included (0.15 and later)."""


def rank(adapter: Adapter, module: str, era: PatternEra = "regex") -> Any:
    """The rank that PEFT gives a module: ``rank_pattern``, else ``r`` (default 8)."""
    return _by_pattern(adapter, "rank_pattern", module, adapter.get("r", DEFAULT_RANK), era)


def alpha(adapter: Adapter, module: str, era: PatternEra = "regex") -> Any:
    """The alpha that PEFT gives a module: ``alpha_pattern``, else ``lora_alpha`` (default 8)."""
    return _by_pattern(adapter, "alpha_pattern", module, adapter.get("lora_alpha", DEFAULT_ALPHA), era)


def scale(adapter: Adapter, module: str) -> float:
    """The factor of ``B @ A`` for a module: alpha / r, or alpha / sqrt(r) with rsLoRA.

    Raises:
        ValueError: rank or alpha is not a usable number.
    """
    size, weight = rank(adapter, module), alpha(adapter, module)
    if not isinstance(size, (int, float)) or not isinstance(weight, (int, float)) or size <= 0:
        raise ValueError(f"no usable scale for {module}: r is {size!r}, alpha is {weight!r}")
    try:
        return float(weight) / (sqrt(size) if adapter.get("use_rslora") is True else float(size))
    except OverflowError as error:
        raise ValueError(f"no usable scale for {module}: {error}") from None


def by_pattern(adapter: Adapter, field: str, module: str, default: Any) -> Any:
    """The value of a pattern field for a module, as PEFT has matched its keys since 0.15."""
    return _by_pattern(adapter, field, module, default, "regex")


def _by_pattern(adapter: Adapter, field: str, module: str, default: Any, era: PatternEra) -> Any:
    patterns = adapter.get(field)
    if not isinstance(patterns, dict) or not patterns:
        return default
    if era == "regex":
        found = next((name for name in patterns if _matches(rf"(.*\.)?({name})$", module)), module)
    else:
        names = [*_pattern_names(adapter, "rank_pattern"), *_pattern_names(adapter, "alpha_pattern")]
        candidates = names if era == "combined" else list(patterns)
        found = next((name for name in candidates if _matches(rf".*\.{name}$", module)), module)
    return patterns.get(found, default)


def _pattern_names(adapter: Adapter, field: str) -> list[str]:
    patterns = adapter.get(field)
    return list(patterns) if isinstance(patterns, dict) else []


def _matches(pattern: str, module: str) -> bool:
    found = compiled(pattern)
    return found is not None and found.match(module) is not None
