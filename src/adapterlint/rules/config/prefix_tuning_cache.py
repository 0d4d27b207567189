"""AL114."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises, unknown
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, bert_base, llama_base

_TARGETS = "peft>=0.9,<0.14"
_TEXT = "AttributeError: 'tuple' object has no attribute 'get_seq_length'"
# Models of transformers 4.48 that take a Cache and make none of a tuple.
_MODELS = frozenset(
    {
        *("llama", "mistral", "mixtral", "qwen2", "gemma", "phi", "phi3", "cohere", "olmo", "olmo2", "starcoder2"),
        *("granite", "glm"),
    }
)


class PrefixTuningCache(Rule):
    """## What it does
    Looks for prefix tuning on decoder models whose code in the transformers of 2024 takes a `Cache` object only.

    ## Why is this bad?
    PEFT before 0.14 hands the prefix over as a tuple. With the transformers releases of PEFT 0.9 to 0.13 (4.48) the
    adapter loads, and the first forward pass raises.

    ## Example
    A `PREFIX_TUNING` adapter for Llama and a target of PEFT 0.13.

    ## Fix
    None in the files: use PEFT 0.14 or newer, or an older transformers.

    ## References
    - PEFT `peft_model.py`, `get_prompt`; transformers 4.48 `modeling_llama.py`; measured on Llama with 0.4.0 to 0.21.2.
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
                effects = (unknown(_TARGETS, missing=("base",)),)
                yield self.finding(message, subject.at_field("peft_type"), effects=effects)
        elif base.model_type in _MODELS:
            message = f"prefix tuning of {base.model_type!r} before PEFT 0.14 fails in forward with transformers 4.48"
            effects = (raises(_TARGETS, _TEXT, stage="after_load"),)
            yield self.finding(message, subject.at_field("peft_type"), effects=effects)
