"""AL403."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises
from adapterlint.model.base import HEAD_LEAVES, VOCABULARY_LEAVES, Base
from adapterlint.model.keys import Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.tensor import FLOAT_DTYPES
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.rank_mismatch import is_read, size_mismatch
from adapterlint.rules.tensors.sharded_remnant import full_mismatch


class BaseShapeMismatch(Rule):
    """## What it does
    Compares the outer dimensions of every LoRA pair, and the shape of every stored parameter, with the base's.

    ## Why is this bad?
    A size mismatch: the load raises on every release. The adapter belongs to a base of another size, or holds one
    shard of a tensor-parallel run.

    ## Example
    `lora_A.weight` of shape `[8, 2048]` for a base whose `q_proj` takes 4096 features.

    ## Fix
    None: the numbers of another base, or of one shard, do not fit this one. Give the base it was trained on.

    ## References
    - Measured on 0.4.0 to 0.21.2.
    """

    code = "AL403"
    name = "base-shape-mismatch"
    needs = ("config", "header", "base")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("fits", lora_config(), llama_tensors(), llama_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        narrow = {
            name: (dtype, (shape[0], 8) if "lora_A" in name else shape)
            for name, (dtype, shape) in llama_tensors().items()
        }
        norm = {"base_model.model.model.norm.weight": ("F32", (8,))}
        return [
            Example("fewer inputs", lora_config(), narrow, llama_base()),
            Example("a norm", lora_config(modules_to_save=["model.norm"]), {**llama_tensors(), **norm}, llama_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        if base is None or not subject.adapter.is_lora or subject.adapter.get("use_bdlora"):
            return
        wrong_pairs = [
            key
            for entry in subject.covered.values()
            for key in (entry.a, entry.b)
            if key and is_read(key) and _outer_differs(subject, base, key)
        ]
        if wrong_pairs:
            key = wrong_pairs[0]
            expected = _expected_outer(base, key)
            yield self.finding(
                f"{len(wrong_pairs)} LoRA tensors do not fit the base: {key.name} is "
                f"{list(subject.adapter.shape(key))}, "
                f"{key.module} has {expected} {'inputs' if key.kind in (Kind.LORA_A, Kind.EMBEDDING_A) else 'outputs'}"
                + (f" (also {first_names([k.name for k in wrong_pairs[1:]], 2)})" if len(wrong_pairs) > 1 else ""),
                subject.at_tensor(key.name),
                effects=(size_mismatch(subject, key),),
            )
        for key, shape in differing_full(subject, base):
            if key.module.rpartition(".")[2] not in (*VOCABULARY_LEAVES, *HEAD_LEAVES):
                yield self.finding(
                    f"{key.full_name} is {list(subject.adapter.shape(key))}, in the base {list(shape)}",
                    subject.at_tensor(key.name),
                    effects=(raises("peft", full_mismatch(subject, key)),),
                )
                return


def differing_full(subject: Subject, base: Base) -> Iterator[tuple[Key, tuple[int, ...]]]:
    """Stored parameters that PEFT copies into the model and whose shape is not the base's, with that shape."""
    for key in subject.adapter.saved.values():
        if not key.has_canonical_prefix or key.infix is not None or 0 in subject.adapter.shape(key):
            continue
        if key.module in subject.covered:
            continue  # wrapped by LoRA: the name is not found, the tensor dropped
        stored = base.under(key.module).get(key.full_name)
        if stored is not None and stored.dtype in FLOAT_DTYPES and stored.shape != subject.adapter.shape(key):
            yield key, stored.shape


def _expected_outer(base: Base, key: Key) -> int | None:
    weight = base.modules.get(key.module, {}).get("weight")
    if weight is None or weight.dtype not in FLOAT_DTYPES or len(weight.shape) != 2:
        return None
    rows, columns = weight.shape
    if key.kind is Kind.EMBEDDING_A:
        return rows
    if key.kind is Kind.EMBEDDING_B:
        return columns
    if base.is_conv1d(key.module):
        rows, columns = columns, rows
    return columns if key.kind is Kind.LORA_A else rows


def _outer_differs(subject: Subject, base: Base, key: Key) -> bool:
    shape = subject.adapter.shape(key)
    expected = _expected_outer(base, key)
    if (
        expected is None
        or len(shape) != 2
        or 0 in shape
        or key.kind not in (Kind.LORA_A, Kind.LORA_B, Kind.EMBEDDING_A, Kind.EMBEDDING_B)
    ):
        return False
    return (shape[1] if key.kind in (Kind.LORA_A, Kind.EMBEDDING_A) else shape[0]) != expected
