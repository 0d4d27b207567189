"""AL115."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, pointer_to, unknown
from adapterlint.model.patterns import explosive
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_TEXTS = ("target_modules", "exclude_modules", "layers_pattern")
_KEYED = ("rank_pattern", "alpha_pattern")


class ExplosivePattern(Rule):
    """## What it does
    Looks for regular expressions that repeat what itself repeats without bound, or do so many times in a row.

    ## Why is this bad?
    Matching one against a module path can take longer than anyone waits, in PEFT as here: the load does not raise, it
    never ends. What such a pattern selects is not worked out.

    ## Example
    `"target_modules": "(.*.*)*proj"`.

    ## Fix
    None: what the pattern was to match must not be guessed. Write it without a repeat inside a repeat, or list the
    modules.

    ## References
    - Python's `re` backtracks without a limit; PEFT `tuners/tuners_utils.py` calls `re.fullmatch` for every module.
    """

    code = "AL115"
    name = "explosive-pattern"

    @staticmethod
    def valid() -> list[AnyExample]:
        vision = (
            r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\..*)"
        )
        return [
            Example("a plain pattern", lora_config(target_modules=r".*\.(q_proj|v_proj)"), llama_tensors()),
            Example("one for a model that also sees", lora_config(target_modules=vision), llama_tensors()),
            Example("a list", lora_config(), llama_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("a repeat inside a repeat", lora_config(target_modules="(.*.*)*proj"), llama_tensors()),
            Example("the same in a key", lora_config(rank_pattern={"(a+)+": 4}), llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        for field, pointer, pattern in _patterns(subject):
            if explosive(pattern):
                yield self.finding(
                    f"{field} holds a regular expression whose matching may never end: {pattern[:80]!r}",
                    subject.at_config(pointer),
                    effects=(unknown(),),
                )


def _patterns(subject: Subject) -> Iterator[tuple[str, str, str]]:
    for field in _TEXTS:
        value = subject.adapter.get(field)
        if isinstance(value, str):
            yield field, pointer_to(field), value
    for field in _KEYED:
        value = subject.adapter.get(field)
        for key in value if isinstance(value, dict) else ():
            yield field, pointer_to(field, key), key
