"""AL409."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises, unknown, wrong
from adapterlint.model import layouts
from adapterlint.model.base import Base
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import (
    AnyExample,
    BaseExample,
    Example,
    llama_base,
    llama_tensors,
    lora_config,
    lora_pair,
)

_MISSING = ("transformers",)


class ExpertLayout(Rule):
    """## What it does
    Looks for LoRA on the experts of a mixture of experts whose checkpoint holds them one by one. transformers 5 stacks
    the experts of a layer into two parameters, so that the adapter's layers are others there. Which transformers loads
    the base no adapter says: for a target that names none verdicts are for transformers 4, which all releases of PEFT
    so far can be used with. For an adapter of stacked experts, which needs transformers 5, they are `unknown`.

    ## Why is this bad?
    An adapter of single experts loads with transformers 4. With 5 PEFT 0.18 and 0.19 raise or leave them out; from
    0.20 on it converts them, but not where only one of two modules that became one parameter is there (a ValueError),
    nor modules outside the experts that have the same last name: shared experts are silently lost. An adapter of
    stacked experts, as PEFT saves it with transformers 5, is right there from 0.20 on and nowhere else.

    ## Example
    `"target_modules": ["w1", "w2"]` on Mixtral; `gate_proj`, `up_proj` and `down_proj` on a model with shared experts.

    ## Fix
    None: PEFT converts in one direction, when it loads, and the numbers of the other form depend on the ranks.

    ## References
    - PEFT `utils/transformers_weight_conversion.py`; transformers#42491, peft#3711.
    - Measured for Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE and DeepSeek-V3 on 0.14.0 to 0.21.2 with transformers 4.48.3,
      4.57.1 and 5.23.0.
    """

    code = "AL409"
    name = "expert-layout"
    needs = ("config", "header", "base")

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("attention only", lora_config(), llama_tensors(), single_experts()),
            Example("a dense model", lora_config(), llama_tensors(), llama_base()),
            Example("stacked in the checkpoint, too", _stacked_config(), _stacked(), _fused()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        half = lora_config(target_modules=["w1", "w2"])
        return [
            Example(
                "single experts",
                lora_config(target_modules=["w1", "w2", "w3"]),
                _single("w1", "w2", "w3"),
                single_experts(),
            ),
            Example("one of two that are one now", half, _single("w1", "w2"), single_experts()),
            Example("stacked experts", _stacked_config(), _stacked(), single_experts()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        if base is None or not any(layouts.expert_leaf(module) for module in base.modules):
            return
        modules = subject.adapter.modules
        single = [module for module in modules if layouts.expert_leaf(module)]
        stacked = [module for module in modules if subject.made_by_five(module)]
        if not single and not stacked:
            return
        if stacked:
            message = (
                f"{first_names(stacked, 1)} has experts as one parameter, which the model has since transformers 5"
            )
            effects = tuple(_stacked_effects(len(stacked) < len(modules)))
        else:
            late = layouts.carried_over(base.model_type, modules)
            then = "needs PEFT 0.20 or newer" if late else "does not load as it was trained"
            message = (
                f"{first_names(single, 1)} is a single expert, which the model has up to transformers 4; "
                f"with transformers 5 the adapter {then}"
            )
            effects = tuple(_single_effects(subject, base, late))
        key = next(iter(modules[(stacked or single)[0]].by_kind.values()))
        severity = Severity.WARNING if stacked else Severity.NOTE
        yield self.finding(message, subject.at_tensor(key.name), effects=effects, severity=severity)


def _stacked_effects(others: bool) -> Iterator[Effect]:
    """Of stacked experts; ``others`` if there are other layers as well, which are found."""
    yield unknown("peft", missing=_MISSING)
    old, text = "transformers>=4,<5", "No `target_modules` passed but also no `target_parameters` found."
    if others:
        yield wrong(f"peft,{old}")
    else:
        yield wrong(f"peft<0.17,{old}")
        yield raises(f"peft>=0.17,<0.21,{old}", f"ValueError: {text} Please check the values for these arguments.")
        yield raises(
            f"peft>=0.21,{old}", f"NoMatchingPeftModuleError: {text} Please check the values for these arguments."
        )
    yield wrong("peft<0.18,transformers>=5")
    yield raises("peft>=0.18,<0.19,transformers>=5", "RuntimeError: Error(s) in loading state_dict for PeftModel")
    yield unknown("peft>=0.19,<0.20,transformers>=5,<5.16")  # not measured; with later ones AL412


def _single_effects(subject: Subject, base: Base, late: bool) -> Iterator[Effect]:
    """Of single experts, which transformers 5 stacks; ``late`` if PEFT 0.20 and later carry them over."""
    targets = subject.adapter.get("target_modules")
    leaves = {module: layouts.expert_leaf(module) for module in subject.adapter.modules}
    alone = all(leaves.values()) and isinstance(targets, list)
    if alone:
        names = "{" + ", ".join(sorted(map(repr, targets))) + "}"
        text = f"ValueError: Target modules {names} not found in the base model. Please check the target modules"
        yield raises("peft<0.19,transformers>=5", text)
    else:
        yield wrong("peft<0.19,transformers>=5")
    half = layouts.half_of_one(base.model_type, filter(None, leaves.values()))
    if half:
        given, other = half
        text = f"ValueError: Cannot convert PEFT target(s) {given} without also targeting {other}"
        yield raises("peft>=0.19,transformers>=5", text)
        return
    yield unknown("peft>=0.19,<0.20,transformers>=5,<5.16")  # not measured; with later ones AL412
    if not late:
        yield wrong("peft>=0.20,transformers>=5")


def _single(*leaves: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = {}
    for layer in range(2):
        for expert in range(2):
            for leaf in leaves:
                inputs, outputs = (32, 16) if leaf == "w2" else (16, 32)
                module = f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{leaf}"
                found.update(lora_pair(module, inputs=inputs, outputs=outputs))
    return found


def _stacked_config() -> dict[str, object]:
    return lora_config(target_modules=[], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])


def _stacked() -> dict[str, tuple[str, tuple[int, ...]]]:
    found = {}
    for layer in range(2):
        stem = f"model.layers.{layer}.mlp.experts"
        found.update(lora_pair(f"{stem}.base_layer", r=8, inputs=16, outputs=64))
        found.update(lora_pair(stem, r=8, inputs=32, outputs=16))
    return found


def single_experts() -> BaseExample:
    """A tiny Mixtral as it is published: every expert by itself."""
    text = llama_base()
    tensors = {name: entry for name, entry in text.tensors.items() if ".mlp." not in name}
    for layer in range(2):
        stem = f"model.layers.{layer}.block_sparse_moe"
        tensors[f"{stem}.gate.weight"] = ("F32", (2, 16))
        for expert in range(2):
            for leaf, shape in (("w1", (32, 16)), ("w2", (16, 32)), ("w3", (32, 16))):
                tensors[f"{stem}.experts.{expert}.{leaf}.weight"] = ("F32", shape)
    config = {**text.config, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    return BaseExample({**config, "num_local_experts": 2, "num_experts_per_tok": 2}, tensors)


def _fused() -> BaseExample:
    base = single_experts()
    tensors = {name: entry for name, entry in base.tensors.items() if "block_sparse_moe" not in name}
    for layer in range(2):
        stem = f"model.layers.{layer}.mlp"
        tensors |= {f"{stem}.gate.weight": ("F32", (2, 16))}
        tensors |= {
            f"{stem}.experts.gate_up_proj": ("F32", (2, 64, 16)),
            f"{stem}.experts.down_proj": ("F32", (2, 16, 32)),
        }
    return BaseExample(base.config, tensors)
