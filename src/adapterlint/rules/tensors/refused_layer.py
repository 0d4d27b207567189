"""AL220."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model import peft, schema
from adapterlint.model.base import Base
from adapterlint.model.methoddefaults import targets_by_default
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, bert_base, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.noncanonical_prefix import VERA, vera_tensors

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding

_NO_TARGETS = "ValueError: Please specify `target_modules` in `peft_config`"
# The first release that fills in targets, where that is not the method's first one.
_DEFAULTS_SINCE = {"LOHA": "0.17", "LOKR": "0.17", "OFT": "0.14"}

# Modules that hold no parameters, so that no checkpoint shows them: names by which a target would meet them.
_OF_BERT = ("embeddings.dropout", "output.dropout", "intermediate.intermediate_act_fn")
_OF_LLAMA = ("mlp.act_fn", "model.rotary_emb")
_WITHOUT_PARAMETERS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _OF_BERT),
    **dict.fromkeys(("llama", "mistral", "qwen2", "gemma", "phi3"), _OF_LLAMA),
    "gpt2": ("transformer.drop", "mlp.act", "mlp.dropout", "attn.attn_dropout", "attn.resid_dropout"),
}

# PEFT 0.20 took to TypeError for layers that cannot be changed, in most methods.
_VALUE_ERROR = frozenset({"ADALORA", "GLORA", "HIRA", "IA3", "PSOFT", "PVERA", "RANDLORA", "ROAD"})
_TYPE_ERROR_SINCE = {"OFT": "0.21", "ADAMSS": "0.19"}

_WITHOUT_RANK = frozenset({"OFT", "ADALORA", "SUPERTUNING", "ADAMSS"})


class RefusedLayer(Rule):
    """## What it does
    Looks for targets that the method cannot change: a norm or a block of layers for LoRA, an embedding for VeRA, a
    layer whose features are no multiple of the block size, a base for which PEFT knows no default targets, a rank
    pattern for modules that are no targets.

    ## Why is this bad?
    PEFT raises while it makes the layers.

    ## Example
    `{"peft_type": "VERA", "target_modules": ["q_proj", "embed_tokens"]}`

    ## Fix
    None that is sure: take the module out of `target_modules`, if no tensors were trained for it.

    ## References
    - PEFT `tuners/<method>/model.py`, `_create_new_module`, and `layer.py`; measured for each method, 0.4.0 to 0.21.2.
    """

    code = "AL220"
    name = "refused-layer"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("linear layers", VERA, vera_tensors(), llama_base()),
            Example(
                "a norm that is saved",
                lora_config(target_modules=["q_proj", "v_proj", "norm"], modules_to_save=["norm"]),
                {**llama_tensors(), **_norms()},
                llama_base(),
            ),
            Example(
                "a name that is in no model",
                lora_config(target_modules=["q_proj", "v_proj", "dropout"]),
                llama_tensors(),
                llama_base(),
            ),
            Example("default targets", {**VERA, "target_modules": None}, vera_tensors(), llama_base()),
            Example(
                "a rank that the method does not have", lora_config(peft_type="IA3", r=0), _vectors(), llama_base()
            ),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        embedding = {**VERA, "target_modules": ["q_proj", "v_proj", "embed_tokens"]}
        kernels = {"base_model.model.model.layers.0.self_attn.q_proj.c3a_kernel": ("F32", (5, 5, 3))}
        norms = {"base_model.model.bert.encoder.layer.0.output.LayerNorm.ln_tuning_layers.weight": ("F32", (16,))}
        pattern = {"model.layers.0.self_attn.o_proj.lora_E": [True, False]}
        lora = {f"base_model.model.model.layers.0.self_attn.q_proj.lora_{x}": ("F32", (4, 16)) for x in "A"}
        adalora = lora_config(peft_type="ADALORA", init_r=4, rank_pattern=pattern, target_modules=["q_proj"])
        tuning = {"peft_type": "LN_TUNING", "target_modules": None}
        wide = lora_config(target_modules=["q_proj", "v_proj", "input_layernorm"])
        blocks = lora_config(target_modules=["q_proj", "v_proj", "mlp"])
        return [
            Example("LoRA on a norm", wide, llama_tensors(), llama_base()),
            Example("LoRA on a block", blocks, llama_tensors(), llama_base()),
            Example(
                "LoRA on an activation",
                lora_config(target_modules=["q_proj", "v_proj", "act_fn"]),
                llama_tensors(),
                llama_base(),
            ),
            Example(
                "biases on an embedding",
                lora_config(lora_bias=True, target_modules=["embed_tokens"]),
                _rows(),
                llama_base(),
            ),
            Example("an embedding", embedding, vera_tensors(), llama_base()),
            Example("blocks", lora_config(peft_type="C3A", block_size=3), kernels, llama_base()),
            Example("no defaults", tuning, norms, bert_base()),
            Example("ranks of other modules", adalora, lora, llama_base()),
            Example("no rank", {**VERA, "r": 0}, vera_tensors(), llama_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        yield from _of_lora(self, subject)
        held = subject.held
        if held is None or held.method.prompt:
            return
        yield from self._no_rank(subject, held)
        if held.refused:
            module, text = next(iter(held.refused.items()))
            yield self.finding(
                f"{subject.adapter.peft_type} cannot change {first_names(held.refused)}: "
                + text.removeprefix("ValueError: "),
                subject.at_field("target_modules"),
                effects=_refusal(held, str(subject.adapter.peft_type), module, text),
            )
        for message, effect in _early(subject, held):
            yield self.finding(message, subject.at_field("target_modules"), effects=(effect,), severity=Severity.NOTE)
        yield from self._no_defaults(subject)
        yield from self._ranks(subject, held)

    def _no_rank(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """A rank of zero or null; the methods that can do without one are left out, and AdaLoRA has another."""
        value, kind = held.options("r"), schema.config_type(subject.adapter.peft_type)
        if kind is None or "r" not in kind.fields or kind.name in _WITHOUT_RANK:
            return
        if value is None or (isinstance(value, int) and value <= 0):
            text = f"ValueError: `r` should be a positive integer value but the value passed is {value}"
            if value == 0 and kind.name == "VERA" and subject.base is not None:  # makes its shared matrices first
                text = "ZeroDivisionError: float division by zero"
            yield self.finding(
                f"r is {value!r}, and {subject.adapter.peft_type} needs a rank",
                subject.at_field("r"),
                effects=(raises("peft", text if value is not None else "TypeError"),),
            )

    def _no_defaults(self, subject: Subject) -> Iterator[Finding]:
        adapter, base = subject.adapter, subject.base
        if base is None or not base.model_type or adapter.get("target_modules") is not None:
            return
        if adapter.peft_type in ("TRAINABLE_TOKENS", "OSF"):
            return
        since = _DEFAULTS_SINCE.get(adapter.peft_type or "")
        unknown_base = targets_by_default(adapter.peft_type, base.model_type) is None
        if unknown_base or since:
            yield self.finding(
                f"target_modules is null, and PEFT {f'before {since} ' if not unknown_base else ''}does not know which "
                f"modules of {base.model_type!r} a {adapter.peft_type} adapter changes",
                subject.at_field("target_modules"),
                effects=(raises("peft" if unknown_base else f"peft<{since}", _NO_TARGETS),),
                severity=Severity.NOTE,
            )

    def _ranks(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """AdaLoRA resizes every module that its rank pattern names, whether it is one of its own or not."""
        pattern = subject.adapter.get("rank_pattern")
        if subject.adapter.peft_type != "ADALORA" or not isinstance(pattern, dict):
            return
        modules = {slot.module for slot in held.slots.values()}
        named = {re.sub(r"\.lora_E(\.[^.]+)?$", "", name): mask for name, mask in pattern.items()}
        lost = [module for module in named if module not in modules and subject.base is not None]
        start = held.options("init_r")
        odd = [
            module
            for module, mask in named.items()
            if module not in lost and isinstance(mask, list) and len(mask) != start
        ]
        if odd:
            yield self.finding(
                f"rank_pattern chooses among {len(named[odd[0]])} ranks for {odd[0]}, but init_r is {start}",
                subject.at_field("rank_pattern"),
                effects=(raises("peft", "IndexError: The shape of the mask"),),
            )
        if lost:
            yield self.finding(
                f"rank_pattern has ranks for {len(lost)} modules that are no targets: {first_names(lost)}",
                subject.at_field("rank_pattern"),
                effects=(raises("peft", "AttributeError: 'Linear' object has no attribute 'lora_E'"),),
            )


def _of_lora(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """LoRA changes linear layers, embeddings and convolutions; anything else that a target names raises."""
    if not subject.adapter.is_lora or subject.base is None:
        return
    now = [module for module in _unchangeable(subject.base) if _targeted(subject, subject.selection, module)]
    legacy = peft.Selection(subject.adapter, subject.base, legacy=True)
    before = [module for module in _unchangeable(subject.base) if _targeted(subject, legacy, module)]
    effects = [raises("peft>=0.5", f"ValueError: Target module {now[0]} is not supported.")] if now else []
    effects += [raises("peft<0.5", f"ValueError: Target module {before[0]} is not supported.")] if before else []
    yield from _embeddings(rule, subject)
    yield from _transposed(rule, subject)
    if effects:
        yield rule.finding(
            f"LoRA cannot change {first_names(now or before)}: no linear layer, embedding or convolution"
            + ("" if now else "; PEFT 0.3 and 0.4 match names without a dot before them"),
            subject.at_field("target_modules"),
            effects=tuple(effects),
            severity=Severity.ERROR if now else Severity.NOTE,
        )


def _embeddings(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Variants of LoRA that embeddings do not have, or had later."""
    assert subject.base is not None
    found = [module for module in subject.selected if subject.base.kind(module) == "embedding"]
    for field, targets, text in (
        ("lora_bias", "peft>=0.14", "lora_bias=True is not supported for Embedding."),
        ("use_dora", "peft>=0.9,<0.13", "Embedding does not support DoRA yet, please set it to False"),
    ):
        if found and subject.adapter.get(field) is True:
            yield rule.finding(
                f"{field} does not work on the embedding {first_names(found)}",
                subject.at_field(field),
                related=(subject.at_field("target_modules", "selects it"),),
                effects=(raises(targets, f"ValueError: {text}"),),
                severity=Severity.ERROR if field == "lora_bias" else Severity.NOTE,
            )


def _transposed(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """DoRA on GPT-2's Conv1D, whose weights are stored transposed."""
    base = subject.base
    assert base is not None
    found = [module for module in subject.selected if base.is_conv1d(module)]
    if not found or subject.adapter.get("use_dora") is not True:
        return
    shapes = {base.modules[module]["weight"].shape for module in found}
    oblong = next((shape for shape in shapes if len(set(shape)) > 1), None)
    targets = "peft>=0.9,<0.11"
    effect = wrong(targets)
    if oblong:
        effect = raises(targets, f"RuntimeError: The size of tensor a ({oblong[1]}) must match the size of tensor b")
    yield rule.finding(
        f"PEFT 0.9 and 0.10 measure the columns of {first_names(found)} the wrong way round for DoRA",
        subject.at_field("use_dora"),
        effects=(effect,),
        severity=Severity.NOTE,
    )


def _targeted(subject: Subject, selection: peft.Selection, module: str) -> bool:
    return selection.known and selection(module) and peft.saved_root(subject.saved_names, module) is None


def _unchangeable(base: Base) -> list[str]:
    """Norms, blocks of layers, and modules without parameters, as far as the checkpoint and the model's type show."""
    found = []
    for module, parameters in base.modules.items():
        kind = base.kind(module)
        if kind == "norm" or (kind == "container" and not parameters):
            found.append(module)
    return [*found, *_WITHOUT_PARAMETERS.get(base.model_type, ())]


def _refusal(held: Holding, method: str, module: str, text: str) -> tuple[Effect, ...]:
    if text.startswith("ValueError: You can only specify either r "):
        return (raises("peft>=0.14", text),)
    if ": " in text:
        return (raises(held.targets, text),)
    text = f"Target module {module} is not supported."
    if method in _VALUE_ERROR:
        return (raises(held.targets, f"ValueError: {text}"),)
    since = _TYPE_ERROR_SINCE.get(method, "0.20")
    joint = "" if held.targets == "peft" else ","
    before, after = f"{held.targets}{joint}<{since}", f"{held.targets}{joint}>={since}"
    return (raises(before, f"ValueError: {text}"), raises(after, f"TypeError: {text}"))


def _early(subject: Subject, held: Holding) -> Iterator[tuple[str, Effect]]:
    """Layers that earlier releases refused: what they are, and the exception."""
    layers = held.options.layers
    if subject.adapter.peft_type == "OFT":
        embedding = next((layer.module for layer in layers if layer.kind == "embedding"), None)
        if embedding is not None:
            text = f"ValueError: Target module Embedding is not supported: {embedding}"
            yield f"OFT on the embedding {embedding} needs PEFT 0.19 or newer", raises("peft<0.19", text)
    if subject.adapter.peft_type == "TRAINABLE_TOKENS":
        linear = next((layer.module for layer in layers if layer.kind == "linear"), None)
        if linear is not None:
            text = "AttributeError: 'Linear' object has no attribute 'embedding_dim'"
            yield f"PEFT 0.16 and 0.17 take embeddings only, and {linear} is none", raises("peft>=0.16,<0.18", text)
    if subject.adapter.peft_type == "VERA":
        sizes = {(layer.outputs, layer.inputs) for layer in layers}
        if len(sizes) > 1:
            text = "ValueError: Multiple target layers with different dimensions were specified. VeRA only supports a "
            message = f"VeRA on layers of {len(sizes)} sizes needs PEFT 0.12 or newer"
            yield message, raises("peft<0.12", text + "single dimension size.")


def _vectors() -> dict[str, tuple[str, tuple[int, ...]]]:
    stem = "base_model.model.model.layers.{}.self_attn.{}.ia3_l"
    return {stem.format(layer, leaf): ("F32", (16, 1)) for layer in (0, 1) for leaf in ("q_proj", "v_proj")}


def _norms() -> dict[str, tuple[str, tuple[int, ...]]]:
    stem = "base_model.model.model.{}.weight"
    leaves = [f"layers.{layer}.{leaf}" for layer in (0, 1) for leaf in ("input_layernorm", "post_attention_layernorm")]
    return {stem.format(name): ("F32", (16,)) for name in (*leaves, "norm")}


def _rows() -> dict[str, tuple[str, tuple[int, ...]]]:
    stem = "base_model.model.model.embed_tokens.lora_embedding_"
    return {f"{stem}A": ("F32", (4, 48)), f"{stem}B": ("F32", (16, 4))}
