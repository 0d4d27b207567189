"""AL203."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import DropTensor, Finding, Fix, Safety, Severity, raises, wrong
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, bert_base, bert_config, bert_tensors
from adapterlint.rules.tensors.noncanonical_prefix import lost_saved, rename_fix

_HEAD = "base_model.model.classifier"


class SavedModuleInfix(Rule):
    """## What it does
    Looks for saved modules stored under PEFT's inner names: `classifier.modules_to_save.default.weight`,
    `classifier.original_module.weight`.

    ## Why is this bad?
    A saved adapter file holds `classifier.weight`. Under the inner name PEFT up to 0.14 drops the tensor and keeps the
    base's untrained head; from 0.15 on the load raises a KeyError.

    ## Example
    `base_model.model.classifier.modules_to_save.default.weight`, as a raw training checkpoint has it.

    ## Fix
    Safe: `modules_to_save` and the adapter name are taken out of the names. Unsafe: a copy that is never read is
    dropped; it is harmless and only noted, so that this fix has to be asked for by `--select AL203`.

    ## References
    - PEFT `utils/other.py`, `ModulesToSaveWrapper`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL203"
    name = "saved-module-infix"
    needs = ("config", "header")

    @staticmethod
    def valid() -> list[AnyExample]:
        head = {f"{_HEAD}.weight": ("F32", (3, 16)), f"{_HEAD}.bias": ("F32", (3,))}
        return [
            Example("canonical", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **head}, bert_base())
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        config = bert_config(modules_to_save=["classifier"])
        head = {f"{_HEAD}.weight": ("F32", (3, 16)), f"{_HEAD}.bias": ("F32", (3,))}

        def under(infix: str) -> dict[str, tuple[str, tuple[int, ...]]]:
            return {name.replace(_HEAD, f"{_HEAD}.{infix}"): entry for name, entry in head.items()}

        return [
            Example(
                "with the adapter name", config, {**bert_tensors(), **under("modules_to_save.default")}, bert_base()
            ),
            Example("without a name", config, {**bert_tensors(), **under("modules_to_save")}, bert_base()),
            Example(
                "a copy of the original", config, {**bert_tensors(), **head, **under("original_module")}, bert_base()
            ),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        infixed = [key for key in adapter.full_keys if key.infix is not None]
        copies = [key for key in infixed if key.canonical in adapter.tensors or key.infix == "original_module"]
        lone = [key for key in infixed if key not in copies]
        if lone:
            declared = lost_saved(subject, lone)
            effects = (
                (wrong("peft<0.15"), raises("peft>=0.15", f"KeyError: '{declared[0]}'")) if declared else (wrong(),)
            )
            yield self.finding(
                f"{len(lone)} saved-module tensors stand under PEFT's inner names, where no release reads them: "
                + first_names(key.name for key in lone),
                subject.at_tensor(lone[0].name),
                effects=effects,
                related=(subject.at_field("modules_to_save", "declared here"),) if declared else (),
                fix=rename_fix(subject, lone, "names without modules_to_save"),
            )
        if copies:
            yield self.finding(
                f"{len(copies)} tensors are inner copies of saved modules and never read: "
                + first_names(key.name for key in copies),
                subject.at_tensor(copies[0].name),
                effects=(),
                severity=Severity.NOTE,
                fix=Fix("Drop the copies", Safety.UNSAFE, tuple(DropTensor(key.name) for key in copies)),
            )
