"""AL516."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model.subject import SetSubject, first_names
from adapterlint.model.together import SavedSets, saved_sets, trains_rows
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_OPERATION = "merge"


class MergeMismatch(SetRule):
    """## What it does
    Looks for sets in which an adapter cannot be merged while the others are loaded: all are loaded, one is made active
    with `set_adapter`, and after `merge_and_unload` the model must answer as that one; for every one in turn.

    ## Why is this bad?
    A saved module that the active adapter lacks has no active entry. PEFT 0.15 to 0.17 takes another adapter's, 0.18
    to 0.20 raise.

    ## Example
    One adapter with `"modules_to_save": ["classifier"]`, one without.

    ## Fix
    None unasked: `fix --form union` gives all adapters the same saved modules. Or load the adapter alone before
    merging.

    ## References
    - PEFT `utils/other.py`, `unload_and_optionally_merge_module`; 3af2ad701 (0.21.0).
    - Measured on 0.8.2 to 0.21.2; see docs/operations.md.
    """

    code = "AL516"
    name = "merge-mismatch"
    severity = Severity.NOTE
    loading = False

    @staticmethod
    def valid() -> list[AnyExample]:
        head = Example("a", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        return [SetExample("the same head in both", {"a": head, "b": head}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        head = Example("a", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        none = Example("b", bert_config(), bert_tensors())
        return [SetExample("a head in one", {"a": head, "b": none}, bert_base())]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        sets = saved_sets(subject, heads_for_all=True)
        effects = tuple(_old_effects(saved_sets(subject, heads_for_all=False)))
        if len(set(sets.saved)) > 1:
            effects += tuple(_effects(sets))
        elif len({trains_rows(member) for member in subject.members}) > 1:
            effects += (wrong("peft>=0.15,<0.18", operation=_OPERATION),)
        if not effects:
            return
        owner = next((member for member, saved in zip(subject.members, sets.saved, strict=True) if saved), None)
        shown = first_names(sorted(sets.union)) or "token rows"
        yield self.finding(
            f"an adapter that has no {shown} is merged with another adapter's",
            (owner or subject.members[0]).at_field("modules_to_save" if owner else "trainable_token_indices"),
            effects=effects,
            adapters=subject.paths,
        )


def _old_effects(before: SavedSets) -> Iterator[Effect]:
    """PEFT 0.6 to 0.10 cannot switch to an adapter without an entry."""
    lacking = before.lacking()
    if lacking is not None:
        name, module = lacking
        text = f"ValueError: Adapter {name} not found in dict_keys({before.holders(module)})"
        yield raises("peft>=0.6,<0.11", text, stage="switch", operation=_OPERATION, adapter=name)


def _effects(sets: SavedSets) -> Iterator[Effect]:
    if sets.lacking() is not None:
        yield wrong("peft>=0.11,<0.15", operation=_OPERATION)
    yield wrong("peft>=0.15,<0.18", operation=_OPERATION)
    yield raises("peft>=0.18,<0.21", "TypeError: unhashable type: 'list'", operation=_OPERATION)
