"""AL208."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import DropTensor, Effect, Finding, Fix, MakeTensor, Outcome, Safety, Severity, Term
from adapterlint.model import peft
from adapterlint.model.adapter import stored_rank
from adapterlint.model.keys import Key
from adapterlint.model.keytable import ModuleTensors
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config
from adapterlint.rules.tensors.rank_mismatch import is_read, size_mismatch


class BrokenLoraPair(Rule):
    """## What it does
    Looks for modules that have only one half of a LoRA pair, and for halves whose ranks differ.

    ## Why is this bad?
    Without B the module does nothing. Without A its output is random, another one at every load: PEFT keeps the
    random start value of A. Halves of different rank raise.

    ## Example
    `lora_B.weight` of a module whose `lora_A.weight` is not in the file.

    ## Fix
    Unsafe: matrices stored with rows and columns exchanged are turned, where `r` and, with a base, the features of
    every such module say that they are; each element keeps its bytes. None where a half is missing: it is lost.

    ## References
    - Measured on 0.4.0 to 0.21.2; a warning about missing keys appears from 0.14 on.
    """

    code = "AL208"
    name = "broken-lora-pair"
    needs = ("config", "header")
    severity = Severity.ERROR
    damage = "tensors"
    drops = False

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("complete", lora_config(), llama_tensors())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        tensors = llama_tensors()
        no_b = {name: entry for name, entry in tensors.items() if "0.self_attn.q_proj.lora_B" not in name}
        no_a = {name: entry for name, entry in tensors.items() if "lora_A" not in name}
        turned = dict(tensors)
        turned["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = ("F32", (16, 4))
        return [
            Example("one B is missing", lora_config(), no_b),
            Example("every A is missing", lora_config(), no_a),
            Example("A is transposed", lora_config(), turned),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if not subject.adapter.is_lora:
            return
        lone = [entry for entry in subject.adapter.table.lone if entry.module in subject.covered]
        for half, lacking in (("B", [e for e in lone if e.b is None]), ("A", [e for e in lone if e.a is None])):
            if lacking:
                entries = [entry for entry in subject.covered.values() if entry.a or entry.b]
                yield self._lone(subject, half, lacking, everything=len(lacking) == len(entries))
        if subject.adapter.get("use_bdlora"):
            return  # block-diagonal halves have other shapes
        if len(subject.adapter.ranks) == 1:
            return
        torn = [entry for entry in subject.covered.values() if _ranks_differ(subject, entry)]
        if torn:
            yield self._torn(subject, torn)

    def _lone(self, subject: Subject, missing: str, entries: list[ModuleTensors], everything: bool) -> Finding:
        consequence = "it does nothing" if missing == "B" else "its output is random at every load"
        key = entries[0].a or entries[0].b
        assert key is not None
        return self.finding(
            f"{len(entries)} modules have no lora_{missing} ({consequence}): {first_names(e.module for e in entries)}",
            subject.at_tensor(key.name),
            effects=(Effect(Outcome.WRONG, "peft", stage="after_load", inert=everything and missing == "B"),),
        )

    def _torn(self, subject: Subject, entries: list[ModuleTensors]) -> Finding:
        a, b = entries[0].a, entries[0].b
        assert a is not None and b is not None
        a_shape, b_shape = list(subject.adapter.shape(a)), list(subject.adapter.shape(b))
        hint = "; lora_A looks transposed" if len(a_shape) == 2 and a_shape[1] == b_shape[1] else ""
        expected = peft.rank(subject.adapter, a.module)
        culprit = a if stored_rank(a.kind, subject.adapter.shape(a)) != expected else b
        return self.finding(
            f"lora_A and lora_B of {len(entries)} modules have different ranks, {a_shape} and {b_shape}{hint}: "
            + first_names(entry.module for entry in entries),
            subject.at_tensor(a.name),
            related=(subject.at_tensor(b.name, f"shape {b_shape}"),),
            effects=(size_mismatch(subject, culprit),) if is_read(culprit) else (),
            fix=_turn(subject, entries),
        )


def _turn(subject: Subject, entries: list[ModuleTensors]) -> Fix | None:
    """Turn the halves that are right the other way round; None if that does not make every pair right."""
    turns: list[DropTensor | MakeTensor] = []
    for entry in entries:
        assert entry.a is not None and entry.b is not None
        a, b = subject.adapter.shape(entry.a), subject.adapter.shape(entry.b)
        rank = peft.rank(subject.adapter, entry.module)
        features = subject.base.features(entry.module) if subject.base else None
        fitting = [
            keys
            for keys, (down, up) in (((entry.a,), (a[::-1], b)), ((entry.b,), (a, b[::-1])))
            if len(a) == len(b) == 2 and (down[0], up[1]) == (rank, rank) and features in (None, (down[1], up[0]))
        ]
        if len(fitting) != 1:
            return None
        turns += [edit for key in fitting[0] for edit in _turned(subject, key)]
    return Fix(f"Transpose {len(turns) // 2} matrices", Safety.UNSAFE, tuple(turns))


def _turned(subject: Subject, key: Key) -> tuple[DropTensor, MakeTensor]:
    tensor = subject.adapter.tensors[key.name]
    term = Term("transposed", (Term("stored", (key.name,)),))
    return DropTensor(key.name), MakeTensor(key.name, tensor.dtype, tensor.shape[::-1], term)


def _ranks_differ(subject: Subject, entry: ModuleTensors) -> bool:
    if entry.a is None or entry.b is None:
        return False
    a = stored_rank(entry.a.kind, subject.adapter.shape(entry.a))
    b = stored_rank(entry.b.kind, subject.adapter.shape(entry.b))
    return a is not None and b is not None and a != b and 0 not in (a, b)
