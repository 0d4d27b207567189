"""AL108."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterlint.findings import Effect, Finding, Fix, Safety, SetConfig, Severity, raises
from adapterlint.model import peft, schema
from adapterlint.model.features import tempered
from adapterlint.model.keys import Kind
from adapterlint.model.newer import BASE_CHANGING, makes_linear
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.files.foreign_format import recognise

_TASKS = "SEQ_CLS, SEQ_2_SEQ_LM, CAUSAL_LM, TOKEN_CLS, QUESTION_ANS, FEATURE_EXTRACTION"


class UnknownOption(Rule):
    """## What it does
    Checks the options that are words: `peft_type`, `task_type`, `bias` and `init_lora_weights`. A word that no release
    knows is reported here; one that came later than others, by `feature-outside-target`.

    ## Why is this bad?
    An unknown `peft_type` is a `KeyError` on every release, an unknown `bias` a `NotImplementedError`. An unknown
    `task_type` raises since PEFT 0.14, an unknown initialisation since 0.7.

    ## Example
    `"peft_type": "lora"`

    ## Fix
    Safe: the spelling is put right (`lora`, `PeftType.LORA`, `causal_lm`); an initialisation becomes `true`, since the
    stored tensors replace it anyway; an unknown `bias` becomes `none` where no bias is stored, since every mode then
    loads the same weights. Unsafe: `peft_type` is set to the only method that names its tensors like the stored ones,
    an unknown `task_type` to null, `bias` to the mode that the stored biases show. None where tensors tell nothing.

    ## References
    - PEFT `mapping.py`, `config.py`, `tuners/lora/layer.py`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL108"
    name = "unknown-option"
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("known words", lora_config(init_lora_weights="gaussian", bias="lora_only"), llama_tensors()),
            Example("no task", lora_config(task_type=None), llama_tensors()),
            Example("a later initialisation", lora_config(init_lora_weights="pissa_niter_16"), llama_tensors()),
            Example("a later type", {"peft_type": "BONE", "r": 8}),
            Example("another tool's config", {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {}}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("type in lower case", lora_config(peft_type="lora"), llama_tensors()),
            Example("type with its class", lora_config(peft_type="PeftType.LORA"), llama_tensors()),
            Example("unknown type", lora_config(peft_type="SUPERLORA"), llama_tensors()),
            Example("no type", lora_config(peft_type=...), llama_tensors()),
            Example("null type", lora_config(peft_type=None), llama_tensors()),
            Example("unknown task", lora_config(task_type="CAUSAL"), llama_tensors()),
            Example("unknown bias", lora_config(bias="lora"), llama_tensors()),
            Example("unknown initialisation", lora_config(init_lora_weights="kaiming"), llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        yield from tempered(subject, self._findings(subject))

    def _findings(self, subject: Subject) -> Iterator[Finding]:
        config = subject.adapter.config
        if config is None:
            return
        if "peft_type" not in config:
            if recognise(subject.adapter) is None:
                message = "peft_type is absent, so PEFT cannot tell what this is"
                effects = (raises("peft", "KeyError: 'peft_type'"),)
                yield self.finding(message, subject.at_config(), effects=effects, fix=_told(subject), damage="config")
            return
        kind = schema.config_type(subject.adapter.peft_type)
        if kind is None:
            yield self._type(subject, config["peft_type"])
            return
        if "task_type" in config:
            yield from self._task(subject, config["task_type"])
        if "bias" in config and "bias" in kind.fields:
            yield from self._bias(subject, kind.fields["bias"], config["bias"])
        if subject.adapter.is_lora and isinstance(config.get("init_lora_weights"), str):
            yield from self._initialisation(subject, config["init_lora_weights"])

    def _type(self, subject: Subject, value: Any) -> Finding:
        hashable = not isinstance(value, (list, dict))
        text = f"KeyError: {value!r}" if hashable else f"TypeError: unhashable type: {type(value).__name__!r}"
        return self._word(subject, "peft_type", value, schema.known_types(), (raises("peft", text),), _told(subject))

    def _task(self, subject: Subject, value: Any) -> Iterator[Finding]:
        tasks = schema.enum_members("TaskType")
        if value is None or (isinstance(value, str) and value in tasks):
            return
        text = f"ValueError: Invalid task type: '{value}'. Must be one of the following task types: {_TASKS}."
        effects = [raises("peft>=0.14", text)]
        if isinstance(value, (list, dict)):
            effects.append(raises("peft<0.14", f"TypeError: unhashable type: {type(value).__name__!r}"))
        untyped = Fix("Set task_type to null", Safety.UNSAFE, (SetConfig("/task_type", None),))
        yield self._word(subject, "task_type", value, tasks, tuple(effects), untyped)

    def _bias(self, subject: Subject, stretches: tuple[schema.Stretch, ...], value: Any) -> Iterator[Finding]:
        spans = schema.misfits(stretches, value)
        if not spans:
            return
        effects: list[Effect] = []
        for since, before in spans:
            # Up to 0.5 the exception has no text; from 0.18 on the value is asked for its end.
            late = f"NotImplementedError: Requested bias: {value}, is not implemented."
            ends = f"AttributeError: {type(value).__name__!r} object has no attribute 'endswith'"
            for low, high, text in (
                ("0.3.0", "0.6.0", "NotImplementedError: "),
                ("0.6.0", "0.18.0", late),
                ("0.18.0", None, late if isinstance(value, str) else ends),
            ):
                span = schema.clip((low, high), since, before)
                if span and high is None and subject.adapter.is_lora:
                    # In a set only the active adapter's is looked at, which is the first one's: AL506.
                    effects.append(raises(schema.span_text(span), text, scope="alone"))
                    effects.append(raises(schema.span_text(span), text, operation="native"))
                elif span:
                    effects.append(raises(schema.span_text(span), text))
        own = {"LORA": "lora_only", "ADALORA": "lora_only"}.get(str(subject.adapter.peft_type))
        known = ("none", "all", *([own] if own else []))
        yield self._word(subject, "bias", value, known, tuple(effects), _shown_bias(subject))

    def _initialisation(self, subject: Subject, value: str) -> Iterator[Finding]:
        kind = schema.config_type("LORA")
        if not value or kind is None or not makes_linear(subject):
            return
        if schema.fits(value, kind.fields["init_lora_weights"][-1].kind):
            return
        text = f"ValueError: Unknown initialization init_lora_weights={value!r}"
        effects = [raises("peft>=0.7", text)]
        if value.startswith("pissa"):
            steps = value.split("_niter_")
            other = f"init_lora_weights should be 'pissa' or 'pissa_niter_[number of iters]', got {value} instead."
            other = f"invalid literal for int() with base 10: {steps[1]!r}" if len(steps) == 2 else other
            effects = [raises("peft>=0.7,<0.11", text), raises("peft>=0.11", f"ValueError: {other}")]
        message = f"init_lora_weights {value!r} is unknown to every PEFT release"
        place = subject.at_field("init_lora_weights")
        yield self.finding(message, place, effects=tuple(effects), fix=_initial_fix(value))

    def _word(
        self, subject: Subject, key: str, value: Any, known: Any, effects: tuple[Effect, ...], other: Fix | None
    ) -> Finding:
        right = respelt(value, known)
        near = right or (schema.similar(value, known) if isinstance(value, str) else None)
        message = f"{key} {value!r} is unknown to every PEFT release" + (f"; did you mean {near!r}?" if near else "")
        fix = Fix(f"Set {key} to {right!r}", Safety.SAFE, (SetConfig(f"/{key}", right),)) if right else other
        read = key in ("peft_type", "task_type")  # looked at when the config is read, the others later
        place = subject.at_field(key)
        return self.finding(message, place, effects=effects, fix=fix, damage="config" if read else None)


def respelt(value: Any, known: Any) -> str | None:
    """The known word that a text is but for case, blanks, hyphens or a class name in front; None without one."""
    if not isinstance(value, str):
        return None
    bare = value.strip().rpartition(".")[2].replace("-", "_").lower()
    return next((word for word in known if word.lower() == bare), None)


def _told(subject: Subject) -> Fix | None:
    """The type whose tensors have such names."""
    from adapterlint.model.methodnames import told_type  # needed for a broken adapter only

    found = told_type(subject.adapter)
    if found is None:
        return None
    return Fix(f"Set peft_type to {found}, whose tensors these are", Safety.UNSAFE, (SetConfig("/peft_type", found),))


def _shown_bias(subject: Subject) -> Fix | None:
    """The mode that the stored biases show; without any, every mode loads the same weights."""
    adapter = subject.adapter
    if not adapter.is_lora or not adapter.readable:
        return None
    stored = [key for key in adapter.keys if key.kind in (Kind.FULL, Kind.BASE_LAYER) and key.parameter == "bias"]
    trained = [key for key in stored if peft.saved_root(subject.saved_names, key.module) is None]
    outside = any(key.module not in adapter.modules for key in trained)
    mode = ("all" if outside else "lora_only") if trained else "none"
    safety = Safety.UNSAFE if trained else Safety.SAFE
    return Fix(f"Set bias to {mode!r}, as the tensors show", safety, (SetConfig("/bias", mode),))


def _initial_fix(value: str) -> Fix | None:
    """An initialisation is of no account once the tensors are loaded, unless it changes the base."""
    bare = value.strip().lower()
    if bare.startswith(BASE_CHANGING):
        return None
    right = bare not in ("false", "no", "0")
    return Fix(f"Set init_lora_weights to {str(right).lower()}", Safety.SAFE, (SetConfig("/init_lora_weights", right),))
