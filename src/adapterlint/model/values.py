"""Values of a LoRA config that PEFT cannot compute with, and what each release does about them.

Every exception here was measured on 0.4.0 to 0.21.2; where behaviour changes between two measured releases, the bound
was read in PEFT's sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from adapterlint.findings import Edit, Effect, RemoveConfig, SetConfig, pointer_to, raises, wrong
from adapterlint.model import features, peft
from adapterlint.model.keys import Kind
from adapterlint.model.newer import makes_linear
from adapterlint.model.patterns import error_in
from adapterlint.model.subject import Subject

_SIZE = "TypeError: empty(): argument 'size' (position 1) must be tuple of ints, but found element of type"
_FLAGS = (
    "use_rslora",
    "use_dora",
    "lora_bias",
    "use_qalora",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "inference_mode",
)
_FLAG_TENSORS = {"use_dora": Kind.MAGNITUDE, "lora_bias": Kind.LORA_BIAS}  # stored: it was on, whatever the text says
_OBJECTS = {
    "eva_config": "EvaConfig",
    "corda_config": "CordaConfig",
    "lora_ga_config": "LoraGAConfig",
    "arrow_config": "ArrowConfig",
    "use_bdlora": "BdLoraConfig",
    "velora_config": "VeloraConfig",
    "kasa_config": "KasaConfig",
    "monteclora_config": "MontecloraConfig",
}


class Misfit(NamedTuple):
    """A value of a type that PEFT cannot use.

    Attributes:
        path: keys that lead to the value.
        message: what is wrong.
        effects: what releases do.
        edit: the edit that makes the value what it can only mean, if there is one.
        title: the edit in words.
    """

    path: tuple[str, ...]
    message: str
    effects: tuple[Effect, ...] = ()
    edit: Edit | None = None
    title: str = ""


def misfits(subject: Subject) -> Iterator[Misfit]:
    """The values of a config that have a wrong type; for LoHa and LoKr, of the patterns only."""
    config = subject.adapter.config or {}
    if subject.adapter.peft_type in ("LOHA", "LOKR"):
        for name in ("rank_pattern", "alpha_pattern"):
            if name in config and not isinstance(config[name], dict):
                yield from _patterns(subject, name, config[name])
    if not subject.adapter.is_lora:
        return
    for name, check in (
        ("r", _rank),
        ("lora_dropout", _dropout),
        ("lora_alpha", _alpha),
        ("target_modules", _targets),
        ("modules_to_save", _saved),
        ("init_lora_weights", _initialisation),
        ("layers_to_transform", _layers),
        ("layers_pattern", _layers_pattern),
        ("rank_pattern", _patterns),
        ("alpha_pattern", _patterns),
        ("loftq_config", _loftq),
        ("layer_replication", _replication),
        ("exclude_modules", _excluded),
        ("trainable_token_indices", _tokens),
        ("target_parameters", _parameters),
        ("alora_invocation_tokens", _invocation),
    ):
        if name in config:
            yield from check(subject, name, config[name])
    for name in _FLAGS:
        if isinstance(config.get(name), str):
            yield _flag(subject, name, config[name])
    for name in _OBJECTS:
        if name in config and config[name] is not None and not isinstance(config[name], dict):
            yield _object(name, config[name])


def kind(value: Any) -> str:
    """The type of a JSON value as Python's exceptions call it."""
    return type(value).__name__


def _meant_number(value: Any) -> int | float | None:
    """The number that a text can only mean, or a whole number written with a fraction."""
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            return None
    if not features.is_number(value) or value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value == int(value) else value


def _set(path: tuple[str, ...], value: Any, sure: bool = True) -> tuple[Edit | None, str]:
    """The edit that sets a value, in words too; none where it is not sure that this value is meant."""
    return (SetConfig(pointer_to(*path), value), f"Set {'.'.join(path)} to {value!r}") if sure else (None, "")


def _rank(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if isinstance(value, int) and not isinstance(value, bool):
        return
    if isinstance(value, float) and value <= 0:
        return
    yield _bad_rank((name,), value, early=True, late=features.takes_default(subject, "r"))


def _bad_rank(path: tuple[str, ...], value: Any, early: bool, late: bool) -> Misfit:
    if isinstance(value, (bool, float)):
        old = new = f"{_SIZE} {kind(value)} at pos 0"
    else:
        tail = f"not supported between instances of {kind(value)!r} and 'int'"
        old, new = f"TypeError: '>' {tail}", f"TypeError: '<=' {tail}"
    effects = (*((raises("peft<0.6", old),) if early else ()), *((raises("peft>=0.6", new),) if late else ()))
    number = _meant_number(value)
    edit, title = _set(path, number, isinstance(number, int) and number > 0)
    return Misfit(path, f"{'.'.join(path)} is {value!r}; a rank is a whole number", effects, edit, title)


def _alpha(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if not isinstance(value, (int, float)):
        yield _bad_alpha(subject, (name,), value, early=True, late=features.takes_default(subject, "lora_alpha"))


def _bad_alpha(subject: Subject, path: tuple[str, ...], value: Any, early: bool, late: bool) -> Misfit:
    text = f"TypeError: unsupported operand type(s) for /: {kind(value)!r} and "
    rooted = text + ("'float'" if subject.adapter.get("use_rslora") else "'int'")
    effects = [raises("peft<0.6", text + "'int'")] if early else []
    if late:
        effects += [raises("peft>=0.6,<0.8", text + "'int'"), raises("peft>=0.8", rooted)]
    number = _meant_number(value)
    edit, title = _set(path, number, number is not None)
    return Misfit(path, f"{'.'.join(path)} is {value!r}; an alpha is a number", tuple(effects), edit, title)


def _dropout(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if isinstance(value, (int, float)):
        if value > 1:
            text = f"ValueError: dropout probability has to be between 0 and 1, but got {value}"
            yield Misfit((name,), f"lora_dropout is {value!r}; a probability is 1 at most", (raises("peft", text),))
        return
    text = f"TypeError: '>' not supported between instances of {kind(value)!r} and 'float'"
    number = _meant_number(value)
    edit, title = _set((name,), float(number or 0), number is not None and 0 <= number <= 1)
    yield Misfit((name,), f"lora_dropout is {value!r}; a probability is a number", (raises("peft", text),), edit, title)


def _targets(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if isinstance(value, (bool, int, float)):
        walked = f"TypeError: {kind(value)!r} object is not iterable"
        searched = f"TypeError: argument of type {kind(value)!r} is not iterable"
        effects = (
            raises("peft<0.6", walked),
            raises("peft>=0.6,<0.19", searched),
            raises("peft>=0.19", walked if value else searched),
        )
        yield Misfit((name,), f"target_modules is {value!r}; it is a list of names or a text", effects)
    elif isinstance(value, list):
        yield from _target_items(subject, value)


def _target_items(subject: Subject, items: list[Any]) -> Iterator[Misfit]:
    path = ("target_modules",)
    odd = next((item for item in items if not isinstance(item, str)), "")
    if not isinstance(odd, str):
        nested = isinstance(odd, (list, dict))
        late = f"AttributeError: {kind(odd)!r} object has no attribute 'split'"
        effects = (
            raises("peft<0.5", f"TypeError: endswith first arg must be str or a tuple of str, not {kind(odd)}"),
            raises("peft>=0.6", f"TypeError: unhashable type: {kind(odd)!r}") if nested else raises("peft>=0.19", late),
        )
        names = [item for item in items if isinstance(item, str)]
        edit, title = _set(path, names, bool(names) and not nested)
        yield Misfit(path, f"target_modules holds {odd!r}; its items are names", effects, edit, title)
    elif "" in items and any(items):
        root = f"{subject.base.architecture}(" if subject.base and subject.base.architecture else ""
        edit, title = _set(path, [item for item in items if item])
        message = "target_modules holds an empty name, which PEFT before 0.14 takes for the model itself"
        yield Misfit(path, message, (raises("peft<0.14", f"ValueError: Target module {root}"),), edit, title)


def _all_texts(items: list[Any]) -> bool:
    return all(isinstance(item, str) for item in items)


def _saved(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if isinstance(value, str):
        if value:
            message = f"modules_to_save is the text {value!r}; PEFT takes each of its letters for a name"
            edit, title = _set((name,), [value])
            yield Misfit((name,), message, _letters(subject, value), edit, title)
    elif isinstance(value, (bool, int, float)):
        targets = "peft" if value else "peft<0.16"
        effects = (raises(targets, f"TypeError: {kind(value)!r} object is not iterable"),)
        edit, title = _set((name,), None, not value)
        yield Misfit((name,), f"modules_to_save is {value!r}; it is a list of names", effects, edit, title)
    elif isinstance(value, list) and not _all_texts(value):
        odd = next(item for item in value if not isinstance(item, str))
        both = (
            raises("peft<0.19", f"TypeError: endswith first arg must be str or a tuple of str, not {kind(odd)}"),
            raises("peft>=0.19", f"AttributeError: {kind(odd)!r} object has no attribute 'split'"),
        )
        yield Misfit((name,), f"modules_to_save holds {odd!r}; its items are names", both)


def _letters(subject: Subject, text: str) -> tuple[Effect, ...]:
    """Almost any letter ends the name of some container of modules, which cannot be saved whole.

    Since 0.16 PEFT refuses lists of modules only, and does not find the tensors of a block.
    """
    late, listed = "peft>=0.14", "TypeError: modules_to_save cannot be applied to modules of type"
    early = raises("peft<0.14", "AttributeError: ModulesToSaveWrapper has no attribute")
    if subject.base is None:
        return (early, raises(late, listed))
    met = [module for module in subject.base.modules if module.endswith(tuple(text))]
    if not met:
        return ()
    if any(f"{module}.0" in subject.base.modules for module in met):
        return (early, raises(late, listed))
    return (early, raises("peft>=0.14,<0.16", listed), raises("peft>=0.16", "KeyError"))


def _initialisation(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if isinstance(value, (bool, str)) or not value:
        return
    effects = (raises("peft>=0.7", f"AttributeError: {kind(value)!r} object has no attribute 'lower'"),)
    edit, title = _set((name,), True)
    message = f"init_lora_weights is {value!r}; it is true, false or a name"
    yield Misfit((name,), message, effects if makes_linear(subject) else (), edit, title)


def _layers(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if isinstance(subject.adapter.get("target_modules"), str):
        return
    if isinstance(value, (str, float)):
        text = "argument of type 'float' is not iterable"
        if isinstance(value, str):
            text = "'in <string>' requires string as left operand, not int"
        number = _meant_number(value)
        edit, title = _set((name,), number, isinstance(number, int))
        effects = (raises("peft>=0.4", f"TypeError: {text}"),)
        yield Misfit((name,), f"layers_to_transform is {value!r}; a layer is a whole number", effects, edit, title)
    elif isinstance(value, list) and any(isinstance(item, str) for item in value):
        numbers = [_meant_number(item) for item in value]
        edit, title = _set((name,), numbers, all(isinstance(item, int) for item in numbers))
        message = f"layers_to_transform holds texts ({value[0]!r}); PEFT compares them with numbers and finds no layer"
        nothing = (raises("peft>=0.4", "ValueError: Target modules"),)
        some = any(features.is_number(item) for item in value)
        yield Misfit((name,), message, () if some else nothing, edit, title)


def _layers_pattern(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if isinstance(value, (bool, int, float)) and subject.adapter.get("layers_to_transform") is not None:
        effects = (
            raises("peft>=0.4,<0.8", f"TypeError: {kind(value)!r} object is not iterable"),
            raises("peft>=0.8", f"TypeError: object of type {kind(value)!r} has no len()"),
        )
        yield Misfit((name,), f"layers_pattern is {value!r}; it is a name or a list of names", effects)


def _patterns(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if not isinstance(value, dict):
        effects = (raises("peft>=0.6", f"AttributeError: {kind(value)!r} object has no attribute 'keys'"),)
        edit, title = _set((name,), {}, not value)
        yield Misfit((name,), f"{name} is {value!r}; it is an object of names and values", effects, edit, title)
        return
    if not value:
        return
    yield from _broken_patterns(subject, name, value)
    used = peft.rank if name == "rank_pattern" else peft.alpha
    taken = [used(subject.adapter, module) for module in subject.covered]
    for key, item in value.items():
        late = not subject.covered or any(other is item for other in taken)
        if name == "alpha_pattern" and not isinstance(item, (int, float)):
            yield _bad_alpha(subject, (name, key), item, early=False, late=late)
        elif name == "rank_pattern" and (isinstance(item, (bool, float)) or not isinstance(item, int)):
            yield _bad_rank((name, key), item, early=False, late=late)


def _broken_patterns(subject: Subject, name: str, patterns: dict[str, Any]) -> Iterator[Misfit]:
    """Keys that are no regular expressions: PEFT meets them with the first module it gives LoRA layers."""
    for key in patterns:
        texts = [error_in(rf".*\.{key}$"), error_in(rf"(.*\.)?({key})$")]
        spans = ("peft>=0.6,<0.15", "peft>=0.15")
        effects = tuple(raises(span, text) for span, text in zip(spans, texts, strict=True) if text)
        if effects:
            yield Misfit((name, key), f"{key!r} in {name} is no regular expression", effects)


def _loftq(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if value is None:
        effects = (raises("peft>=0.7,<0.19", "TypeError: 'NoneType' object is not iterable"),)
        message, title = "loftq_config is null; PEFT before 0.19 needs an object", "Remove loftq_config"
        yield Misfit((name,), message, effects, RemoveConfig("/loftq_config"), title)
    elif value and not isinstance(value, dict):
        effects = (raises("peft>=0.7,<0.14", "TypeError: vars() argument must have __dict__ attribute"),)
        yield Misfit((name,), f"loftq_config is {value!r}; it is an object", effects)


def _replication(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if value and not isinstance(value, (list, dict)):
        text = f"TypeError: {kind(value)!r} object is not iterable"
        if isinstance(value, str):
            text = "ValueError: not enough values to unpack (expected 2, got 1)"
        message = f"layer_replication is {value!r}; it is a list of pairs of layers"
        yield Misfit((name,), message, (raises("peft>=0.10", text),))


def _excluded(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if value and isinstance(value, (bool, int, float)):
        effects = (raises("peft>=0.14", f"TypeError: argument of type {kind(value)!r} is not iterable"),)
        yield Misfit((name,), f"exclude_modules is {value!r}; it is a list of names or a text", effects)


def _tokens(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    lists = {(name, key): items for key, items in value.items()} if isinstance(value, dict) else {(name,): value}
    for path, items in lists.items():
        if isinstance(items, str) or (isinstance(items, list) and any(isinstance(item, str) for item in items)):
            numbers = [_meant_number(item) for item in items] if isinstance(items, list) else [None]
            edit, title = _set(path, numbers, all(isinstance(number, int) for number in numbers))
            effects = (raises("peft>=0.15", "TypeError: new(): invalid data type 'str'"),)
            yield Misfit(path, f"{'.'.join(path)} holds texts; token indices are numbers", effects, edit, title)


def _parameters(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if value and isinstance(value, (bool, int, float)):
        effects = (raises("peft>=0.17", f"TypeError: {kind(value)!r} object is not iterable"),)
        yield Misfit((name,), f"target_parameters is {value!r}; it is a list of names", effects)


def _invocation(subject: Subject, name: str, value: Any) -> Iterator[Misfit]:
    if value is not None and not isinstance(value, (list, dict)):
        text = "new(): invalid data type 'str'" if isinstance(value, str) else "len() of a 0-d tensor"
        effects = (raises("peft>=0.18", f"TypeError: {text}", stage="after_load"),)
        yield Misfit((name,), f"alora_invocation_tokens is {value!r}; it is a list of numbers", effects)


def _flag(subject: Subject, name: str, value: str) -> Misfit:
    trace = _FLAG_TENSORS.get(name)
    on = features.meant(value) or (bool(value) and trace is not None and bool(subject.adapter.of_kind(trace)))
    edit, title = _set((name,), on)
    message = f"{name} is the text {value!r}, which PEFT takes for {'true' if value else 'false'}"
    since = {"use_rslora": "0.8", "use_dora": "0.9"}.get(name)
    harmful = value and not on and since and subject.covered
    return Misfit((name,), message, (wrong(f"peft>={since}"),) if harmful else (), edit, title)


def _object(name: str, value: Any) -> Misfit:
    owner = _OBJECTS[name]
    effects = [raises("peft>=0.21", f"TypeError: `{owner}` must be a `{owner}`, a dict, or None.")]
    if name == "monteclora_config":
        effects = [raises("peft>=0.20", f"AttributeError: {kind(value)!r} object has no attribute 'num_samples'")]
        effects = effects if value else []
    if name == "velora_config":
        effects.append(raises("peft>=0.20,<0.21", f"TypeError: `{name}` must be a `{owner}`, a dict, or None."))
    if name == "use_bdlora":
        until = "0.21" if value else "0.20"
        text = f"AttributeError: {kind(value)!r} object has no attribute 'target_modules_bd_a'"
        effects.append(raises(f"peft>=0.19,<{until}", text))
    if name == "arrow_config" and value:
        effects.append(raises("peft>=0.18,<0.21", f"AttributeError: {kind(value)!r} object has no attribute 'top_k'"))
    edit, title = _set((name,), None, not value)
    return Misfit((name,), f"{name} is {value!r}; it is an object or null", tuple(effects), edit, title)
