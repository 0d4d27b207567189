"""AL402."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, wrong
from adapterlint.model import peft
from adapterlint.model.keys import Key
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.base_model.base_namespace_mismatch import first_key
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.noncanonical_prefix import named_like_a_parameter


class ModuleNotInBase(Rule):
    """## What it does
    Reports LoRA tensors, and full tensors, of modules that the base does not have, when others of the adapter exist.

    ## Why is this bad?
    PEFT drops these tensors silently: a part of what was trained is lost.

    ## Example
    Tensors of layer 31 on a base with 28 layers.

    ## Fix
    None: the adapter belongs to another base.

    ## References
    - Measured on 0.4.0 to 0.21.2 (other names) and 0.21.2 (layers beyond the base).
    """

    code = "AL402"
    name = "module-not-in-base"
    needs = ("config", "header", "base")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("the right base", lora_config(), llama_tensors(), llama_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        extra = {"base_model.model.model.extra_norm.weight": ("F32", (16,))}
        return [
            Example("more layers than the base", lora_config(), llama_tensors(layers=3), llama_base(layers=2)),
            Example("a parameter that the base lacks", lora_config(), {**llama_tensors(), **extra}, llama_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        if base is None:
            return
        absent = [module for module, there in subject.in_base.items() if not there]
        if absent and len(absent) < len(subject.in_base):
            yield self.finding(
                f"applies to {len(subject.in_base) - len(absent)} of {len(subject.in_base)} modules; "
                f"{base.path} has no {first_names(absent)}",
                subject.at_tensor(first_key(subject, absent[0]).name),
                effects=(wrong(),),
            )
        lost = [
            key
            for key in subject.adapter.saved.values()
            if key.infix is None
            and named_like_a_parameter(subject, key)
            and not _exists(subject, key)
            and not _headless(subject, key)
        ]
        if lost and subject.adapter.is_lora:
            yield self.finding(
                f"{len(lost)} full tensors belong to no parameter of {base.path}: "
                + first_names(key.full_name for key in lost),
                subject.at_tensor(lost[0].name),
                effects=(wrong(),),
            )


def _exists(subject: Subject, key: Key) -> bool:
    base = subject.base
    assert base is not None
    return key.full_name in base.parameters or bool(base.under(key.module).get(key.full_name)) or _buffer(key)


def _buffer(key: Key) -> bool:
    """Whether it is nothing that a checkpoint must hold: a buffer, or the embeddings that T5's two stacks share."""
    if key.full_name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        return True
    return key.parameter in ("num_batches_tracked", "running_mean", "running_var", "position_ids", "inv_freq")


def _headless(subject: Subject, key: Key) -> bool:
    """Whether the tensor belongs to a head that the class has and this checkpoint lacks."""
    assert subject.base is not None
    return peft.saved_root((*subject.base.missing_heads, *subject.base.tied_heads), key.module) is not None
