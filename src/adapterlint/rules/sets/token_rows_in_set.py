"""AL513."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, raises, wrong
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX, Kind
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.model.together import saved_sets, vocabulary_ends
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, llama_base, llama_tensors, lora_config

_ROWS = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": ("F32", (3, 16))}
_INDICES = {"embed_tokens": [3, 5, 7]}


class TokenRowsInSet(SetRule):
    """## What it does
    Looks for sets in which some adapters have `trainable_token_indices` and others have none.

    ## Why is this bad?
    PEFT 0.15 and later look for token rows in every adapter once the embedding is wrapped: an adapter without them,
    loaded later, raises a KeyError. Loaded first, it answers with the other's tokens up to 0.17, and on a base with
    tied embeddings on every release. Where an earlier adapter saves the embedding (or a head that is tied to it), or
    has LoRA on it, the rows cannot be put in at all.

    ## Example
    An adapter with three trained tokens, then an ordinary one.

    ## Fix
    None in the files: load adapters without token rows first, on PEFT 0.18 or later.

    ## References
    - PEFT `utils/other.py`, `TrainableTokensWrapper`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL513"
    name = "token-rows-in-set"
    damage = "peft_model"
    spares = ("merge",)

    @staticmethod
    def valid() -> list[AnyExample]:
        rows = Example("a", lora_config(trainable_token_indices=_INDICES), {**llama_tensors(), **_ROWS})
        method = _only_rows()
        return [
            SetExample("both have rows", {"a": rows, "b": rows}, llama_base()),
            SetExample("nothing but rows", {"a": method, "b": method}, llama_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        rows = Example("a", lora_config(trainable_token_indices=_INDICES), {**llama_tensors(), **_ROWS})
        plain = Example("b", lora_config(), llama_tensors())
        embedding = {"base_model.model.model.embed_tokens.weight": ("F32", (48, 16))}
        whole = Example("c", lora_config(modules_to_save=["embed_tokens"]), {**llama_tensors(), **embedding})
        return [
            SetExample("rows first", {"a": rows, "b": plain}, llama_base()),
            SetExample("rows second", {"b": plain, "a": rows}, llama_base()),
            SetExample("tied", {"b": plain, "a": rows}, llama_base(tied=True)),
            SetExample("nothing but rows, and tied", {"a": _only_rows(), "b": _only_rows()}, llama_base(tied=True)),
            SetExample("rows after the whole embedding", {"c": whole, "a": rows}, llama_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        yield from self._method(subject)
        having = [bool(member.adapter.get("trainable_token_indices")) for member in subject.members]
        if all(having) or not any(having):
            return
        number = having.index(True)
        owner = subject.members[number]
        yield self.finding(
            f"only some adapters of this set train token rows ({owner.adapter.name} does)",
            owner.at_field("trainable_token_indices"),
            effects=tuple(_effects(subject, having, number)),
            adapters=subject.paths,
        )

    def _method(self, subject: SetSubject) -> Iterator[Finding]:
        """Adapters that are nothing but token rows: a tied head takes those of the last one until set_adapter."""
        first, base = subject.members[0], subject.base
        alone = all(member.adapter.peft_type == "TRAINABLE_TOKENS" for member in subject.members)
        if not alone or base is None or not base.tied or not peft.vocabulary_heads(base):
            return
        text = "ValueError: TrainableTokensLayer wraps an unknown layer type, maybe you are targeting the wrong layer?"
        effects = [
            wrong("peft>=0.19,transformers<5", adapter=first.adapter.name),
            raises("peft>=0.18,transformers>=5", text, stage="after_load"),
        ]
        if len(subject.members) > 2:
            effects.append(wrong("peft>=0.19", operation="delete"))
        yield self.finding(
            f"the head, which the base ties to the embedding, takes the rows of {subject.members[-1].adapter.name}",
            first.at_field("token_indices"),
            effects=tuple(effects),
            adapters=subject.paths,
        )


def _effects(subject: SetSubject, having: list[bool], number: int) -> Iterator[Effect]:
    later = next(
        (m for m, has in zip(subject.members[number + 1 :], having[number + 1 :], strict=True) if not has), None
    )
    if later is not None:
        name = _row_name(subject.members[number])
        yield raises("peft>=0.15", f"KeyError: '{name}'", adapter=later.adapter.name)
    elif number:
        tied = subject.base is not None and bool(vocabulary_ends(subject.members[number]) - {subject.base.embedding})
        yield wrong(
            "peft>=0.15" if tied and having.count(True) == 1 else "peft>=0.15,<0.18",
            adapter=subject.members[0].adapter.name,
        )
    yield from _occupied(subject, number)


def _occupied(subject: SetSubject, number: int) -> Iterator[Effect]:
    """An earlier adapter has its own layer, or copy, where the rows belong."""
    name, ends = subject.members[number].adapter.name, vocabulary_ends(subject.members[number])
    saved = saved_sets(subject, heads_for_all=True).saved
    for index, member in enumerate(subject.members[:number]):
        if ends & member.layers:
            text = "TypeError: trainable_token_indices cannot be applied to modules of type <class 'peft.tuners.lora"
            yield raises("peft>=0.15", text, adapter=name)
        if ends & saved[index]:
            early = "ValueError: The embedding layer is already marked to be trained fully"
            late = "ValueError: TrainableTokensLayer wraps an unknown layer type"
            yield raises("peft>=0.15,<0.16", early, adapter=name)
            yield raises("peft>=0.16", late, stage="after_load", adapter=name)  # in the first forward


def _row_name(member: Subject) -> str:
    stored = next((key.canonical for key in member.adapter.of_kind(Kind.TOKENS)), None)
    return stored or f"{PREFIX}embed_tokens.token_adapter.trainable_tokens_delta"


def _only_rows() -> Example:
    config = {
        "base_model_name_or_path": "example/tiny-llama",
        "inference_mode": True,
        "init_weights": True,
        "peft_type": "TRAINABLE_TOKENS",
        "target_modules": ["embed_tokens"],
        "task_type": "CAUSAL_LM",
        "token_indices": [3, 5, 7],
    }
    return Example("d", config, {"base_model.model.model.embed_tokens.trainable_tokens_delta": ("F32", (3, 16))})
