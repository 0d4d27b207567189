"""AL223."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, SetConfig, raises, unknown
from adapterlint.model import peft
from adapterlint.model.subject import Subject
from adapterlint.model.wrapping import nested, paths
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, bert_base, bert_config, bert_tensors

_POOLER = {
    "base_model.model.bert.pooler.dense.weight": ("F32", (16, 16)),
    "base_model.model.bert.pooler.dense.bias": ("F32", (16,)),
}


class NestedSavedModules(Rule):
    """## What it does
    Looks for a name in `modules_to_save` that selects a module inside another one that is saved whole.

    ## Why is this bad?
    PEFT wraps both, one inside the other. Up to 0.13 it cannot find the inner one any more; 0.14 reads the tensors or
    not, by chance (the names are a Python set); from 0.15 on it wants the inner one's tensors twice.

    ## Example
    `"modules_to_save": ["pooler", "pooler.dense"]`

    ## Fix
    Safe: leave out the inner name, where all that it selects is inside others.

    ## References
    - PEFT `utils/other.py`, `_set_trainable`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL223"
    name = "nested-saved-modules"
    needs = ("config", "header")

    @staticmethod
    def valid() -> list[AnyExample]:
        tensors = {**bert_tensors(), **_POOLER}
        return [
            Example("only the container", bert_config(modules_to_save=["pooler"]), tensors, bert_base()),
            Example("only the part", bert_config(modules_to_save=["pooler.dense"]), tensors, bert_base()),
            Example("twice the same", bert_config(modules_to_save=["dense", "pooler.dense"]), tensors),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        both = bert_config(modules_to_save=["pooler.dense", "pooler"])
        return [
            Example("both", both, {**bert_tensors(), **_POOLER}, bert_base()),
            Example("both, without a base", both, {**bert_tensors(), **_POOLER}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if not subject.adapter.is_lora or not subject.adapter.names("modules_to_save"):
            return
        found = nested(subject.saved_names, paths(subject))
        if found is None:
            return
        module, root = found
        part = module[len(root) + 1 :].split(".")[0]
        yield self.finding(
            f"modules_to_save selects {module}, which lies inside {root}, and that is saved as well",
            subject.at_field("modules_to_save"),
            effects=(
                raises("peft<0.14", f"AttributeError: ModulesToSaveWrapper has no attribute `{part}`", scope="alone"),
                unknown("peft>=0.14,<0.15", scope="alone"),
                raises("peft>=0.15", f"KeyError: 'base_model.model.{module}.weight'", scope="alone"),
            ),
            fix=_without_inner(subject),
        )


def _without_inner(subject: Subject) -> Fix | None:
    names = subject.adapter.names("modules_to_save")
    left = list(dict.fromkeys(name for name in names if not _only_inside(subject, name)))
    if len(left) == len(set(names)) or nested((*left, *peft.implied_heads(subject.adapter)), paths(subject)):
        return Fix("Leave out the inner module", Safety.DISPLAY)
    return Fix(f"Leave only {left} in modules_to_save", Safety.SAFE, (SetConfig("/modules_to_save", left),))


def _only_inside(subject: Subject, name: str) -> bool:
    """Whether all that a name selects lies inside what the others select."""
    others = tuple(other for other in subject.saved_names if other != name)
    selected = [module for module in paths(subject) if peft.saves((name,), module)]
    return bool(selected) and all(peft.saved_root(others, module) not in (None, module) for module in selected)
