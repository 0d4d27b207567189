"""AL226."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Severity, raises
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config

# Blocks that transformers (4.48 and 4.57) calls with arguments by name only, by their last name; of any type if empty.
_CALLED_BY_NAME = {
    "self_attn": frozenset[str](),
    "encoder_attn": frozenset[str](),
    "attn": frozenset({"gptj"}),
    "attention": frozenset({"distilbert"}),
    "embeddings": frozenset({"bert", "roberta", "xlm-roberta", "camembert", "deberta-v2", "electra"}),
}


class KeywordCalledModule(Rule):
    """## What it does
    Looks for blocks in `modules_to_save` that the model calls with named arguments only, such as a decoder's
    `self_attn` or the `embeddings` of Bert.

    ## Why is this bad?
    From 0.13 to 0.19 PEFT's wrapper of saved modules wants one argument without a name. The adapter loads, and the
    first forward pass raises.

    ## Example
    `"modules_to_save": ["model.layers.0.self_attn"]`

    ## Fix
    None: name the layers inside the block instead, and store the same tensors.

    ## References
    - PEFT `utils/other.py`, `AuxiliaryTrainingWrapper.forward`; measured on 0.12.0 to 0.21.2.
    """

    code = "AL226"
    name = "keyword-called-module"
    needs = ("config", "header", "base")
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        layer = "model.layers.0.self_attn.o_proj"
        return [
            Example("a layer of the block", lora_config(modules_to_save=[layer]), _with("o_proj"), llama_base()),
            Example("no saved modules", lora_config(), llama_tensors(), llama_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        config = lora_config(modules_to_save=["layers.1.self_attn"], target_modules=["layers.0.self_attn.q_proj"])
        return [Example("the attention", config, _with("q_proj", "k_proj", "v_proj", "o_proj", layer=1), llama_base())]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        if base is None:
            return
        for module in subject.saved_modules:
            types = _CALLED_BY_NAME.get(module.rpartition(".")[2])
            if types is None or (types and base.model_type not in types) or base.kind(module) != "container":
                continue
            text = "Wrapper.forward() missing 1 required positional argument: 'x'"
            yield self.finding(
                f"modules_to_save covers {module}, which the model calls with named arguments only",
                subject.at_field("modules_to_save"),
                effects=(
                    raises("peft>=0.13,<0.15", f"TypeError: ModulesToSave{text}", stage="after_load"),
                    raises("peft>=0.15,<0.20", f"TypeError: AuxiliaryTraining{text}", stage="after_load"),
                ),
            )
            return


def _with(*leaves: str, layer: int = 0) -> dict[str, tuple[str, tuple[int, ...]]]:
    stem = f"base_model.model.model.layers.{layer}.self_attn"
    kept = {
        name: entry for name, entry in llama_tensors().items() if layer == 0 or name.startswith(stem.replace("1", "0"))
    }
    return {**kept, **{f"{stem}.{leaf}.weight": ("F32", (16, 16)) for leaf in leaves}}
