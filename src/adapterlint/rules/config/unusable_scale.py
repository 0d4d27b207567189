"""AL107."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf
from typing import Any

from adapterlint.findings import Finding, Fix, Safety, Severity, inert, raises, unknown, wrong
from adapterlint.model import peft
from adapterlint.model.adapter import stored_rank
from adapterlint.model.features import is_number, number_in, tempered
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.tensors.rank_mismatch import rank_fix

_LARGEST = 3.4028235e38  # float32


class UnusableScale(Rule):
    """## What it does
    Looks for LoRA configs whose scale `lora_alpha / r` is missing or of no use: `lora_alpha` absent, zero, too large
    or not a number, `r` absent, zero or negative.

    ## Why is this bad?
    Without `lora_alpha` PEFT takes 8, whatever the adapter was trained with, and serving engines refuse the file. With
    0 the adapter does nothing. A rank below 1 raises since PEFT 0.6 and is left out before.

    ## Example
    `{"peft_type": "LORA", "r": 16}`: scaled by 8 / 16, though most recipes train with 16 / 16 or 32 / 16.

    ## Fix
    Unsafe: a rank that cannot be is set to the stored one, the alpha stays. By hand: a missing or useless `lora_alpha`
    is the value that the adapter was trained with; no file holds it.

    ## References
    - PEFT `tuners/lora/layer.py`, `update_layer`; measured on 0.4.0 to 0.21.2.
    - vLLM, SGLang and llama.cpp want both keys.
    """

    code = "AL107"
    name = "unusable-scale"
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("alpha and rank", lora_config(), llama_tensors()),
            Example("alpha below the rank", lora_config(lora_alpha=1), llama_tensors()),
            Example("another type", {"peft_type": "ADALORA", "init_r": 12, "target_r": 8}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("no alpha", lora_config(lora_alpha=...), llama_tensors()),
            Example("alpha is zero", lora_config(lora_alpha=0), llama_tensors()),
            Example("rank is zero", lora_config(r=0), llama_tensors()),
            Example("a pattern with rank zero", lora_config(rank_pattern={"q_proj": 0}), llama_tensors()),
            Example("no rank", lora_config(r=...), llama_tensors(8)),
            Example("more digits than a float has", lora_config(lora_alpha=10**400), llama_tensors()),
            Example("infinite", lora_config(lora_alpha=float("inf")), llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        yield from tempered(subject, self._findings(subject))

    def _findings(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if not adapter.is_lora or adapter.config is None:
            return
        if "lora_alpha" not in adapter.config:
            yield self.finding(
                f"lora_alpha is absent, so PEFT takes {peft.DEFAULT_ALPHA}; training may have used another",
                subject.at_config(),
                effects=(unknown(missing=("lora_alpha",)),),
                fix=Fix("Add the lora_alpha that the adapter was trained with", Safety.DISPLAY),
            )
        else:
            yield from self._alpha(subject)
        if "r" in adapter.config:
            yield from self._rank(subject)
        elif _has_default_rank(subject):
            yield self.finding(
                f"r is absent; PEFT takes {peft.DEFAULT_RANK}, other tools refuse the file",
                subject.at_config(),
                severity=Severity.NOTE,
                effects=(),
            )

    def _alpha(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        modules = subject.covered
        values = {"": adapter.get("lora_alpha")}
        if modules and adapter.get("alpha_pattern"):
            values = {module: peft.alpha(adapter, module) for module in modules}
        odd = [module for module, value in values.items() if is_number(value) and value != value]
        none = [module for module, value in values.items() if is_number(value) and value == 0]
        if odd:
            message = f"lora_alpha is NaN{_for(odd, len(values))}, and so is every answer"
            yield self.finding(message, subject.at_field("lora_alpha"), effects=(wrong(),))
        yield from self._too_large(subject, values)
        if none:
            alone = len(none) == len(values) and len(adapter.lora_keys) == len(adapter.tensors)
            effect = inert("peft>=0.6") if alone else wrong("peft>=0.6")
            early = (inert("peft<0.6") if alone else wrong("peft<0.6"),) if adapter.get("lora_alpha") == 0 else ()
            message = f"lora_alpha is 0{_for(none, len(values))}: the LoRA tensors have no effect"
            yield self.finding(message, subject.at_field("lora_alpha"), effects=(effect, *early))

    def _too_large(self, subject: Subject, values: dict[str, Any]) -> Iterator[Finding]:
        """An alpha that no float can hold raises, and one that float32 cannot hold makes every answer NaN."""
        alphas = {module: value for module, value in values.items() if is_number(value) and value == value}
        huge = [module for module, value in alphas.items() if isinf(number_in(value) or 0) and isinstance(value, int)]
        large = [module for module, value in alphas.items() if _overflows(subject, module, value)]
        own = subject.adapter.get("lora_alpha")
        modules = huge or large
        if not modules:
            return
        what = "int" if subject.adapter.get("use_rslora") else "integer division result"
        text = f"OverflowError: {what} too large"
        early = is_number(own) and own == alphas[modules[0]]
        targets = "peft" if early else "peft>=0.6"
        yield self.finding(
            f"lora_alpha{_for(modules, len(values))} is too large for a "
            + ("float" if huge else "float32, so that every answer is NaN"),
            subject.at_field("lora_alpha" if early else "alpha_pattern"),
            effects=(raises(targets, text) if huge else wrong(targets),),
            severity=Severity.ERROR,
        )

    def _rank(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        own = adapter.get("r")
        values = {"": own}
        if subject.covered and adapter.get("rank_pattern"):
            values = {module: peft.rank(adapter, module) for module in subject.covered}
        bad = [module for module, value in values.items() if is_number(value) and value <= 0]
        early = is_number(own) and own <= 0
        if not bad and not early:
            return
        value = values[bad[0]] if bad else own
        text = f"ValueError: `r` should be a positive integer value but the value passed is {value}"
        effects = [raises("peft>=0.6", text)] if bad else []
        if early:
            effects.append(inert("peft<0.6"))
        source = subject.at_config("/r") if value == own else subject.at_field("rank_pattern")
        message = f"the rank is {value}{_for(bad, len(values))}; it has to be 1 or more"
        if not bad:
            message = f"r is {own}; every module has a rank of its own, but only since PEFT 0.6"
        severity = Severity.ERROR if bad else Severity.WARNING
        fix = rank_fix(subject) if subject.covered else None
        yield self.finding(message, source, effects=tuple(effects), severity=severity, fix=fix)


def _for(modules: list[str], total: int) -> str:
    return f" for {first_names(modules)}" if len(modules) < total else ""


def _overflows(subject: Subject, module: str, alpha: Any) -> bool:
    """Whether alpha / r is beyond float32's largest number."""
    size, value = number_in(peft.rank(subject.adapter, module)), number_in(alpha)
    return size is not None and value is not None and size > 0 and abs(value) / size > _LARGEST


def _has_default_rank(subject: Subject) -> bool:
    """Whether the stored tensors do not say otherwise."""
    adapter = subject.adapter
    ranks = {stored_rank(key.kind, adapter.shape(key)) for key in adapter.lora_keys if key.module in subject.covered}
    return not ranks - {None, peft.DEFAULT_RANK}
