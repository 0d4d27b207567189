"""AL507."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Safety, Severity, raises, wrong
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

# Public names that torch.nn.ModuleDict has (torch 2.2 to 2.13): add_module refuses them.
_MODULE_DICT_TEXT = (
    "T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda "
    "double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter "
    "get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children "
    "named_modules named_parameters parameters pop register_backward_hook register_buffer "
    "register_forward_hook register_forward_pre_hook register_full_backward_hook "
    "register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook "
    "register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook "
    "requires_grad_ set_extra_state set_submodule share_memory state_dict to to_empty train training type "
    "update values xpu zero_grad "
)
MODULE_DICT_NAMES = frozenset(_MODULE_DICT_TEXT.split())
_MANGLED = frozenset({"lora", "weight", "0", "model", "q_proj", "query"})
_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}


class ClashingAdapterNames(SetRule):
    """## What it does
    Looks for adapter names (in a set, the directory names) that PEFT cannot take, or mixes up.

    ## Why is this bad?
    An adapter's name becomes a key of a `torch.nn.ModuleDict`: a dot, an empty name and the name of a method raise.
    `lora_A` and `lora_B` collide with LoRA's own names, and saved heads are not loaded up to 0.20.

    ## Example
    A directory `v1.5` beside another adapter; a directory `keys`.

    ## Fix
    By hand: rename the directory, or pass another `adapter_name`.

    ## References
    - torch `nn/modules/module.py`, `add_module`; peft#2252, peft#2772; measured on 0.4.0 to 0.21.2.
    """

    code = "AL507"
    name = "clashing-adapter-names"

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        return [SetExample("plain names", {"sentiment": plain, "default": plain, "legal-de": plain}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("a dot", {"v1.5": plain, "other": plain}, bert_base()),
            SetExample("a method of ModuleDict", {"keys": plain, "other": plain}, bert_base()),
            SetExample("a part of LoRA's names", {"lora_A": head, "other": head}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        for member in subject.members:
            name = member.adapter.name
            problem = _problem(member)
            if problem is not None:
                reason, effect = problem
                yield self.finding(
                    f"adapter name {name!r}: {reason}",
                    member.at_directory(),
                    effects=(effect,) if subject.explicit and effect else (),
                    fix=Fix("Rename the directory, or load it under another adapter_name", Safety.DISPLAY),
                    severity=Severity.WARNING if subject.explicit else Severity.NOTE,
                    adapters=subject.paths,
                )


def _problem(member: Subject) -> tuple[str, Effect | None] | None:
    name = member.adapter.name
    if "." in name:
        text = f"KeyError: 'module name can\\'t contain \".\", got: {name}'"
        return "PEFT cannot take a dot in it", raises("peft", text, adapter=name)
    if not name:
        return "it is empty", raises("peft", "KeyError: 'module name can\\'t be empty string \"\"'")
    if name in MODULE_DICT_NAMES or (name.startswith("__") and name.endswith("__")):
        text = f"KeyError: \"attribute '{name}' already exists\""
        return "it is an attribute of torch.nn.ModuleDict", raises("peft", text, adapter=name)
    if name in ("lora_A", "lora_B") and member.saved_modules:
        return "it collides with LoRA's own parameter names, and saved modules are not loaded", wrong(
            "peft<0.21", adapter=name
        )
    if name in _MANGLED:
        return "PEFT up to 0.17 mangles the keys of what it saves under this name", None
    return None
