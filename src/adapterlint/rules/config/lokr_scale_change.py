"""AL112."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterlint.findings import Edit, Finding, Fix, Safety, SetConfig, Severity, wrong
from adapterlint.model.adapter import Adapter
from adapterlint.model.patterns import compiled
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example

WITNESS = "rank_dropout_scale"
"""The key that tells a file of PEFT 0.14 or newer from an older one."""

_DEFAULT = 8


class LokrScaleChange(Rule):
    """## What it does
    Looks for LoKr adapters that PEFT 0.13 or older wrote and whose `alpha` differs from `r`.

    ## Why is this bad?
    Up to 0.13 PEFT trained and ran LoKr without the scale `alpha / r`; since 0.14 it applies it. The same file then
    answers differently, without a word. Files written since 0.14 have the key `rank_dropout_scale`.

    ## Example
    `{"peft_type": "LOKR", "r": 8, "alpha": 16}`

    ## Fix
    Safe: `alpha` is set to `r`, which is the scale 1 that the adapter was trained with.

    ## References
    - PEFT `tuners/lokr/layer.py`, `get_delta_weight`, 0.13.2 and 0.14.0; measured with adapters of 0.6.2 to 0.13.2.
    """

    code = "AL112"
    name = "lokr-scale-change"
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("alpha is r", _config(alpha=4), _tensors()),
            Example("written since 0.14", _config(alpha=16, rank_dropout_scale=False), _tensors()),
            Example("a pattern that matches nothing", _config(alpha=4, alpha_pattern={"k_proj": 2}), _tensors()),
            Example("LoHa was always scaled", {**_config(alpha=16), "peft_type": "LOHA"}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("alpha is not r", _config(alpha=16), _tensors()),
            Example("the default alpha is not r", _config(), _tensors()),
            Example("in a pattern", _config(alpha=4, alpha_pattern={"q_proj": 2}), _tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if adapter.peft_type != "LOKR" or WITNESS in (adapter.config or {}):
            return
        scaled = scaled_modules(adapter)
        if not scaled:
            return
        alpha, rank = _value(adapter, "alpha", scaled[0]), _value(adapter, "r", scaled[0])
        yield self.finding(
            f"a LoKr of PEFT 0.13 or older with alpha {alpha} and r {rank}: it was trained without the scale "
            "alpha / r, which PEFT applies since 0.14",
            subject.at_field("alpha"),
            effects=(wrong("peft>=0.14"),),
            fix=_fix(adapter),
        )


def scaled_modules(adapter: Adapter) -> list[str]:
    """Modules of a LoKr adapter whose alpha differs from their rank; an empty name where no tensor is known."""
    modules = dict.fromkeys(key.module for key in adapter.keys if key.parameter.startswith("lokr_"))
    return [name for name in modules or [""] if _value(adapter, "alpha", name) != _value(adapter, "r", name)]


def _fix(adapter: Adapter) -> Fix:
    rank, patterns = adapter.get("r", _DEFAULT), adapter.get("rank_pattern")
    edits: list[Edit] = [SetConfig("/alpha", rank)]
    if adapter.get("alpha_pattern") or patterns:
        edits.append(SetConfig("/alpha_pattern", patterns or {}))
    return Fix(f"Set alpha to r, which is {rank}", Safety.SAFE, tuple(edits))


def _value(adapter: Adapter, name: str, module: str) -> Any:
    """Rank or alpha of a module, by pattern or by default."""
    patterns = adapter.get("rank_pattern" if name == "r" else "alpha_pattern")
    for key, value in patterns.items() if isinstance(patterns, dict) else ():
        pattern = compiled(rf"(.*\.)?({key})$")
        if pattern is not None and pattern.match(module):
            return value
    return adapter.get(name, _DEFAULT)


def _config(**changes: Any) -> dict[str, Any]:
    return {"peft_type": "LOKR", "r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **changes}


def _tensors() -> dict[str, Any]:
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    return {f"{stem}.lokr_w1": ("F32", (4, 4)), f"{stem}.lokr_w2": ("F32", (4, 4))}
