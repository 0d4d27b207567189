"""AL217."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, wrong
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.tensor import UNSCALED_DTYPES
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config


class UnscaledQuantisedTensor(Rule):
    """## What it does
    Looks for LoRA tensors stored as 8-bit or smaller numbers.

    ## Why is this bad?
    PEFT casts them as they are: no scale is applied, and no release warns.

    ## Example
    `lora_A.weight` of dtype `I8`.

    ## Fix
    None: the scale is not in the file. Export the adapter in BF16, F16 or F32.

    ## References
    - Measured for I8 and F8_E4M3 on 0.4.0 to 0.21.2.
    """

    code = "AL217"
    name = "unscaled-quantised-tensor"
    needs = ("config", "header")
    damage = "tensors"

    @staticmethod
    def valid() -> list[AnyExample]:
        counters = {"base_model.model.decode_head.norm.num_batches_tracked": ("I64", ())}
        mixed = lora_config(modules_to_save=["decode_head"])
        return [
            Example("bfloat16", lora_config(), {k: ("BF16", s) for k, (_, s) in llama_tensors().items()}),
            Example("integers of a saved module", mixed, {**llama_tensors(), **counters}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [Example("int8", lora_config(), {k: ("I8", s) for k, (_, s) in llama_tensors().items()})]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if not adapter.dtypes & UNSCALED_DTYPES:
            return
        small = [key for key in adapter.lora_keys if adapter.tensors[key.name].dtype in UNSCALED_DTYPES]
        if adapter.is_lora and small:
            dtypes = sorted({adapter.tensors[key.name].dtype for key in small})
            yield self.finding(
                f"{len(small)} LoRA tensors are stored as {', '.join(dtypes)} without a scale: "
                + first_names(key.name for key in small),
                subject.at_tensor(small[0].name),
                effects=(wrong(),),
            )
