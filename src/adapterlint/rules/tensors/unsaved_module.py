"""AL210."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import (
    CopyTensor,
    Edit,
    Effect,
    Finding,
    Fix,
    MakeTensor,
    Safety,
    Severity,
    Term,
    raises,
    unknown,
    wrong,
)
from adapterlint.model import peft
from adapterlint.model.keys import PREFIX, Key
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    bert_base,
    bert_config,
    bert_tensors,
    llama_base,
    llama_tensors,
    lora_config,
)

_ALWAYS_THERE = ("lm_head", "embed_tokens")


class UnsavedModule(Rule):
    """## What it does
    Looks for modules that `modules_to_save` declares and whose tensors are not, or not all, in the file.

    ## Why is this bad?
    From 0.15 on PEFT looks every one of them up by name and raises a KeyError. Before, the module keeps the base's
    values without a word.

    ## Example
    `"modules_to_save": ["lm_head"]` and no `lm_head.weight`; or `classifier.weight` without `classifier.bias`.

    ## Fix
    Unsafe: a module of which nothing is stored is copied from the base, which is right when it was never trained; or,
    on a base that ties its embeddings and with `ensure_weight_tying`, from the other end, since the two were trained
    as one. None where a part of the module is stored: it was trained, and the rest is lost.

    ## References
    - PEFT `utils/save_and_load.py`, 0.15.0 and later; measured on 0.4.0 to 0.21.2; peft#310.
    """

    code = "AL210"
    name = "unsaved-module"
    needs = ("config", "header")
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        head = {
            "base_model.model.classifier.weight": ("F32", (3, 16)),
            "base_model.model.classifier.bias": ("F32", (3,)),
        }
        typed = bert_config(task_type="SEQ_CLS", modules_to_save=["classifier", "score"])
        nothing = bert_config(modules_to_save=["no_such_module"])
        return [
            Example("stored", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **head}, bert_base()),
            Example("score is not in the base", typed, {**bert_tensors(), **head}, bert_base()),
            Example("a name that matches nothing", nothing, bert_tensors(), bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        weight = {"base_model.model.classifier.weight": ("F32", (3, 16))}
        config = bert_config(modules_to_save=["classifier"])
        return [
            Example("no tensor at all", config, bert_tensors(), bert_base()),
            Example("the bias is missing", config, {**bert_tensors(), **weight}, bert_base()),
            Example(
                "one end of tied embeddings",
                lora_config(modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True),
                {**llama_tensors(), "base_model.model.model.embed_tokens.weight": ("F32", (48, 16))},
                llama_base(tied=True),
            ),
            Example("a head that every language model has", lora_config(modules_to_save=["lm_head"]), llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if subject.base is not None:
            yield from self._against_base(subject)
            return
        for number, name in enumerate(subject.adapter.names("modules_to_save")):
            if not any(peft.saved_root((name,), key.module) for key in subject.adapter.saved.values()):
                yield from self._without_base(subject, number, name)

    def _against_base(self, subject: Subject) -> Iterator[Finding]:
        assert subject.base is not None
        declared = subject.adapter.names("modules_to_save")
        heads = peft.implied_heads(subject.adapter)
        for root in subject.saved_modules:
            tied = not peft.saves(peft.saved_names(subject.adapter), root)  # only since 0.18: AL406
            if tied or subject.base.quantised_within(root):  # AL410
                continue
            expected = subject.parameters_of(root)
            missing = [name for name in expected if not _stored(subject, name)]
            if not missing or (
                len(missing) == len(expected) and peft.saves(heads, root) and not _names_only(declared, root)
            ):
                continue  # nothing missing, or a whole implied head: AL215
            yield self.finding(
                f"modules_to_save covers {root} but {'none' if len(missing) == len(expected) else 'not all'} of its "
                f"tensors are stored; missing: {first_names(missing)}",
                subject.at_field("modules_to_save"),
                effects=_effects(missing, len(missing) == len(expected), peft.saves(declared, root)),
                related=tuple(subject.at_tensor(key.name, "stored") for key in _siblings(subject, root)[:1]),
                fix=_fill(subject, root, missing, nothing=len(missing) == len(expected)),
                severity=Severity.ERROR,
            )

    def _without_base(self, subject: Subject, number: int, name: str) -> Iterator[Finding]:
        heads = peft.implied_heads(subject.adapter)
        if name in heads and any(peft.saved_root(heads, key.module) for key in subject.adapter.saved.values()):
            return
        sure = name.rpartition(".")[2] in _ALWAYS_THERE
        effects = _effects([f"{name}.weight"], nothing=True, declared=True) if sure else ()
        yield self.finding(
            f"modules_to_save declares {name!r} but no stored tensor belongs to it"
            + ("" if sure else "; harmless only if the base has no such module"),
            subject.at_config(f"/modules_to_save/{number}"),
            effects=effects,
        )


def _stored(subject: Subject, parameter: str) -> bool:
    """Whether a parameter is in the file under any spelling: other rules report the spelling."""
    return parameter in subject.adapter.saved


def _names_only(declared: tuple[str, ...], root: str) -> bool:
    """Whether the config names the module itself, not only through PEFT's pair of head names."""
    return peft.saves(declared, root) and not {"classifier", "score"} <= set(declared)


def _siblings(subject: Subject, root: str) -> list[Key]:
    return [key for name, key in subject.adapter.saved.items() if name.startswith(root + ".")]


def _effects(missing: list[str], nothing: bool, declared: bool) -> tuple[Effect, ...]:
    """A module without any tensor may never have been trained; one with some was, and the rest is lost.

    What only the task class declares is looked for in a set if the first adapter has that class: AL509.
    """
    old = unknown("peft<0.15", missing=("weights",)) if nothing else wrong("peft<0.15")
    return old, raises("peft>=0.15", f"KeyError: '{PREFIX}{missing[0]}'", scope="any" if declared else "alone")


def _fill(subject: Subject, root: str, missing: list[str], nothing: bool) -> Fix:
    base = subject.base
    assert base is not None
    if any(
        key.full_name not in base.parameters and not base.under(key.module) for key in subject.adapter.saved.values()
    ):
        return Fix("Give the saved modules the names that the base has", Safety.DISPLAY)
    if not nothing:
        return Fix("Save the module again: a part of it was trained, and the rest is lost", Safety.DISPLAY)
    other = _other_end(subject, root)
    if other is not None:
        stored = subject.adapter.tensors[other.name]
        term = Term("stored", (other.name,))
        edits: tuple[Edit, ...] = (MakeTensor(f"{PREFIX}{root}.weight", stored.dtype, stored.shape, term),)
        return Fix(f"Copy {other.full_name}, to which the base ties it", Safety.UNSAFE, edits)
    copies: list[Edit] = []
    for name in missing:
        tensor = base.parameters.get(name) or base.under(name.rpartition(".")[0]).get(name)
        if tensor is None:
            return Fix("Save the module, or take it out of modules_to_save", Safety.DISPLAY)
        copies.append(CopyTensor(PREFIX + name, tensor.name))
    return Fix(f"Copy {len(copies)} tensors from the base", Safety.UNSAFE, tuple(copies))


def _other_end(subject: Subject, root: str) -> Key | None:
    """The stored weight of the other end of embeddings that were trained as one."""
    base = subject.base
    if base is None or not base.tied or base.embedding is None or not subject.adapter.get("ensure_weight_tying"):
        return None
    ends = (base.embedding, *(base.tied_heads or ("lm_head",)))
    if root not in ends:
        return None
    key = next((subject.adapter.saved.get(f"{end}.weight") for end in ends if end != root), None)
    return key if key is not None and key.has_canonical_prefix else None
