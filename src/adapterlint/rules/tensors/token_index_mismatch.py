"""AL214."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterlint.findings import Finding, Fix, Safety, SetConfig, Severity, raises, wrong
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX, Kind
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.tensors.noncanonical_prefix import rename_fix

_TENSOR = "token_adapter.trainable_tokens_delta"
_FIELD = "/trainable_token_indices"
_EMBED = "base_model.model.model.embed_tokens"


class TokenIndexMismatch(Rule):
    """## What it does
    Compares `trainable_token_indices` with the stored token rows: both are there, with as many rows as indices.

    ## Why is this bad?
    Rows without indices are dropped: the new tokens answer as untrained ones. Indices without rows (an empty list
    too), or with another number of them, raise from 0.15 on.

    ## Example
    `"trainable_token_indices": {"embed_tokens": [3, 5, 7]}` beside `trainable_tokens_delta` of shape `[2, 16]`.

    ## Fix
    None: which token a row belongs to stands in the config alone, and the rows in the weights alone.

    ## References
    - PEFT `tuners/trainable_tokens`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL214"
    name = "token-index-mismatch"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        rows = {f"{_EMBED}.{_TENSOR}": ("F32", (3, 16))}
        return [
            Example(
                "dict", lora_config(trainable_token_indices={"embed_tokens": [3, 5, 7]}), {**llama_tensors(), **rows}
            ),
            Example("list", lora_config(trainable_token_indices=[3, 5, 7]), {**llama_tensors(), **rows}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        rows = {f"{_EMBED}.{_TENSOR}": ("F32", (2, 16))}
        indices = {"embed_tokens": [3, 5, 7]}
        return [
            Example("indices were lost", lora_config(), {**llama_tensors(), **rows}),
            Example("rows were lost", lora_config(trainable_token_indices=indices), llama_tensors()),
            Example("an empty list", lora_config(trainable_token_indices=[]), llama_tensors()),
            Example("another number", lora_config(trainable_token_indices=indices), {**llama_tensors(), **rows}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if not adapter.is_lora:
            return
        rows = {key.module: key for key in adapter.of_kind(Kind.TOKENS)}
        wanted = _indices(adapter.get("trainable_token_indices"))
        if rows and not wanted:
            key = next(iter(rows.values()))
            yield self.finding(
                "trained token rows are stored but trainable_token_indices does not say which tokens they are",
                subject.at_tensor(key.name),
                related=(subject.at_field("trainable_token_indices", "says nothing"),),
                effects=(wrong(),),
            )
            return
        for name, indices in wanted.items():
            yield from self._beyond(subject, name, indices)
            yield from self._one(subject, name, indices, rows)

    def _beyond(self, subject: Subject, name: str | None, indices: list[Any]) -> Iterator[Finding]:
        """Indices that the embedding of the base does not have."""
        base = subject.base
        weight = base.modules.get(_module(subject, name), {}).get("weight") if base else None
        size = weight.shape[0] if weight is not None and len(weight.shape) == 2 else None
        beyond = [i for i in indices if size is not None and isinstance(i, int) and not -size <= i < size]
        if beyond:
            yield self.finding(
                f"trainable_token_indices names token {beyond[0]}, but the base's embedding has {size}",
                subject.at_field("trainable_token_indices"),
                effects=(raises("peft>=0.15", f"IndexError: index {beyond[0]} is out of bounds for dimension 0"),),
            )

    def _one(self, subject: Subject, name: str | None, indices: list[Any], rows: dict[str, Any]) -> Iterator[Finding]:
        key = next((key for module, key in rows.items() if name is None or module.endswith(name)), None)
        where = subject.at_field("trainable_token_indices")
        if key is None:
            module = _module(subject, name)
            yield self.finding(
                f"trainable_token_indices names {len(indices)} tokens of {module} but their rows are not stored",
                where,
                effects=(
                    *((wrong("peft<0.15"),) if indices else ()),
                    raises("peft>=0.15", f"KeyError: '{PREFIX}{module}.{_TENSOR}'"),
                ),
                fix=None if indices else Fix("Set it to null", Safety.SAFE, (SetConfig(_FIELD, None),)),
            )
            return
        elsewhere = subject.module_exists(key.module) is False
        if key.name != key.canonical or elsewhere:
            module = _module(subject, name) if elsewhere else key.module
            mine = key.has_canonical_prefix and not elsewhere  # else AL201's, or AL401's
            yield self.finding(
                f"the rows of {module} are stored under another name than PEFT looks for: {key.name}",
                subject.at_tensor(key.name),
                related=(where,),
                effects=(raises("peft>=0.15", f"KeyError: '{PREFIX}{module}.{_TENSOR}'"),),
                fix=rename_fix(subject, [key], f"…{_TENSOR}") if mine else None,
                severity=Severity.WARNING,
            )
        count = subject.adapter.shape(key)[0] if subject.adapter.shape(key) else 0
        if count != len(indices):
            name = f"{PREFIX}{key.module}.{_TENSOR}.default"
            text = peft.size_mismatch(peft.model_class(subject.adapter), name)
            yield self.finding(
                f"trainable_token_indices names {len(indices)} tokens but {count} rows are stored",
                where,
                related=(subject.at_tensor(key.name, f"shape {list(subject.adapter.shape(key))}"),),
                effects=(wrong("peft<0.15"), raises("peft>=0.15", text)),
            )


def _indices(value: Any) -> dict[str | None, list[Any]]:
    if isinstance(value, list):
        return {None: value}
    if isinstance(value, dict):
        return {name: indices for name, indices in value.items() if isinstance(indices, list)}
    return {}


def _module(subject: Subject, name: str | None) -> str:
    if subject.base is None:
        return name or "embed_tokens"
    if name is None:
        return subject.base.embedding or "embed_tokens"
    return next((module for module in subject.base.modules if module.endswith(name)), name)
