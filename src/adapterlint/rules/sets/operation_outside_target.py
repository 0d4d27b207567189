"""AL518."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises
from adapterlint.model import peft
from adapterlint.model.subject import SetSubject
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors


class OperationOutsideTarget(SetRule):
    """## What it does
    Says, for every set, which operations a release does not have, or cannot do with any set.

    ## Why is this bad?
    Mixed batches came with 0.10, hot-swapping with 0.14. Up to 0.15 `delete_adapter` of the active adapter leaves the
    model asking for it: the next forward raises.

    ## Example
    Any two adapters, for `--target peft==0.13.2` with `--operation hotswap`.

    ## Fix
    None in the files: use a newer PEFT.

    ## References
    - PEFT 21fc8bd71 (0.16.0).
    - Measured on 0.8.2 to 0.21.2; see docs/operations.md.
    """

    code = "AL518"
    name = "operation-outside-target"
    severity = Severity.NOTE
    loading = False
    targeted = True

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("alone", bert_config(), bert_tensors(), bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        return [SetExample("any set", {"a": plain, "b": plain}, bert_base())]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        yield self.finding(
            "older releases cannot do everything with a set",
            subject.members[0].at_directory(),
            effects=tuple(_effects(subject)),
            adapters=subject.paths,
        )


def _effects(subject: SetSubject) -> Iterator[Effect]:
    first = subject.members[0].adapter
    model = peft.model_class(first)
    yield raises("peft<0.14", "ModuleNotFoundError: No module named 'peft.utils.hotswap'", operation="hotswap")
    forward = subject.base.architecture if subject.base and model == "PeftModel" else model
    text = f"TypeError: {forward}.forward() got an unexpected keyword argument 'adapter_names'"
    yield raises("peft<0.10", text, operation="mixed_batch")
    text = "ValueError: The version of PEFT you are using is not compatible, please use a version that is greater than"
    yield raises("peft<0.5", f"{text} 0.5.0", operation="native")
    yield raises("peft<0.16", f"KeyError: '{first.name}'", operation="delete", adapter=first.name)
