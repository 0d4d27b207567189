"""AL225."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Outcome
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX, Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, bert_config, bert_tensors, llama_tensors, lora_config

_MLP = "base_model.model.model.layers.0.mlp"


_UNREAD = frozenset({Kind.BASE_LAYER, Kind.RESIDUE, Kind.TOKENS})  # token rows came with 0.15


class NameInOtherKeys(Rule):
    """## What it does
    Looks for tensors whose names contain an entry of `modules_to_save` where it is not meant: `dense` in
    `dense_h_to_4h.lora_A.weight`, or `o` in `base_model`.

    ## Why is this bad?
    Up to 0.14 PEFT puts `modules_to_save.<adapter>` behind every place at which such an entry stands in a name, be it
    a part of a word. It then finds no parameter of that name and drops the tensor without a word.

    ## Example
    `"modules_to_save": ["mlp.up"]` beside `…mlp.up_proj.lora_A.weight`.

    ## Fix
    None that serves every release: name the saved modules by longer paths, which do not occur in other names.

    ## References
    - PEFT 0.4.0 to 0.14.0, `utils/save_and_load.py`, `set_peft_model_state_dict`; measured there.
    """

    code = "AL225"
    name = "name-in-other-keys"
    needs = ("config", "header")

    @staticmethod
    def valid() -> list[AnyExample]:
        stem = "base_model.model.classifier."
        head = {f"{stem}weight": ("F32", (3, 16)), f"{stem}bias": ("F32", (3,))}
        down = {f"{_MLP}.down_proj.weight": ("F32", (16, 32))}
        saved = lora_config(modules_to_save=["model.layers.0.mlp.down_proj"])
        return [
            Example("a head", bert_config(modules_to_save=["classifier", "score"]), {**bert_tensors(), **head}),
            Example("a full path", saved, {**llama_tensors(), **down}),
            Example("nothing like it", lora_config(modules_to_save=["no_such_module"]), llama_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("a part of a word", lora_config(modules_to_save=["q_pro"]), llama_tensors()),
            Example("a single letter", lora_config(modules_to_save=["o"]), llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        names = subject.saved_names
        if not names or not subject.adapter.names("modules_to_save"):
            return
        lost = [key for key in subject.adapter.keys if _matters(subject, key) and _mangled(names, key)]
        if not lost:
            return
        yield self.finding(
            f"PEFT up to 0.14 takes parts of {len(lost)} tensor names for entries of modules_to_save and drops them: "
            + first_names(key.name for key in lost),
            subject.at_field("modules_to_save"),
            related=(subject.at_tensor(lost[0].name, "its name contains an entry"),),
            effects=(Effect(Outcome.WRONG, "peft<0.15", stage="after_load"),),
        )


def _matters(subject: Subject, key: Key) -> bool:
    """Whether a tensor is one that PEFT would read: those of the base, added or copied, are others' concern."""
    if not key.has_canonical_prefix or key.infix or key.adapter or key.kind in _UNREAD:
        return False
    return key.kind is not Kind.FULL or peft.saved_root(subject.saved_names, key.module) is not None


def _mangled(names: tuple[str, ...], key: Key) -> bool:
    """Whether the name is spoilt, whichever of the entries in it PEFT takes: the order of its set is by chance."""
    inside = [name for name in names if name in key.name]
    root = peft.saved_root(names, key.module) if key.kind is Kind.FULL else None
    right = key.name
    if root is not None:
        right = f"{PREFIX}{root}.modules_to_save.{key.full_name[len(root) + 1 :]}"
    return bool(inside) and all(key.name.replace(name, f"{name}.modules_to_save") != right for name in inside)
