"""AL507."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Safety, Severity, raises, wrong
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.model.wrapping import Clash, copy_taken_for_target, taken_for_saved, taken_for_target
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
_REFUSED = "ValueError: Target module"
_NO_WEIGHT = "'ModulesToSaveWrapper' object has no attribute 'weight'"
_WRAPPER = "<class 'peft.utils.other.ModulesToSaveWrapper'>"
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

    PEFT looks for targets and saved modules among all modules of the model, its own included. Up to 0.15 an adapter
    called like a target (`q_proj`) breaks the loading of the next one; a name that ends with one of `modules_to_save`
    (`my-classifier`, for `classifier`) breaks its own on every release.

    ## Example
    A directory `v1.5` beside another adapter; a directory `keys`.

    ## Fix
    None in the files: the name is that of the directory. Rename it, or pass another `adapter_name`.

    ## References
    - torch `nn/modules/module.py`, `add_module`; peft#2252, peft#2772; measured on 0.4.0 to 0.21.2.
    """

    code = "AL507"
    name = "clashing-adapter-names"
    of_first = True

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("plain names", {"sentiment": plain, "default": plain, "legal-de": plain}, bert_base()),
            SetExample("saved before it came", {"other": head, "my-classifier": plain}, bert_base()),
            SetExample("no target", {"output": plain, "other": plain}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("a dot", {"v1.5": plain, "other": plain}, bert_base()),
            SetExample("a method of ModuleDict", {"keys": plain, "other": plain}, bert_base()),
            SetExample("a part of LoRA's names", {"lora_A": head, "other": head}, bert_base()),
            SetExample("a target of the next", {"query": plain, "other": plain}, bert_base()),
            SetExample("ends with a saved module", {"my-classifier": head, "other": head}, bert_base()),
            SetExample("another one saves it", {"my-classifier": plain, "other": head}, bert_base()),
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
        if subject.explicit and subject.all_lora:
            yield from self._taken(subject)

    def _taken(self, subject: SetSubject) -> Iterator[Finding]:
        """Names that PEFT takes for modules, because it finds its own layers and copies when it looks for them."""
        for reason, clash, effects in (*_as_targets(subject), *_as_saved(subject)):
            name = clash.owner.adapter.name
            yield self.finding(
                f"adapter name {name!r}: {reason}",
                clash.owner.at_directory(),
                effects=effects,
                fix=Fix("Rename the directory, or load it under another adapter_name", Safety.DISPLAY),
                adapters=subject.paths,
            )


def _as_targets(subject: SetSubject) -> Iterator[tuple[str, Clash, tuple[Effect, ...]]]:
    for targets, legacy in (("peft<0.6", True), ("peft>=0.6,<0.16", False)):
        clash = taken_for_target(subject, legacy)
        if clash is not None:
            reader = clash.reader.adapter.name
            reason = f"target_modules of {reader}, loaded later, match it, so that LoRA is put into LoRA's own layers"
            yield reason, clash, (raises(targets, f"{_REFUSED} Identity() is not supported.", adapter=reader),)
    clash = copy_taken_for_target(subject)
    if clash is not None:
        reader = clash.reader.adapter.name
        reason = f"target_modules of {reader}, loaded later, match its copy of {clash.module}"
        yield reason, clash, (raises("peft", f"{_REFUSED} {clash.module} is not supported.", adapter=reader),)


def _as_saved(subject: SetSubject) -> Iterator[tuple[str, Clash, tuple[Effect, ...]]]:
    """modules_to_save is matched without a dot, so an adapter "my-classifier" ends with the name "classifier"."""
    early, late = taken_for_saved(subject, collected=True), taken_for_saved(subject, collected=False)
    if early is not None:
        yield (
            f"it ends with {early.name!r} of modules_to_save, and PEFT wraps its layers",
            early,
            _wrapped(early),
        )
    if late is not None:
        name, reader = late.owner.adapter.name, late.reader.adapter.name
        missing = f"KeyError: 'base_model.model.{late.module}.lora_A.{name}.weight'"
        child = f"ValueError: You are trying to target a module with {_WRAPPER} that is a child of"
        effects = (raises("peft>=0.15,<0.18", missing, adapter=reader), raises("peft>=0.18", child, adapter=reader))
        yield f"it ends with {late.name!r} of modules_to_save of {reader}", late, effects


def _wrapped(clash: Clash) -> tuple[Effect, ...]:
    name = clash.owner.adapter.name
    return (
        raises("peft<0.6", f"AttributeError: {_NO_WEIGHT}", stage="after_load", adapter=name),
        raises("peft>=0.6,<0.11", f"ValueError: Adapter {name} not found in dict_keys", stage="switch", adapter=name),
        wrong("peft>=0.11,<0.15", adapter=name),
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
