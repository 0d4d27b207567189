"""AL406."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, RemoveConfig, Safety, raises, wrong
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.together import trains_rows, vocabulary_ends
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config

_EMBED, _HEAD = "base_model.model.model.embed_tokens", "base_model.model.lm_head"
_SHAPE = ("F32", (48, 16))
_FIELD = "/ensure_weight_tying"


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
            Example("no flag", _saving("embed_tokens", False), _tensors(f"{_EMBED}.weight"), llama_base(tied=True)),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        lora = {f"{_EMBED}.lora_embedding_A": ("F32", (4, 48)), f"{_EMBED}.lora_embedding_B": ("F32", (16, 4))}
        targets = lora_config(ensure_weight_tying=True, target_modules=["q_proj", "v_proj", "embed_tokens"])
        return [
            Example("one end", _saving("embed_tokens"), _tensors(f"{_EMBED}.weight"), llama_base(tied=True)),
            Example("the other end", _saving("lm_head"), _tensors(f"{_HEAD}.weight"), llama_base(tied=True)),
            Example("not tied", _saving("lm_head"), _tensors(f"{_HEAD}.weight"), llama_base()),
            Example("LoRA", targets, {**llama_tensors(), **lora}, llama_base(tied=True)),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if not subject.adapter.is_lora or subject.adapter.get("ensure_weight_tying") is not True:
            return
        ends = vocabulary_ends(subject, tied_only=False)
        changed, saved = ends & subject.layers, ends & frozenset(subject.saved_modules)
        effects = tuple(_effects(subject, ends, changed, saved))
        if effects:
            yield self.finding(
                f"ensure_weight_tying makes one of {' and '.join(sorted(ends))}, but the file changes "
                + first_names(sorted(changed | saved))
                + (" in different ways" if changed and saved else ""),
                subject.at_field("ensure_weight_tying"),
                effects=effects,
                fix=Fix("Remove ensure_weight_tying", Safety.SAFE, (RemoveConfig(_FIELD),)),
            )


def _effects(
    subject: Subject, ends: frozenset[str], changed: frozenset[str], saved: frozenset[str]
) -> Iterator[Effect]:
    assert subject.base is not None
    tied, embedding = subject.base.tied, subject.base.embedding
    if saved and saved != ends:
        missing = min(ends - saved)
        early = late = f"KeyError: '{PREFIX}{missing}.weight'"
        if missing == embedding:
            early = "AttributeError: 'Embedding' object has no attribute 'modules_to_save'"
        yield raises("peft>=0.18,<0.19", early)
        yield raises("peft>=0.19" if tied else "peft>=0.19,<0.20", late)
    elif saved and not tied:
        yield wrong("peft>=0.19,<0.20")  # on a tied base AL304 looks whether they differ
    elif changed and not saved:
        if tied and changed == {embedding}:
            yield wrong("peft>=0.19")
        elif not tied and trains_rows(subject):
            text = "TypeError: trainable_token_indices cannot be applied to modules of type <class 'peft.tuners.lora"
            yield raises("peft>=0.19,<0.20", text)
        elif not tied:
            yield wrong("peft>=0.19,<0.20")


def _saving(module: str, flag: bool = True) -> dict[str, object]:
    return lora_config(modules_to_save=[module], ensure_weight_tying=flag)


def _tensors(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {**llama_tensors(), name: _SHAPE}
