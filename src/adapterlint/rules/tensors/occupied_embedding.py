"""AL224."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.together import trains_rows, vocabulary_ends
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config

_EMBED, _HEAD = "base_model.model.model.embed_tokens", "base_model.model.lm_head"
_ROWS = {f"{_EMBED}.token_adapter.trainable_tokens_delta": ("F32", (3, 16))}


class OccupiedEmbedding(Rule):
    """## What it does
    Looks for `trainable_token_indices` of an embedding that the same adapter saves whole or changes by LoRA. Where the
    base ties its head to the embedding, the head counts too.

    ## Why is this bad?
    PEFT 0.15 and later refuse two ways of training one module: they raise at loading.

    ## Example
    Token rows of `embed_tokens`, and `"modules_to_save": ["lm_head"]`, on a base with tied embeddings.

    ## Fix
    None: the file holds both.

    ## References
    - PEFT `utils/other.py`, `set_additional_trainable_modules`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL224"
    name = "occupied-embedding"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        head = lora_config(trainable_token_indices=[3, 5, 7], modules_to_save=["lm_head"])
        tensors = {**llama_tensors(), **_ROWS, f"{_HEAD}.weight": ("F32", (48, 16))}
        return [
            Example("a head of its own", head, tensors, llama_base()),
            Example(
                "only rows",
                lora_config(trainable_token_indices=[3, 5, 7]),
                {**llama_tensors(), **_ROWS},
                llama_base(tied=True),
            ),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = lora_config(trainable_token_indices=[3, 5, 7], modules_to_save=["lm_head"])
        whole = lora_config(trainable_token_indices=[3, 5, 7], modules_to_save=["embed_tokens"])
        targets = lora_config(trainable_token_indices=[3, 5, 7], target_modules=["q_proj", "v_proj", "embed_tokens"])
        lora = {f"{_EMBED}.lora_embedding_A": ("F32", (4, 48)), f"{_EMBED}.lora_embedding_B": ("F32", (16, 4))}
        tensors = {**llama_tensors(), **_ROWS}
        return [
            Example("a tied head", head, {**tensors, f"{_HEAD}.weight": ("F32", (48, 16))}, llama_base(tied=True)),
            Example("saved whole", whole, {**tensors, f"{_EMBED}.weight": ("F32", (48, 16))}),
            Example("LoRA", targets, {**tensors, **lora}, llama_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if not subject.adapter.is_lora or not trains_rows(subject):
            return
        ends = vocabulary_ends(subject)
        changed, saved = ends & subject.layers, ends & frozenset(subject.saved_modules)
        if not changed and not saved:
            return
        text = "TypeError: trainable_token_indices cannot be applied to modules of type <class 'peft.tuners.lora.layer."
        if saved:
            text = f"KeyError: '{PREFIX}{min(saved)}.token_adapter.base_layer.weight'"
        yield self.finding(
            f"trainable_token_indices replaces rows of {first_names(sorted(changed | saved))}, which "
            + ("modules_to_save saves whole" if saved else "has LoRA too"),
            subject.at_field("trainable_token_indices"),
            related=(subject.at_field("modules_to_save" if saved else "target_modules", "names it as well"),),
            effects=(raises("peft>=0.15", text),),
        )
