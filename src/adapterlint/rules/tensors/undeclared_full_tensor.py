"""AL211."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adapterlint.findings import Effect, Finding, Fix, Safety, SetConfig, Severity, wrong
from adapterlint.model import peft
from adapterlint.model.keys import Key
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    bert_base,
    bert_config,
    bert_tensors,
    llama_tensors,
    lora_config,
)


class UndeclaredFullTensor(Rule):
    """## What it does
    Looks for whole parameters of the base (`lm_head.weight`, a norm) that neither `modules_to_save` nor the task type
    declares. Copies that equal the base are left out.

    ## Why is this bad?
    Loaded alone the adapter is right: PEFT writes the tensor into the shared base. There it stays, for every other
    adapter and with the adapter disabled, and the next save loses it.

    ## Example
    `base_model.model.lm_head.weight` beside `"modules_to_save": null`.

    ## Fix
    Safe: the module is declared by its full path, when all of its parameters are stored.

    ## References
    - PEFT `utils/save_and_load.py`: `load_state_dict(strict=False)`; measured on 0.4.0 to 0.21.2. For sets see AL502.
    """

    code = "AL211"
    name = "undeclared-full-tensor"
    needs = ("config", "header")

    @staticmethod
    def valid() -> list[AnyExample]:
        head = {
            "base_model.model.classifier.weight": ("F32", (3, 16)),
            "base_model.model.classifier.bias": ("F32", (3,)),
        }
        embedding = {
            "base_model.model.model.embed_tokens.lora_embedding_A": ("F32", (4, 48)),
            "base_model.model.model.embed_tokens.lora_embedding_B": ("F32", (16, 4)),
            "base_model.model.model.embed_tokens.base_layer.weight": ("F32", (48, 16)),
        }
        return [
            Example("declared", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **head}),
            Example("declared by the task type", bert_config(task_type="SEQ_CLS"), {**bert_tensors(), **head}),
            Example("what PEFT saves beside an embedding", lora_config(target_modules=["embed_tokens"]), embedding),
            Example(
                "biases", bert_config(bias="all"), {**bert_tensors(), "base_model.model.classifier.bias": ("F32", (3,))}
            ),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = {"base_model.model.lm_head.weight": ("F32", (48, 16))}
        norm = {"base_model.model.bert.pooler.dense.weight": ("F32", (16, 16))}
        return [
            Example("head", lora_config(), {**llama_tensors(), **head}),
            Example("pooler", bert_config(), {**bert_tensors(), **norm}, bert_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if not subject.adapter.is_lora:
            return
        altering = altering_keys(subject, subject.undeclared)
        yield from self._dropped(subject)
        if not altering:
            return
        modules = list(dict.fromkeys(key.module for key in altering))
        yield self.finding(
            f"{len(altering)} full tensors are not declared in modules_to_save and overwrite the shared base: "
            + first_names(key.full_name for key in altering),
            subject.at_tensor(altering[0].name),
            effects=tuple(_tied_effects(subject, altering)),
            related=(subject.at_field("modules_to_save", "does not name it"),),
            fix=_declare(subject, modules),
            severity=Severity.WARNING,
        )

    def _dropped(self, subject: Subject) -> Iterator[Finding]:
        """Tensors of modules that the targets select and for which there is no LoRA: PEFT wraps them all the same."""
        modules = subject.layers.difference(subject.adapter.modules) if subject.base is not None else ()
        lost = [
            key
            for key in subject.undeclared
            if key.has_canonical_prefix and key.module in modules and subject.equals_base(key) is False
        ]
        if lost:
            yield self.finding(
                f"{len(lost)} full tensors belong to modules that target_modules selects, so that PEFT drops them: "
                + first_names(key.full_name for key in lost),
                subject.at_tensor(lost[0].name),
                effects=(wrong("peft>=0.7"),),
                related=(subject.at_field("modules_to_save", "does not name it"),),
                fix=_declare(subject, list(dict.fromkeys(key.module for key in lost))),
            )


def altering_keys(subject: Subject, undeclared: Iterable[Key]) -> list[Key]:
    """Those of undeclared full tensors that land in the base and are not known to equal it."""
    found = []
    for key in undeclared:
        if not key.has_canonical_prefix or key.module in subject.covered or key.parameter == "":
            continue
        if subject.base is not None:
            stored = subject.base.under(key.module).get(key.full_name)
            made = any(key.module == head or key.module.startswith(head + ".") for head in subject.base.missing_heads)
            if stored is None and not made and key.full_name not in subject.base.parameters:
                continue  # no such parameter: AL402
            if stored is not None and subject.payload.equals_base(subject.adapter.tensors[key.name], stored):
                continue
        found.append(key)
    return found


def _tied_effects(subject: Subject, keys: list[Key]) -> Iterator[Effect]:
    """On a tied base both ends are one parameter: what was trained for one of them changes the other as well."""
    base = subject.base
    if base is None or not base.tied or base.embedding is None or not peft.vocabulary_heads(base):
        return
    names = (base.embedding, *peft.vocabulary_heads(base))
    ends = [key for key in keys if key.parameter == "weight" and key.module in names]
    if len(ends) > 1:
        first, second = (subject.adapter.tensors[key.name] for key in ends[:2])
        if subject.payload.equal(first, second) is not True:
            yield wrong("peft")
    elif ends and any(name != ends[0].module and name not in subject.saved_modules for name in names):
        stored = base.parameters.get(f"{base.embedding}.weight")
        if stored and subject.payload.equals_base(subject.adapter.tensors[ends[0].name], stored) is False:
            yield wrong("peft")


def _declare(subject: Subject, modules: list[str]) -> Fix:
    for module in modules:
        if subject.base is not None and any(name not in subject.adapter.saved for name in subject.base.under(module)):
            return Fix(f"Declare {module} in modules_to_save and store all of its parameters", Safety.DISPLAY)
    if any(not module for module in modules) or len(modules) > 32:
        return Fix("Declare the modules in modules_to_save", Safety.DISPLAY)
    names = [*subject.adapter.names("modules_to_save"), *modules]
    title = f"Declare {first_names(modules)} in modules_to_save"
    return Fix(title, Safety.SAFE, (SetConfig("/modules_to_save", names),))
