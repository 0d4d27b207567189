"""AL519."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Safety, raises, unknown, wrong
from adapterlint.model import peft, wrapping
from adapterlint.model.subject import SetSubject
from adapterlint.model.wrapping import Entangled, entangled
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_POOLER = {
    "base_model.model.bert.pooler.dense.weight": ("F32", (16, 16)),
    "base_model.model.bert.pooler.dense.bias": ("F32", (16,)),
}


class NestedSavedModulesInSet(SetRule):
    """## What it does
    Looks, in a set, for a saved module of one adapter that lies inside a saved module of another.

    ## Why is this bad?
    PEFT wraps one inside the other. From 0.15 on the adapter that is loaded later raises a KeyError, or its tensors
    for the module are dropped; before, it depended on the order of a Python set, which differs from run to run.

    ## Example
    One adapter with `"modules_to_save": ["pooler"]`, another with `["pooler.dense"]`.

    ## Fix
    Safe with `--base`: the `union` form, which names the innermost modules everywhere.

    ## References
    - PEFT `utils/other.py`, `_set_trainable`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL519"
    name = "nested-saved-modules-in-set"
    drops = True

    @staticmethod
    def valid() -> list[AnyExample]:
        tensors = {**bert_tensors(), **_POOLER}
        whole = Example("a", bert_config(modules_to_save=["pooler"]), tensors)
        part = Example("b", bert_config(modules_to_save=["pooler.dense"]), tensors)
        return [
            SetExample("the container in both", {"a": whole, "b": whole}, bert_base()),
            SetExample("the part in both", {"a": part, "b": part}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        tensors = {**bert_tensors(), **_POOLER}
        whole = Example("a", bert_config(modules_to_save=["pooler"]), tensors)
        part = Example("b", bert_config(modules_to_save=["pooler.dense"]), tensors)
        return [
            SetExample("the part second", {"a": whole, "b": part}, bert_base()),
            SetExample("the part first", {"b": part, "a": whole}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        if not subject.all_lora:
            return
        yield from self._own(subject)
        found = next(entangled(subject), None)
        if found is None:
            return
        member = found.member
        relation = "around" if found.outcome == "around" else "inside"
        yield self.finding(
            f"{member.adapter.name} saves {found.module}, which lies {relation} {found.other} that an earlier adapter "
            "of the set saves",
            member.at_field("modules_to_save", member.adapter.name),
            effects=tuple(_effects(found)),
            fix=Fix("Give every adapter the union of the saved modules", Safety.SAFE, form="union"),
            adapters=subject.paths,
        )

    def _own(self, subject: SetSubject) -> Iterator[Finding]:
        """One adapter's own nested modules (AL223), unless an earlier adapter has wrapped the outer one already."""
        heads = peft.implied_heads(subject.members[0].adapter)
        wrapped: dict[str, bool] = {}
        everything = wrapping.paths(subject)
        seen: set[tuple[str, ...]] = set()
        for member in subject.members:
            names = (*member.adapter.names("modules_to_save"), *heads)
            if not names or names in seen:
                continue
            seen.add(names)
            outside = [path for path in everything if not any(path.startswith(f"{r}.") for r in wrapped)]
            found = wrapping.nested(names, outside)
            if found is not None:
                module, root = found
                part = module[len(root) + 1 :].split(".")[0]
                yield self.finding(
                    f"{member.adapter.name} saves {module}, which lies inside {root} that it saves as well",
                    member.at_field("modules_to_save", member.adapter.name),
                    effects=(
                        raises(
                            "peft<0.14",
                            f"AttributeError: ModulesToSaveWrapper has no attribute `{part}`",
                            adapter=member.adapter.name,
                        ),
                        unknown("peft>=0.14,<0.15"),
                        raises(
                            "peft>=0.15",
                            f"KeyError: 'base_model.model.{module}.weight'",
                            adapter=member.adapter.name,
                        ),
                    ),
                    adapters=subject.paths,
                )
                return
            wrapped |= {path: True for path in outside if peft.saves(names, path)}


def _effects(found: Entangled) -> Iterator[Effect]:
    name = found.member.adapter.name
    if found.outcome in ("lost", "kept"):
        yield unknown("peft<0.15")
        if found.outcome == "lost":
            yield wrong("peft>=0.15", stage="after_switch", adapter=name)
        return
    if found.outcome == "around":
        part = found.other[len(found.module) + 1 :].split(".")[0]
        text = f"AttributeError: ModulesToSaveWrapper has no attribute `{part}`"
        yield raises("peft<0.6", text, adapter=name)
    yield raises("peft>=0.15", f"KeyError: 'base_model.model.{found.tensor}'", adapter=name)
