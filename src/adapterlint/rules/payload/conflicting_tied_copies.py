"""AL304."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, RemoveConfig, Safety, Severity, wrong
from adapterlint.model.keys import Key
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config

_UNTIED = (RemoveConfig("/ensure_weight_tying"),)


class ConflictingTiedCopies(Rule):
    """## What it does
    Looks for an embedding and a language-model head that are stored as different matrices, where the base ties the two.

    ## Why is this bad?
    With `ensure_weight_tying` PEFT 0.19 and later replace the head by the embedding. Without it both are used as
    trained, but merging writes one over the other.

    ## Example
    `"modules_to_save": ["embed_tokens", "lm_head"]` with `"ensure_weight_tying": true` and two different matrices.

    ## Fix
    Unsafe: `ensure_weight_tying` is removed, so that every release uses both as stored; that the two were trained apart
    is what their values say and the flag denies. Without the flag both are used as they are until somebody merges
    them: None, the base has room for one.

    ## References
    - peft#2777; measured on 0.4.0 to 0.21.2.
    """

    code = "AL304"
    name = "conflicting-tied-copies"
    needs = ("config", "header", "base", "payload")

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("not tied", _config(ensure_weight_tying=True), _tensors(), llama_base()),
            Example("one only", lora_config(modules_to_save=["lm_head"]), _tensors("lm_head"), llama_base(tied=True)),
            Example("equal", _config(), _tensors(), llama_base(tied=True), fill="zero"),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("replaced by the embedding", _config(ensure_weight_tying=True), _tensors(), llama_base(tied=True)),
            Example("apart", _config(), _tensors(), llama_base(tied=True)),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        ends = tied_ends(subject)
        if ends is None:
            return
        first, second = (subject.adapter.tensors[key.name] for key in ends)
        if first.shape == second.shape and subject.payload.equal(first, second) is not False:
            return
        flag = subject.adapter.get("ensure_weight_tying") is True
        yield self.finding(
            f"{ends[0].full_name} and {ends[1].full_name} are stored with different values, but the base ties them"
            + (" and ensure_weight_tying makes PEFT keep one of them" if flag else ""),
            subject.at_field("ensure_weight_tying") if flag else subject.at_tensor(ends[1].name),
            related=tuple(subject.at_tensor(key.name, "stored") for key in ends),
            effects=(wrong("peft>=0.19"),) if flag else (),
            fix=Fix("Remove ensure_weight_tying", Safety.UNSAFE, _UNTIED) if flag else None,
            severity=Severity.WARNING,
        )


def tied_ends(subject: Subject) -> tuple[Key, Key] | None:
    """The declared, stored weights of input embedding and head, where the base ties them."""
    base = subject.base
    if base is None or not base.tied or base.embedding is None:
        return None
    saved = subject.adapter.saved
    embedding = saved.get(f"{base.embedding}.weight")
    head = next((saved[name] for name in ("lm_head.weight", "embed_out.weight") if name in saved), None)
    return (embedding, head) if embedding and head else None


def _config(**more: object) -> dict[str, object]:
    return lora_config(modules_to_save=["embed_tokens", "lm_head"], **more)


def _tensors(*only: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    both = {"lm_head": "base_model.model.lm_head.weight", "embed_tokens": "base_model.model.model.embed_tokens.weight"}
    return {**llama_tensors(), **{both[name]: ("F32", (48, 16)) for name in (only or tuple(both))}}
