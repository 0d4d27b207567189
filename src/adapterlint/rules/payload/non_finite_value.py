"""AL301."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, wrong
from adapterlint.model.keys import Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_FLOATING = ("F", "BF", "C")
_FROM_BASE = (Kind.FULL, Kind.BASE_LAYER)


class NonFiniteValue(Rule):
    """## What it does
    Looks for NaN and infinity in the floating point tensors of the adapter. Full tensors that equal the base's byte
    for byte are left out.

    ## Why is this bad?
    A single NaN in one LoRA matrix makes every output NaN. No release looks for it: the adapter loads without a word.

    ## Example
    `lora_B.weight` of a run in float16 whose loss became NaN.

    ## Fix
    None: the numbers are lost. Use an earlier checkpoint.

    ## References
    - lorax#81; measured on 0.4.0 to 0.21.2.
    """

    code = "AL301"
    name = "non-finite-value"
    needs = ("header", "payload")
    severity = Severity.ERROR
    damage = "tensors"
    effects = (wrong(),)

    @staticmethod
    def valid() -> list[AnyExample]:
        counter = {"base_model.model.score.num_batches_tracked": ("I64", ())}
        return [
            Example("finite", lora_config(), llama_tensors()),
            Example("integers", lora_config(modules_to_save=["score"]), {**llama_tensors(), **counter}),
            Example("no elements", lora_config(), {"base_model.model.x.lora_A.weight": ("F32", (0, 4))}, fill="nan"),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        def of(dtype: str) -> dict[str, tuple[str, tuple[int, ...]]]:
            return {name: (dtype, shape) for name, (_, shape) in llama_tensors().items()}

        return [
            Example(f"NaN in {dtype}", lora_config(), of(dtype), fill="nan") for dtype in ("F32", "F16", "BF16", "F64")
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if subject.payload.surely_finite(adapter.tensors):
            return
        found = [key.name for key in adapter.keys if _is_loaded(key) and _is_bad(subject, key)]
        if found:
            yield self.finding(
                f"{len(found)} of {len(adapter.tensors)} tensors hold NaN or infinity: {first_names(found)}",
                subject.at_tensor(found[0]),
            )


def _is_loaded(key: Key) -> bool:
    """Whether the tensor is one that PEFT may take; residues and copies of the base's module are not."""
    return key.kind is not Kind.RESIDUE and key.infix != "original_module"


def _is_bad(subject: Subject, key: Key) -> bool:
    tensor = subject.adapter.tensors[key.name]
    if not tensor.dtype.startswith(_FLOATING) or subject.payload.is_finite(tensor) is not False:
        return False
    # The base itself may hold such numbers, in a mask of minus infinity for one.
    return key.kind not in _FROM_BASE or subject.equals_base(key) is not True
