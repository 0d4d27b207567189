"""AL504."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model.base import BASE_PREFIXES, Base
from adapterlint.model.keys import PROMPT_TYPES
from adapterlint.model.subject import SetSubject, first_names
from adapterlint.model.together import SavedSets, has_dora, saved_kind, saved_sets, trains_rows
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_OPERATION = "mixed_batch"
_LAYERS_013 = "the following modules: Linear, Embedding, Conv2d, Conv1d."
_LAYERS = "the following modules: Linear, Embedding, Conv1d, Conv2d, Conv3d."
_BEFORE = ("peft>=0.13,<0.14", "peft>=0.14,<0.15")  # adapters that save anything have an entry in every older wrapper
_NOW = ("peft>=0.15,<0.18", "peft>=0.19")
# Embeddings that are looked up once for all rows, so that their input has one row (measured: Bert and GPT-2).
_POSITIONS = {"bert": "position_embeddings", "gpt2": "wpe"}
_CAN_MIX = frozenset({"LORA", "ROAD", "GLORA", "XLORA"})


class MixedBatchMismatch(SetRule):
    """## What it does
    Looks for sets that cannot answer one batch for several adapters: `model(..., adapter_names=[...])` over all of
    them and `"__base__"`.

    ## Why is this bad?
    A saved module takes part only if it is a linear, embedding or convolution layer and every adapter has it: else
    PEFT raises (0.13 and later) or answers with the active adapter's module (0.10 to 0.12). DoRA raises; so do
    position embeddings, which are looked up once for the whole batch. Methods other than LoRA ignore the names.

    ## Example
    One adapter with `"modules_to_save": ["classifier"]`, one without; or both with `["pooler"]`, a container.

    ## Fix
    None unasked: the `union` form (AL501) gives every adapter the saved modules of all, by leaf names. What it does not
    cure, `adapterlint fix --form lowrank` does: it leaves no saved modules (docs/forms.md).

    ## References
    - PEFT `utils/other.py`, `_mixed_batch_forward`; `tuners/lora/layer.py`, `_check_forward_args`.
    - Measured on 0.8.2 to 0.21.2; see docs/operations.md.
    """

    code = "AL504"
    name = "mixed-batch-mismatch"
    severity = Severity.NOTE
    loading = False

    @staticmethod
    def valid() -> list[AnyExample]:
        none = Example("a", bert_config(), bert_tensors())
        wide = Example("b", bert_config(r=8), bert_tensors(r=8))
        return [SetExample("no saved modules", {"a": none, "b": wide}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = Example("a", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        none = Example("b", bert_config(), bert_tensors())
        pooler = {
            "base_model.model.bert.pooler.dense.weight": ("F32", (16, 16)),
            "base_model.model.bert.pooler.dense.bias": ("F32", (16,)),
        }
        container = Example("c", bert_config(modules_to_save=["pooler"]), {**bert_tensors(), **pooler})
        return [
            SetExample("only one saves a head", {"a": head, "b": none}, bert_base()),
            SetExample("a container", {"a": container, "b": container}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        methods = {member.adapter.peft_type for member in subject.members}
        if len(methods) > 1 or not all(methods):
            return
        if methods.isdisjoint(_CAN_MIX):
            yield self._method(subject)
            return
        yield from self._dora(subject)
        yield from self._positions(subject)
        yield from self._rows(subject)
        yield from self._saved(subject, saved_sets(subject, heads_for_all=True))

    def _method(self, subject: SetSubject) -> Finding:
        first = subject.members[0]
        method = first.adapter.peft_type
        effects: tuple[Effect, ...] = (wrong("peft>=0.10", operation=_OPERATION),)
        if method == "ADALORA":
            text = "TypeError: Linear.forward() got an unexpected keyword argument 'adapter_names'"
            effects = (raises("peft>=0.10", text, operation=_OPERATION),)
        elif method in PROMPT_TYPES and subject.base is not None and not _passes_on(subject.base):
            text = (
                f"TypeError: {subject.base.architecture}.forward() got an unexpected keyword argument 'adapter_names'"
            )
            effects = (raises("peft>=0.10", text, operation=_OPERATION),)
        return self.finding(
            f"{method} adapters cannot be mixed in one batch",
            first.at_field("peft_type"),
            effects=effects,
            adapters=subject.paths,
        )

    def _dora(self, subject: SetSubject) -> Iterator[Finding]:
        found = [member for member in subject.members if has_dora(member)]
        if found:
            text = "ValueError: Cannot pass `adapter_names` when DoRA is enabled."
            effects = [raises("peft>=0.13", text, operation=_OPERATION)]
            if found[0] is subject.members[0]:
                effects.append(raises("peft>=0.10,<0.13", text, operation=_OPERATION))
            else:  # only the active adapter was looked at, and the others' vectors are left out
                effects.append(wrong("peft>=0.10,<0.13", operation=_OPERATION, adapter=found[0].adapter.name))
            yield self.finding(
                f"{first_names(member.adapter.name for member in found)}: DoRA adapters cannot be mixed in one batch",
                found[0].at_field("use_dora"),
                effects=tuple(effects),
                adapters=subject.paths,
            )

    def _positions(self, subject: SetSubject) -> Iterator[Finding]:
        leaf = _POSITIONS.get(subject.base.model_type) if subject.base else None
        for member in subject.members if leaf else ():
            touched = [*member.layers, *member.saved_modules]
            hit = next((module for module in touched if module.rpartition(".")[2] == leaf), None)
            if hit is None:
                continue
            text = (
                "ValueError: Length of `adapter_names` should be the same as the number of inputs, "
                "but got {} and 1 respectively."
            )
            since = "peft>=0.13" if hit in member.saved_modules else "peft>=0.10"
            yield self.finding(
                f"{member.adapter.name} changes {hit}, which is looked up once for all rows of a batch",
                member.at_field("modules_to_save" if hit in member.saved_modules else "target_modules"),
                effects=(raises(since, text.format(len(subject.members) + 1), operation=_OPERATION),),
                adapters=subject.paths,
            )
            return

    def _rows(self, subject: SetSubject) -> Iterator[Finding]:
        having = [member for member in subject.members if trains_rows(member)]
        lacking = [member for member in subject.members if not trains_rows(member)]
        if having and lacking:
            yield self.finding(
                f"{lacking[0].adapter.name} has no token rows and cannot be mixed with {having[0].adapter.name}",
                having[0].at_field("trainable_token_indices"),
                effects=(raises("peft>=0.15", f"KeyError: '{lacking[0].adapter.name}'", operation=_OPERATION),),
                adapters=subject.paths,
            )

    def _saved(self, subject: SetSubject, sets: SavedSets) -> Iterator[Finding]:
        if not sets.union:
            return
        owner = next(member for member, saved in zip(subject.members, sets.saved, strict=True) if saved)
        unsupported = [module for module in sorted(sets.union) if _unsupported(subject, module)]
        lacking = _lacking(sets, sets.union)
        if not unsupported and lacking is None:
            message = f"PEFT before 0.13 answers with one adapter's {first_names(sorted(sets.union))} for all rows"
        elif lacking is None:
            message = f"{first_names(unsupported)} cannot differ within a batch: it is {_named(subject, unsupported)}"
        else:
            message = f"{lacking[0]} does not save {lacking[1]}, which other adapters of a mixed batch do"
        yield self.finding(
            message,
            owner.at_field("modules_to_save"),
            effects=tuple(_effects(subject, sets)),
            adapters=subject.paths,
        )


def _passes_on(base: Base) -> bool:
    """Whether the model takes arguments that it does not know: decoders do, which prompts hand the names on to."""
    if base.architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return True
    return base.model_type not in BASE_PREFIXES and not base.architecture.endswith("ForConditionalGeneration")


def _unsupported(subject: SetSubject, module: str) -> bool:
    return saved_kind(subject, module) in ("container", "norm")


def _named(subject: SetSubject, modules: list[str]) -> str:
    return {"container": "a container", "norm": "a normalisation layer"}[saved_kind(subject, modules[0])]


def _lacking(sets: SavedSets, modules: Collection[str]) -> tuple[str, str] | None:
    """The first member that lacks one of these modules, and that module."""
    for name, saved in zip(sets.names, sets.saved, strict=True):
        missing = sorted(module for module in modules if module not in saved)
        if missing:
            return name, missing[0]
    return None


def _effects(subject: SetSubject, sets: SavedSets) -> Iterator[Effect]:
    odd = {module for module in sets.union if _unsupported(subject, module)}
    yield wrong("peft>=0.10,<0.13", operation=_OPERATION)
    yield from _raised(bool(odd), sets.lacking(), *_BEFORE)
    yield from _raised(bool(odd), _lacking(sets, sets.union), *_NOW)
    passed = {module for module in sets.union if _passed_by(sets, module)}
    yield from _raised(bool(odd - passed), _lacking(sets, sets.union - passed), "peft>=0.18,<0.19")
    if passed:
        yield wrong("peft>=0.18,<0.19", operation=_OPERATION)


def _raised(unsupported: bool, lacking: tuple[str, str] | None, *targets: str) -> Iterator[Effect]:
    for each in targets:
        if unsupported:
            listed = _LAYERS_013 if each == _BEFORE[0] else _LAYERS
            yield raises(each, f"TypeError: Mixed batching is only supported for {listed}", operation=_OPERATION)
        elif lacking is not None:
            yield raises(each, f"KeyError: '{lacking[0]}'", operation=_OPERATION)


def _passed_by(sets: SavedSets, module: str) -> bool:
    """In 0.18 a wrapper that the first adapter has no part in drops out at the next load, and the base's is used."""
    having = [module in saved for saved in sets.saved]
    return not having[0] and having.index(True) < len(having) - 1
