"""AL515."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model.keys import PROMPT_TYPES
from adapterlint.model.subject import SetSubject, first_names
from adapterlint.model.together import SavedSets, in_model_order, saved_sets
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_OPERATION = "delete"


class DeletionMismatch(SetRule):
    """## What it does
    Looks for sets in which deleting the active adapter leaves a mixture: after loading the first one is active;
    `delete_adapter` removes it, and the adapter that the model then names as active must answer.

    ## Why is this bad?
    Every layer chooses the next adapter by itself, the first one in alphabetical order that it has, and a saved module
    that the deleted adapter had no part in stays switched off. Where targets or saved modules differ, the layers
    choose differently, until `set_adapter` is called. If the first layer is left without any adapter, the model still
    names the deleted one and raises. Up to 0.15 it always does.

    ## Example
    One adapter without saved modules, deleted, and one with `"modules_to_save": ["classifier"]`, which follows.

    ## Fix
    None in the files: it is the release that goes wrong. Call `set_adapter` for another adapter before
    `delete_adapter`.

    ## References
    - PEFT `tuners/tuners_utils.py`, `delete_adapter`; `utils/other.py`, `ModulesToSaveWrapper.delete_adapter`.
    - Measured on 0.8.2 to 0.21.2; see docs/operations.md.
    """

    code = "AL515"
    name = "deletion-mismatch"
    severity = Severity.NOTE
    loading = False

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("equal targets", {"a": plain, "b": plain}, bert_base()),
            SetExample("the deleted one has the head", {"b": head, "a": plain}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        query = Example("c", bert_config(target_modules=["query"]), _only("query"))
        value = Example("d", bert_config(target_modules=["value"]), _only("value"))
        return [
            SetExample("the remaining one has the head", {"a": plain, "b": head}, bert_base()),
            SetExample("nothing is left in the first layer", {"c": query, "d": value}, bert_base()),
            SetExample("layers choose differently", {"a": plain, "c": query, "d": value}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        if all(member.adapter.peft_type in PROMPT_TYPES for member in subject.members):
            text = "TypeError: PeftAdapterMixin.delete_adapter() got an unexpected keyword argument 'adapter_name'"
            effect = raises("peft>=0.16,<0.21", text, operation=_OPERATION)
            yield self._found(subject, "prompts cannot be deleted up to 0.20", (effect,), "peft_type")
            left = [member.adapter.name for member in subject.members[1:]]
            if len(left) > 1 and saved_sets(subject, heads_for_all=True).union:
                text = f"ValueError: Attempted to set multiple ({left}) adapters at once for ModulesToSaveWrapper"
                effect = raises("peft>=0.21", text, operation=_OPERATION)
                yield self._found(subject, "all prompts that are left become active at once", (effect,), "peft_type")
        if not subject.all_lora or len(subject.members) < 2:
            return
        gone = subject.members[0].adapter.name
        remaining = _left(subject)
        if not remaining:
            return
        start = next(iter(remaining.values()))
        if start is None:
            yield self._found(
                subject,
                f"once {gone} is deleted its first layer has no adapter left, and the model still asks for {gone}",
                (raises("peft>=0.16", f"KeyError: '{gone}'", operation=_OPERATION, adapter=gone),),
            )
            return
        chosen, saves = start, saved_sets(subject, heads_for_all=True)
        own = saves.saved[saves.names.index(chosen)]  # copies in which the others have no part
        mixed = [
            (module, other)
            for module, other in remaining.items()
            if other is not None and other != chosen and _counts(subject, module, other, chosen)
        ]
        mixed = [(module, other) for module, other in mixed if not any(module.startswith(f"{root}.") for root in own)]
        if mixed:
            modules = first_names((module for module, _ in mixed), 1)
            yield self._found(
                subject,
                f"once {gone} is deleted {chosen} is active in some layers and {mixed[0][1]} in others ({modules})",
                (wrong("peft>=0.16", operation=_OPERATION, adapter=chosen),),
            )
        yield from self._saved(subject, saves, chosen)

    def _saved(self, subject: SetSubject, sets: SavedSets, chosen: str) -> Iterator[Finding]:
        effects = []
        gone = sets.names[0]
        now = [module for module in sorted(sets.union) if _stays_off(sets, module, chosen)]
        before = [module for module in sorted(sets.union) if _stays_on(sets, module, chosen)]
        if before:
            effects.append(wrong("peft>=0.16,<0.18", operation=_OPERATION, adapter=chosen))
        if now:
            effects.append(wrong("peft>=0.18", operation=_OPERATION, adapter=chosen))
        if effects:
            yield self._found(
                subject,
                f"once {gone} is deleted {chosen} answers without its own {first_names(now or before)}",
                tuple(effects),
                "modules_to_save",
            )

    def _found(
        self, subject: SetSubject, message: str, effects: tuple[Effect, ...], field: str = "target_modules"
    ) -> Finding:
        first, *others = subject.members
        return self.finding(
            message,
            first.at_field(field, first.adapter.name),
            related=tuple(member.at_field(field, member.adapter.name) for member in others),
            effects=effects,
            adapters=subject.paths,
        )


def _only(leaf: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: entry for name, entry in bert_tensors().items() if f".{leaf}." in name}


def _left(subject: SetSubject) -> dict[str, str | None]:
    """Module -> the name that is chosen for its layer once the first adapter is gone; None where none is left."""
    held = {member.adapter.name: member.layers for member in subject.members}
    others = sorted(member.adapter.name for member in subject.members[1:])
    modules = in_model_order(frozenset().union(*held.values()))
    return {module: next((name for name in others if module in held[name]), None) for module in modules}


def _counts(subject: SetSubject, module: str, other: str, chosen: str) -> bool:
    """Whether the other choice shows: the chosen adapter is switched off there, or the other one adds something."""
    by_name = {member.adapter.name: member for member in subject.members}
    return module in by_name[chosen].layers or module in by_name[other].covered


def _stays_off(sets: SavedSets, module: str, chosen: str) -> bool:
    """Since 0.18: a saved module that the deleted adapter had no part in stays the base's."""
    entries = dict(zip(sets.names, sets.saved, strict=True))
    return module in entries[chosen] and module not in entries[sets.names[0]]


def _stays_on(sets: SavedSets, module: str, chosen: str) -> bool:
    """0.16 and 0.17: there it stays with the adapter that brought it."""
    entries = dict(zip(sets.names, sets.saved, strict=True))
    if module in entries[sets.names[0]]:
        return False
    return next(name for name in sets.names if module in entries[name]) != chosen
