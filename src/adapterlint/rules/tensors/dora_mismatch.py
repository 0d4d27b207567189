"""AL212."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, SetConfig, Severity, wrong
from adapterlint.model.keys import Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, renamed
from adapterlint.rules.tensors.adapter_name_in_key import named_effects
from adapterlint.rules.tensors.noncanonical_prefix import rename_fix
from adapterlint.rules.tensors.rank_mismatch import size_mismatch

_VECTOR = "lora_magnitude_vector"


class DoraMismatch(Rule):
    """## What it does
    Compares `use_dora` with the magnitude vectors in the file, and looks for vectors under other names than
    `lora_magnitude_vector`.

    ## Why is this bad?
    Vectors without the flag are dropped and the adapter runs as plain LoRA, without a warning in any release. The
    flag without vectors starts from the base's norms. Vectors named `….weight` are read from 0.12 on only, vectors
    named `….default.weight` from 0.21 on under that very name, and vectors named `….default` by no release.

    ## Example
    `"use_dora": false` (or absent, as torchtune writes it) beside `lora_magnitude_vector` tensors.

    ## Fix
    Safe: the flag is set, the vectors are renamed. None where vectors are missing: they are lost, and without the flag
    the adapter is another one.

    ## References
    - PEFT `tuners/lora/dora.py`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL212"
    name = "dora-mismatch"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("DoRA", lora_config(use_dora=True), _dora()),
            Example("LoRA", lora_config(use_dora=False), llama_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        old = renamed(_dora(), lambda name: name + ".weight" if name.endswith(_VECTOR) else name)
        named = renamed(_dora(), lambda name: name + ".default.weight" if name.endswith(_VECTOR) else name)
        long = {name: ("F32", (15,)) if name.endswith(_VECTOR) else entry for name, entry in _dora().items()}
        bare = renamed(_dora(), lambda name: name + ".default" if name.endswith(_VECTOR) else name)
        return [
            Example("the flag was lost", lora_config(), _dora()),
            Example("the vectors were lost", lora_config(use_dora=True), llama_tensors()),
            Example("vectors with .weight", lora_config(use_dora=True), old),
            Example("vectors with the adapter name", lora_config(use_dora=True), named),
            Example("vectors of another length", lora_config(use_dora=True), long),
            Example("the same without .weight", lora_config(use_dora=True), bare),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if not adapter.is_lora:
            return
        vectors = list(adapter.of_kind(Kind.MAGNITUDE))
        flag = bool(adapter.get("use_dora"))  # PEFT takes whatever is true; AL106 reports texts
        if vectors and not flag:
            yield self.finding(
                f"{len(vectors)} DoRA magnitude vectors are stored but use_dora is not set, so PEFT drops them",
                subject.at_field("use_dora"),
                related=(subject.at_tensor(vectors[0].name, "stored"),),
                effects=(wrong(),),
                fix=Fix("Set use_dora to true", Safety.SAFE, (SetConfig("/use_dora", True),)),
            )
        if not flag:
            return
        bare = [module for module, entry in subject.covered.items() if entry.a and Kind.MAGNITUDE not in entry.by_kind]
        if bare:
            yield self.finding(
                f"use_dora is set but {len(bare)} modules have no magnitude vector: {first_names(bare)}",
                subject.at_field("use_dora"),
                effects=(wrong(),),
            )
        yield from self._spelling(subject, vectors)
        odd = [key for key in vectors if key.name == key.canonical and _odd_shape(subject, key)]
        if odd:
            yield self.finding(
                f"{len(odd)} magnitude vectors have another shape than their layer: {first_names(k.name for k in odd)}",
                subject.at_tensor(odd[0].name),
                effects=(size_mismatch(subject, odd[0], "peft>=0.9"),),
            )

    def _spelling(self, subject: Subject, vectors: list[Key]) -> Iterator[Finding]:
        odd = [key for key in vectors if key.suffix != _VECTOR]
        named = [key for key in odd if key.adapter is not None and key.suffix.endswith(".weight")]
        bare = [key for key in odd if key.adapter is not None and key not in named]
        plain = [key for key in odd if key.adapter is None]
        for keys, effects in (
            (named, named_effects(subject, named, all_of_it=False)),
            (bare, (wrong(),)),
            (plain, (wrong("peft<0.12"),)),
        ):
            if keys:
                yield self.finding(
                    f"{len(keys)} DoRA vectors are not named {_VECTOR}: {first_names(key.name for key in keys)}",
                    subject.at_tensor(keys[0].name),
                    effects=effects,
                    fix=rename_fix(subject, keys, f"…{_VECTOR}"),
                    severity=Severity.WARNING,
                )


def _odd_shape(subject: Subject, key: Key) -> bool:
    """Whether a vector of a linear layer or an embedding is not as long as its B has rows."""
    entry = subject.covered.get(key.module)
    if entry is None or entry.b is None or subject.adapter.get("use_bdlora"):
        return False
    rows = subject.adapter.shape(entry.b)
    return len(rows) == 2 and subject.adapter.shape(key) != rows[:1]


def _dora() -> dict[str, tuple[str, tuple[int, ...]]]:
    tensors = dict(llama_tensors())
    for name in llama_tensors():
        if name.endswith("lora_A.weight"):
            tensors[name.replace("lora_A.weight", _VECTOR)] = ("F32", (16,))
    return tensors
