"""AL506."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Safety, raises, wrong
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.model.together import shown, stores_bias
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    SetExample,
    bert_base,
    bert_config,
    bert_tensors,
    llama_base,
    llama_tensors,
    lora_config,
)

_TEXT = (
    "ValueError: LoraModel supports only 1 adapter with bias. "
    "When using multiple adapters, set bias to 'none' for all adapters."
)
_BY_FORM = "Turn the biases to biases of lora_B (linear modules, PEFT 0.14 or newer): fix --form lowrank"
_BIAS = {"base_model.model.bert.encoder.layer.0.attention.self.value.base_layer.bias": ("F32", (16,))}
_HEAD = {"weight": ("F32", (3, 16)), "bias": ("F32", (3,))}


class BiasInSet(SetRule):
    """## What it does
    Looks for members of a set whose `bias` is not `"none"`.

    ## Why is this bad?
    Trained biases are written into the shared base. Two such adapters raise on every release; one raises up to 0.17
    unless it is loaded first, and changes the output of all others where it does not.

    ## Example
    `"bias": "all"` in one of two adapters.

    ## Fix
    Safe: members that store no bias get `"bias": "none"`, which loads the same weights; unsafe where the base has
    biases in their modules, which may have been trained and lost. None for a member that stores biases: where these are
    of linear modules, `fix --form lowrank --target 'peft>=0.14'` turns them to biases of `lora_B`; else train without
    them, or load it alone.

    ## References
    - peft#2112; measured on 0.4.0 to 0.21.2.
    """

    code = "AL506"
    name = "bias-in-set"
    damage = "base"
    of_first = True

    @staticmethod
    def valid() -> list[AnyExample]:
        none = Example("a", bert_config(), bert_tensors())
        head = {f"base_model.model.classifier.{part}": shape for part, shape in _HEAD.items()}
        saving = Example("a", bert_config(bias="all", modules_to_save=["classifier"]), {**bert_tensors(), **head})
        return [
            SetExample("no biases", {"a": none, "b": none}, bert_base()),
            SetExample("the first saves a head and no bias beside it", {"a": saving, "b": none}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        none = Example("a", bert_config(), bert_tensors())
        bare = Example("a", lora_config(bias="all"), llama_tensors())
        biased = Example("b", bert_config(bias="all"), {**bert_tensors(), **_BIAS})
        return [
            SetExample("one, second", {"a": none, "b": biased}, bert_base()),
            SetExample("two", {"a": biased, "b": biased}, bert_base()),
            SetExample("two that store none", {"a": bare, "b": bare}, llama_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        members = [
            m for m in subject.members if m.adapter.is_lora and m.adapter.get("bias", "none") not in ("none", None)
        ]
        effects = tuple(_effects(subject, members)) if members else ()
        if not effects:
            return
        names = ", ".join(member.adapter.name for member in members)
        yield self.finding(
            f"trained biases in a set ({names}) go into the base that all its adapters share",
            members[0].at_field("bias"),
            related=tuple(member.at_field("bias", member.adapter.name) for member in members[1:]),
            effects=effects,
            fix=_fix(members),
            adapters=subject.paths,
        )


def _fix(members: list[Subject]) -> Fix | None:
    bare = [member for member in members if not stores_bias(member)]
    if not bare:
        return Fix(_BY_FORM, Safety.DISPLAY)
    sure = all(member.base is not None and not _biased_base(member) for member in bare)
    names = ", ".join(member.adapter.name for member in bare)
    return Fix(f"Set bias to 'none' in {names}", Safety.SAFE if sure else Safety.UNSAFE, form="unbiased")


def _biased_base(member: Subject) -> bool:
    """Whether the base has a bias that the mode would train."""
    assert member.base is not None
    every = member.adapter.get("bias") == "all"
    modules = member.base.modules if every else member.selected
    return any("bias" in member.base.modules.get(module, {}) for module in modules)


def _effects(subject: SetSubject, members: list[Subject]) -> Iterator[Effect]:
    later = [member for member in subject.members[1:] if member in members]
    odd = [member for member in members if member.adapter.get("bias") not in ("all", "lora_only")]
    if odd:
        yield raises("peft>=0.18,<0.21", "NotImplementedError: ", operation="save", adapter=odd[0].adapter.name)
    mode = members[0].adapter.get("bias")
    if odd and odd[0] is subject.members[0]:
        text = f"NotImplementedError: Requested bias: {shown(mode)}, is not implemented."
        yield raises("peft>=0.18", text, adapter=members[0].adapter.name)
    if len(members) > 1:
        yield raises("peft", _TEXT, adapter=later[0].adapter.name)
        return
    if later:
        yield raises("peft<0.18", _TEXT, adapter=later[0].adapter.name)
    if stores_bias(members[0]):
        yield wrong("peft>=0.18" if later else "peft", adapter=subject.members[0].adapter.name)
