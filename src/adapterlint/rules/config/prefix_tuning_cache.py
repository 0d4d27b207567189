"""AL114."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises, unknown
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, bert_base, llama_base

_TEXT = "AttributeError: 'tuple' object has no attribute 'get_seq_length'"
# The release of transformers from which on models take a Cache and make none of a tuple: those measured.
_SINCE = {
    **dict.fromkeys(
        (
            *("llama", "mistral", "mixtral", "qwen2", "gemma", "phi", "phi3", "cohere", "olmo", "olmo2", "starcoder2"),
            *("granite", "glm"),
        ),
        "4.48",
    ),
    **dict.fromkeys(("opt", "gpt_neox", "gptj", "bloom", "falcon"), "4.57"),
    "gpt2": "5",
}


class PrefixTuningCache(Rule):
    """## What it does
    Looks for prefix tuning on decoder models whose code in transformers, since 4.48 or later, takes a `Cache` object
    only.

    ## Why is this bad?
    PEFT before 0.14 hands the prefix over as a tuple. With such a transformers (that of the time of PEFT 0.9 to 0.13
    is 4.48) the adapter loads, and the first forward pass raises.

    ## Example
    A `PREFIX_TUNING` adapter for Llama and a target of PEFT 0.13.

    ## Fix
    None in the files: use PEFT 0.14 or newer, or an older transformers.

    ## References
    - PEFT `peft_model.py`, `get_prompt`; transformers 4.48 `modeling_llama.py`.
    - Measured on 0.4.0 to 0.21.2 with transformers 4.36.2, 4.48.3, 4.57.1 and 5.23.0.
    """

    code = "AL114"
    name = "prefix-tuning-cache"
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("an encoder", {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}, base=bert_base()),
            Example("no cache", {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}, base=llama_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("Llama", {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}, base=llama_base()),
            Example("unknown base", {"peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM"}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter, base = subject.adapter, subject.base
        if adapter.peft_type != "PREFIX_TUNING":
            return
        if base is None:
            if adapter.get("task_type") == "CAUSAL_LM":
                message = "prefix tuning before PEFT 0.14 fails on many decoders with transformers 4.48"
                effects = (unknown("peft<0.14,transformers>=4.48", missing=("base",)),)
                yield self.finding(message, subject.at_field("peft_type"), effects=effects)
        elif since := _SINCE.get(base.model_type):
            message = (
                f"prefix tuning of {base.model_type!r} before PEFT 0.14 fails in forward since transformers {since}"
            )
            effects = (raises(f"peft<0.14,transformers>={since}", _TEXT, stage="after_load"),)
            found = self.finding(message, subject.at_field("peft_type"), effects=effects)
            yield found._replace(targeted=since != "4.48")  # few use so old a PEFT with so new a transformers
