"""AL302."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, inert
from adapterlint.model.keys import Kind
from adapterlint.model.keytable import ModuleTensors
from adapterlint.model.subject import Subject, first_names, is_pair
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, lora_pair

_EARLY = re.compile(r"(checkpoint|epoch|step)[-_]?[01]")
_OTHER_TRAINED = frozenset({Kind.FULL, Kind.TOKENS, Kind.LORA_BIAS, Kind.MAGNITUDE, Kind.BASE_LAYER})


class DeadAdapter(Rule):
    """## What it does
    Looks for LoRA adapters in which the product of `lora_B` and `lora_A` is zero: every `lora_B` is zero, as it is
    before the first step of training (for embeddings, `lora_embedding_A`). Where only some modules are zero, it is a
    note, since forms that serve several adapters fill up with zeros. Where the adapter holds something else that may
    be trained (whole modules, biases, DoRA vectors, token rows), or is the very first checkpoint, it is a warning.

    ## Why is this bad?
    The base answers alone. Loading says nothing, on any release.

    ## Example
    An adapter saved after a run whose learning rate was zero, or by a worker that did not hold the trained weights.

    ## Fix
    None: nothing was trained, or it was not saved.

    ## References
    - unsloth#2142, alpaca-lora#357; measured on 0.4.0 to 0.21.2.
    """

    code = "AL302"
    name = "dead-adapter"
    needs = ("config", "header", "payload")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("trained", lora_config(), llama_tensors()),
            Example("another method", lora_config(peft_type="IA3"), llama_tensors(), fill="zero"),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = {"base_model.model.lm_head.weight": ("F32", (48, 16))}
        # The examples' numbers make the eleventh tensor zero, if it holds one number only.
        single = {
            name: entry
            for layer in range(3)
            for leaf in ("q_proj", "v_proj")
            for name, entry in lora_pair(f"model.layers.{layer}.self_attn.{leaf}", 1, 1, 1).items()
        }
        return [
            Example("all zero", lora_config(), llama_tensors(), fill="zero"),
            Example(
                "a head beside", lora_config(modules_to_save=["lm_head"]), {**llama_tensors(), **head}, fill="zero"
            ),
            Example("one of six modules", lora_config(r=1), single),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        pairs = {module: entry for module, entry in adapter.modules.items() if is_pair(entry)}
        if not adapter.is_lora or not pairs:
            return
        dead = [module for module, entry in pairs.items() if _is_dead(subject, entry)]
        if not dead:
            return
        b = pairs[dead[0]].b
        place = subject.at_tensor(b.name if b else "")
        if len(dead) < len(pairs):
            message = f"{len(dead)} of {len(pairs)} LoRA modules are zero and without effect: {first_names(dead)}"
            yield self.finding(message, place, severity=Severity.NOTE)
            return
        message = f"all {len(pairs)} LoRA modules are zero: B @ A changes nothing"
        if any(key.kind in _OTHER_TRAINED for key in adapter.keys):
            yield self.finding(f"{message}; only what is stored beside them can", place, severity=Severity.WARNING)
            return
        early = _EARLY.fullmatch(adapter.name) is not None
        yield self.finding(
            f"{message}, and the base answers alone",
            place,
            effects=(inert(),),
            ceiling=Severity.WARNING if early else Severity.ERROR,
        )


def _is_dead(subject: Subject, entry: ModuleTensors) -> bool:
    """Whether one half of a pair is all zero; the half that starts at zero is looked at first."""
    halves = [key for key in (entry.b, entry.a) if key is not None]
    tensors = [subject.adapter.tensors[key.name] for key in halves]
    return any(0 not in tensor.shape and subject.payload.is_zero(tensor) is True for tensor in tensors)
