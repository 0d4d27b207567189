"""AL406."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, RemoveConfig, Safety, raises, wrong
from adapterlint.model import peft
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.keys import PREFIX
from adapterlint.model.patterns import compiled
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.together import trains_rows
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    bert_base,
    bert_config,
    bert_tensors,
    llama_base,
    llama_tensors,
    lora_config,
    lora_pair,
)

_EMBED, _HEAD = "base_model.model.model.embed_tokens", "base_model.model.lm_head"
_SHAPE = ("F32", (48, 16))
_FIELD = "/ensure_weight_tying"
_BERT = ("query", "value", "word_embeddings")


class TiedEmbeddings(Rule):
    """## What it does
    Looks for `ensure_weight_tying` in an adapter that changes the input embedding or the output head, and holds only
    one of them.

    ## Why is this bad?
    With this flag PEFT 0.18 and later make both ends one, and look for the tensors of both: they raise, or one end
    takes the other's values. PEFT 0.18 and 0.19 do so even if the base does not tie them.

    ## Example
    `"ensure_weight_tying": true` with `"modules_to_save": ["embed_tokens"]` and no `lm_head` in the file.

    ## Fix
    Safe: remove the flag. What is in the file is then loaded, and nothing else.

    ## References
    - PEFT `utils/other.py`, `modules_to_tie`; peft#2777; measured on 0.4.0 to 0.21.2.
    """

    code = "AL406"
    name = "tied-embeddings"
    needs = ("config", "header", "base")

    @staticmethod
    def valid() -> list[AnyExample]:
        both = {f"{_EMBED}.weight": _SHAPE, f"{_HEAD}.weight": _SHAPE}
        config = lora_config(modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True)
        return [
            Example("both ends", config, {**llama_tensors(), **both}, llama_base(tied=True), fill="zero"),
            Example("neither", lora_config(ensure_weight_tying=True), llama_tensors(), llama_base(tied=True)),
            Example(
                "as PEFT saves it",
                _saving("embed_tokens"),
                {**llama_tensors(), **both},
                llama_base(tied=True),
                fill="zero",
            ),
            Example(
                "no other end", bert_config(ensure_weight_tying=True, target_modules=[*_BERT]), _bert(), bert_base()
            ),
            Example("no flag", _saving("embed_tokens", False), _tensors(f"{_EMBED}.weight"), llama_base(tied=True)),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        lora = {f"{_EMBED}.lora_embedding_A": ("F32", (4, 48)), f"{_EMBED}.lora_embedding_B": ("F32", (16, 4))}
        targets = lora_config(ensure_weight_tying=True, target_modules=["q_proj", "v_proj", "embed_tokens"])
        head = lora_config(ensure_weight_tying=True, target_modules=["q_proj", "v_proj", "lm_head"])
        return [
            Example("one end", _saving("embed_tokens"), _tensors(f"{_EMBED}.weight"), llama_base(tied=True)),
            Example("the other end", _saving("lm_head"), _tensors(f"{_HEAD}.weight"), llama_base(tied=True)),
            Example("not tied", _saving("lm_head"), _tensors(f"{_HEAD}.weight"), llama_base()),
            Example(
                "LoRA on the head", head, {**llama_tensors(), **lora_pair("lm_head", outputs=48)}, llama_base(tied=True)
            ),
            Example("LoRA", targets, {**llama_tensors(), **lora}, llama_base(tied=True)),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter, base = subject.adapter, subject.base
        if not adapter.is_lora or base is None or adapter.get("ensure_weight_tying") is not True:
            return
        heads = peft.vocabulary_heads(base)
        if not heads or base.embedding is None:
            return
        ends = (base.embedding, *heads)
        saving = peft.names_an_end(adapter.names("modules_to_save"))
        effects = tuple(_saved(subject, base, ends) if saving else _changed(subject, base, ends))
        if effects:
            changes = [end for end in ends if end in subject.layers or f"{end}.weight" in adapter.saved]
            yield self.finding(
                f"ensure_weight_tying makes one of {' and '.join(sorted(ends))}, but the file changes "
                + (first_names(sorted(changes)) or "neither"),
                subject.at_field("ensure_weight_tying"),
                effects=effects,
                fix=Fix("Remove ensure_weight_tying", Safety.SAFE, (RemoveConfig(_FIELD),)),
            )


def _saved(subject: Subject, base: Base, ends: tuple[str, ...]) -> Iterator[Effect]:
    """PEFT saves all the ends, whichever are named, and looks for the tensors of all."""
    missing = next((end for end in ends if f"{end}.weight" not in subject.adapter.saved), None)
    text = f"KeyError: '{PREFIX}{missing}.weight'"
    if not peft.saves(subject.adapter.names("modules_to_save"), ends[0]):
        yield raises("peft>=0.18,<0.19", "AttributeError: 'Embedding' object has no attribute 'modules_to_save'")
    elif missing:
        yield raises("peft>=0.18,<0.19", text)
    if missing:
        yield raises("peft>=0.19" if base.tied else "peft>=0.19,<0.20", text)
    elif not base.tied:
        yield wrong("peft>=0.19,<0.20")  # on a tied base AL304 looks whether they differ


def _changed(subject: Subject, base: Base, ends: tuple[str, ...]) -> Iterator[Effect]:
    """LoRA on one end: since 0.19 PEFT gives the other one the same."""
    changed = subject.layers.intersection(ends)
    if not changed or not _targeted(subject.adapter):
        return
    if not base.tied and trains_rows(subject):
        text = "TypeError: trainable_token_indices cannot be applied to modules of type <class 'peft.tuners.lora"
        yield raises("peft>=0.19,<0.20", text)
    elif not base.tied:
        yield wrong("peft>=0.19,<0.20")
    elif changed != set(ends):
        yield wrong("peft>=0.19")


def _targeted(adapter: Adapter) -> bool:
    targets = adapter.get("target_modules")
    if isinstance(targets, str):
        found = compiled(targets)
        return found is not None and any(found.fullmatch(name) for name in peft.TIED_NAMES)
    return peft.names_an_end(adapter.names("target_modules"))


def _saving(module: str, flag: bool = True) -> dict[str, object]:
    return lora_config(modules_to_save=[module], ensure_weight_tying=flag)


def _tensors(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {**llama_tensors(), name: _SHAPE}


def _bert() -> dict[str, tuple[str, tuple[int, ...]]]:
    stem = "base_model.model.bert.embeddings.word_embeddings"
    rows = {f"{stem}.lora_embedding_A": ("F32", (4, 48)), f"{stem}.lora_embedding_B": ("F32", (16, 4))}
    return {**bert_tensors(), **rows}
