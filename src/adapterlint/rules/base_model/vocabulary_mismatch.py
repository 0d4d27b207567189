"""AL404."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, Severity, raises
from adapterlint.model.base import VOCABULARY_LEAVES
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.base_model.base_shape_mismatch import differing_full
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.sharded_remnant import full_mismatch


class VocabularyMismatch(Rule):
    """## What it does
    Compares the rows of stored embeddings and language-model heads with the base's vocabulary.

    ## Why is this bad?
    The load raises a size mismatch on every release, declared or not. The adapter was trained after
    `resize_token_embeddings`; the base must be resized before loading.

    ## Example
    `embed_tokens.weight` of 32,004 rows on a base of 32,000.

    ## Fix
    None in the files: the rows that this base lacks were trained. Call `model.resize_token_embeddings(N)` before
    loading the adapter.

    ## References
    - peft#2290, peft#1554, vllm#3994; measured on 0.4.0 to 0.21.2.
    """

    code = "AL404"
    name = "vocabulary-mismatch"
    needs = ("config", "header", "base")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        head = {"base_model.model.lm_head.weight": ("F32", (48, 16))}
        return [Example("same", lora_config(modules_to_save=["lm_head"]), {**llama_tensors(), **head}, llama_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = {"base_model.model.lm_head.weight": ("F32", (50, 16))}
        return [Example("resized", lora_config(modules_to_save=["lm_head"]), {**llama_tensors(), **head}, llama_base())]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        if base is None:
            return
        found = [(k, s) for k, s in differing_full(subject, base) if k.module.rpartition(".")[2] in VOCABULARY_LEAVES]
        if found:
            key, shape = found[0]
            rows = subject.adapter.shape(key)[0] if subject.adapter.shape(key) else 0
            yield self.finding(
                f"{key.full_name} has {rows} rows, the base's vocabulary {shape[0] if shape else 0}: "
                "the base must be resized before the adapter is loaded",
                subject.at_tensor(key.name),
                effects=(raises("peft", full_mismatch(subject, key)),),
                fix=Fix(f"Call model.resize_token_embeddings({rows}) before loading", Safety.DISPLAY),
            )
