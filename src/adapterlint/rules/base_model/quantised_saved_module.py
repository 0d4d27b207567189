"""AL410."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises, unknown
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, BaseExample, Example, llama_base, llama_tensors, lora_config


class QuantisedSavedModule(Rule):
    """## What it does
    Looks for entries of `modules_to_save` that cover linear layers which the base checkpoint holds quantised.

    ## Why is this bad?
    PEFT copies the quantised module and wants to train it: up to 0.17 a RuntimeError, from 0.18 on a KeyError for the
    state of the quantisation, which no adapter stores. Layers that stay as they are, as `lm_head`, embeddings and norms
    do in bitsandbytes, are copied like any other.

    ## Example
    `"modules_to_save": ["o_proj"]` on a base quantised to 4 bits.

    ## Fix
    None: load the adapter on the base in its full precision, or train LoRA on the layer instead.

    ## References
    - PEFT `utils/other.py`, `ModulesToSaveWrapper`.
    - Measured with bitsandbytes 0.50.2 (nf4 and int8, on the CPU) on 0.15.2 to 0.21.2.
    """

    code = "AL410"
    name = "quantised-saved-module"
    needs = ("config", "header", "base")

    @staticmethod
    def valid() -> list[AnyExample]:
        head = {**llama_tensors(), "base_model.model.lm_head.weight": ("F32", (48, 16))}
        return [
            Example("a head that stays as it is", lora_config(modules_to_save=["lm_head"]), head, _quantised()),
            Example("LoRA on quantised layers", lora_config(), llama_tensors(), _quantised()),
            Example("a base that is not quantised", _saving(), {**llama_tensors(), **_trained()}, llama_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [Example("a quantised layer", _saving(), {**llama_tensors(), **_trained()}, _quantised())]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        if base is None or not base.quantised:
            return
        for root in subject.saved_modules:
            state = base.quantised_within(root)
            if state is not None:
                text = "RuntimeError: only Tensors of floating point dtype can require gradients"
                yield self.finding(
                    f"modules_to_save covers {root}, which the base holds quantised ({state})",
                    subject.at_field("modules_to_save"),
                    effects=(
                        unknown("peft<0.15"),
                        raises("peft>=0.15,<0.18", text),
                        raises("peft>=0.18", f"KeyError: '{PREFIX}{state}'"),
                    ),
                    severity=Severity.ERROR,
                )
                return


def _saving() -> dict[str, object]:
    return lora_config(modules_to_save=["o_proj"])


def _trained() -> dict[str, tuple[str, tuple[int, ...]]]:
    return {f"base_model.model.model.layers.{n}.self_attn.o_proj.weight": ("F32", (16, 16)) for n in range(2)}


def _quantised() -> BaseExample:
    """A tiny Llama in 4 bits as bitsandbytes stores it: packed weights beside the scales of their blocks."""
    text = llama_base()
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, entry in text.tensors.items():
        rows, columns = (*entry[1], 1)[:2]
        if name.endswith("_proj.weight"):
            tensors |= {
                name: ("U8", (rows * columns // 2, 1)),
                f"{name}.absmax": ("F32", (rows * columns // 64,)),
                f"{name}.quant_map": ("F32", (16,)),
                f"{name}.quant_state.bitsandbytes__nf4": ("U8", (80,)),
            }
        else:
            tensors[name] = entry
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    return BaseExample({**text.config, "quantization_config": settings}, tensors)
