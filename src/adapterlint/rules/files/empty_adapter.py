"""AL006."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, inert, raises, wrong
from adapterlint.model.adapter import Adapter
from adapterlint.model.keys import PROMPT_TYPES, Kind
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, bert_config, llama_tensors, lora_config
from adapterlint.rules.files.foreign_format import recognise

_SILENT_TYPES = frozenset({"LORA", "ADALORA", "IA3", "LOHA", "LOKR", "LN_TUNING"})
_HARMLESS_INITS = (True, None, "gaussian", "eva")
_INIT_FIELDS = ("init_lora_weights", "init_weights", "init_ia3_weights")
_SAYS_MORE = frozenset({Kind.METHOD, Kind.RESIDUE})


class EmptyAdapter(Rule):
    """## What it does
    Looks for weights without any tensor, and for LoRA adapters without any LoRA tensor. Where whole modules are stored
    beside, which may be all that is wanted, it is a warning.

    ## Why is this bad?
    PEFT leaves the layers that it made as they start, which is without effect: the base answers alone. Releases before
    0.14 say nothing, later ones warn of missing keys.

    ## Example
    A safetensors file of 40 bytes, as saving leaves it when the parameters had been gathered elsewhere.

    ## Fix
    None: the tensors were lost when the adapter was saved. Look for a `checkpoint-*` directory of the same run.

    ## References
    - alpaca-lora#293, alpaca-lora#363; measured on 0.4.0 to 0.21.2, by method.
    """

    code = "AL006"
    name = "empty-adapter"
    needs = ("config", "header")
    severity = Severity.ERROR
    damage = "files"

    @staticmethod
    def valid() -> list[AnyExample]:
        ia3 = {"base_model.model.model.layers.0.self_attn.k_proj.ia3_l": ("F32", (16, 1))}
        return [
            Example("LoRA tensors", lora_config(), llama_tensors()),
            Example("another method has no LoRA tensors", lora_config(peft_type="IA3"), ia3),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = {"base_model.model.classifier.weight": ("F32", (3, 16))}
        return [
            Example("no tensors", lora_config(), {}),
            Example("no tensors, another method", lora_config(peft_type="IA3", target_modules=["k_proj"]), {}),
            Example("only a head", bert_config(modules_to_save=["classifier"]), head),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if (adapter.is_lora and adapter.lora_keys) or adapter.nested or recognise(adapter) is not None:
            return
        file = adapter.weights_file or ""
        if not adapter.tensors:
            message = f"{file} holds no tensors: what was trained is not in it"
            yield self.finding(message, subject.at_file(file), effects=nothing_loaded(adapter))
            return
        kinds = {key.kind for key in adapter.keys}
        if not adapter.is_lora or adapter.lora_keys or kinds & _SAYS_MORE:
            return
        yield self.finding(
            f"{file} holds parameters of the base, but no LoRA tensors for {_targets(adapter)}",
            subject.at_file(file),
            effects=(wrong(),),
            ceiling=Severity.WARNING,
        )


def nothing_loaded(adapter: Adapter) -> tuple[Effect, ...]:
    """What PEFT does with a file in which it finds nothing; modules to save are other rules' affair."""
    peft_type = adapter.peft_type or ""
    if peft_type in PROMPT_TYPES:
        return (raises("peft", "KeyError: 'prompt_embeddings'"),)
    if peft_type == "VERA" and adapter.get("save_projection", True):
        text = "Specified to load vera_A and vera_B from state dictionary however they were not present!"
        return (raises("peft", f"ValueError: {text}"),)
    starts_at_zero = all(adapter.get(name, True) in _HARMLESS_INITS for name in _INIT_FIELDS)
    return (inert(),) if peft_type in _SILENT_TYPES and starts_at_zero else (wrong(),)


def _targets(adapter: Adapter) -> str:
    targets = adapter.get("target_modules")
    return ", ".join(map(str, targets)) if isinstance(targets, list) else "the target modules"
