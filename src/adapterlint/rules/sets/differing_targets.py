"""AL510."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from adapterlint.findings import Effect, Finding, Fix, Safety, Severity, raises, wrong
from adapterlint.model import peft
from adapterlint.model.base import Base
from adapterlint.model.keys import Kind
from adapterlint.model.keytable import KeyTable
from adapterlint.model.subject import SetSubject, Subject, first_names
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, llama_base, llama_tensors, lora_config


class DifferingTargets(SetRule):
    """## What it does
    Looks for sets in which a later adapter has LoRA layers in modules where the first has none.

    ## Why is this bad?
    Up to 0.10 PEFT leaves the later adapter's layers active after loading, so that the first answers wrongly until
    `set_adapter` is called. PEFT 0.4 raises where an embedding has LoRA of one adapter only.

    ## Example
    `["q_proj"]` first, `["q_proj", "v_proj"]` second.

    ## Fix
    Safe with `--base`: the `union` form adds layers of zeros. None is needed for 0.11 and later.

    ## References
    - Measured on 0.4.0 to 0.21.2.
    """

    code = "AL510"
    name = "differing-targets"
    severity = Severity.NOTE
    damage = "active"

    @staticmethod
    def valid() -> list[AnyExample]:
        both = Example("a", lora_config(), llama_tensors())
        one = Example("b", lora_config(target_modules=["q_proj"]), llama_tensors(leaves=("q_proj",)))
        return [
            SetExample("equal", {"a": both, "b": both}, llama_base()),
            SetExample("the wider one first", {"a": both, "b": one}, llama_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        both = Example("a", lora_config(), llama_tensors())
        one = Example("b", lora_config(target_modules=["q_proj"]), llama_tensors(leaves=("q_proj",)))
        return [SetExample("the wider one last", {"b": one, "a": both}, llama_base())]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        if not subject.all_lora:
            return
        yield from self._embedding(subject)
        first, *later = subject.members
        own = set(first.selected) if first.base else set(first.covered)
        alike: set[int] = set()
        for member in later:
            if id(member.covered) in alike:
                continue
            alike.add(id(member.covered))
            beyond = [module for module in member.covered if module not in own]
            if beyond:
                yield self.finding(
                    f"{member.adapter.name} has LoRA layers where {first.adapter.name}, the first, has none: "
                    + first_names(beyond),
                    member.at_field("target_modules"),
                    related=(first.at_field("target_modules", first.adapter.name),),
                    effects=tuple(_effects(first, member, beyond)),
                    fix=Fix("Give every adapter the same layers, zero where it has none", Safety.SAFE, form="union"),
                    adapters=subject.paths,
                )
                return

    def _embedding(self, subject: SetSubject) -> Iterator[Finding]:
        """PEFT 0.4 runs an embedding's LoRA for every adapter, whether it has any there or not."""
        having = [_embeddings(m.layers, m.base or m.adapter.table) for m in subject.members]
        for module in sorted(frozenset().union(*having)):
            lacking = next((m for m, own in zip(subject.members, having, strict=True) if module not in own), None)
            if lacking is not None:
                name = lacking.adapter.name
                yield self.finding(
                    f"{name} has no LoRA on the embedding {module}, where another adapter has",
                    lacking.at_field("target_modules"),
                    effects=(raises("peft<0.6", f"KeyError: '{name}'", stage="after_load", adapter=name),),
                    fix=Fix("Give every adapter the same layers, zero where it has none", Safety.SAFE, form="union"),
                    adapters=subject.paths,
                )
                return


@lru_cache(maxsize=64)
def _embeddings(layers: frozenset[str], known: Base | KeyTable) -> frozenset[str]:
    """Those of the layers that are embeddings: by the base, or without one by the stored tensors."""
    if isinstance(known, Base):
        return frozenset(module for module in layers if known.kind(module) == "embedding")
    if Kind.EMBEDDING_A not in known.by_kind:
        return frozenset()
    found = ((module, known.modules.get(module)) for module in layers)
    return frozenset(module for module, entry in found if entry is not None and Kind.EMBEDDING_A in entry.by_kind)


def _effects(first: Subject, member: Subject, beyond: list[str]) -> Iterator[Effect]:
    embedding = any(Kind.EMBEDDING_A in member.covered[module].by_kind for module in beyond)
    yield wrong("peft>=0.6,<0.11", adapter=first.adapter.name)
    legacy = peft.Selection(first.adapter, first.base, legacy=True)  # no exclude_modules yet
    if not embedding and not all(legacy(module) for module in beyond):
        yield wrong("peft<0.6", adapter=first.adapter.name)
