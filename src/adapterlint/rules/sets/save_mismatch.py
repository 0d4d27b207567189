"""AL517."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model import peft
from adapterlint.model.base import VOCABULARY_LEAVES
from adapterlint.model.keys import LORA_KINDS, PREFIX, Key, Kind
from adapterlint.model.subject import SetSubject, Subject, first_names
from adapterlint.model.together import declared_sets, entered_copies, is_base_bias, saved_kind, saved_sets, trains_rows
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_OPERATION = "save"


class _Held(NamedTuple):
    """A tensor of an adapter in the model.

    Attributes:
        name: its name there.
        own: its name in the adapter's file.
        adapter: whose it is.
        saved: whether it belongs to a saved module and not to a LoRA layer.
    """

    name: str
    own: str
    adapter: str
    saved: bool


class SaveMismatch(SetRule):
    """## What it does
    Looks for sets that `save_pretrained` does not write as they were: all are loaded and saved, and every file must
    hold the adapter's own tensors, and nothing that it does not hold when the adapter is saved alone.

    ## Why is this bad?
    PEFT finds an adapter's tensors by its name. Up to 0.19 every LoRA tensor counts whose name holds the adapter's
    anywhere, such as `base` in `base_model` or `foo` in `foobar`; since 0.20 those of a part of the model that is
    called as another adapter (`query`, `model`, `weight`) are left out. Up to 0.14 saved modules of other adapters are
    written too. Tensors that no config declares are lost on every release.

    ## Example
    Directories `foo` and `foobar`; directories `query` and `value`, on a model with modules of these names.

    ## Fix
    None in the files: the names are those of the directories. Rename them, or pass other adapter names; save each
    adapter from a model of its own.

    ## References
    - PEFT `utils/save_and_load.py`, `get_peft_model_state_dict`; peft#2252, peft#2772.
    - Measured on 0.8.2 to 0.21.2; see docs/operations.md.
    """

    code = "AL517"
    name = "save-mismatch"
    severity = Severity.NOTE
    loading = False

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("plain names", {"sentiment": plain, "legal-de": plain}, bert_base()),
            SetExample("with heads", {"sentiment": head, "legal-de": head}, bert_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("one name in the other", {"foo": plain, "foobar": plain}, bert_base()),
            SetExample("names of modules", {"query": plain, "value": plain}, bert_base()),
            SetExample("undeclared tensors", {"one": head, "two": plain}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        if not subject.all_lora:
            yield from self._method(subject)
            return
        if _may_clash(subject):
            held = [item for member in subject.members for item in _held(member)]
            for member in subject.members:
                yield from self._names(subject, member, held)
        for member in subject.members:
            yield from self._undeclared(subject, member)
        yield from self._entered(subject)
        yield from self._rows(subject)
        yield from self._biases(subject)
        yield from self._renamed(subject)
        yield from self._ends(subject)
        yield from self._wrappers(subject)

    def _method(self, subject: SetSubject) -> Iterator[Finding]:
        methods = {member.adapter.peft_type for member in subject.members}
        if len(methods) == 1 and methods.isdisjoint(_BY_NAME):
            first = subject.members[0]
            yield self.finding(
                f"PEFT up to 0.19 writes the tensors of all {first.adapter.peft_type} adapters to each file",
                first.at_field("peft_type"),
                effects=(wrong("peft<0.20", operation=_OPERATION),),
                adapters=subject.paths,
            )
        for member in subject.members:
            parts = {part for key in member.adapter.keys for part in key.module.split(".")}
            other = next((o.adapter.name for o in subject.members if o is not member and o.adapter.name in parts), None)
            if other is not None:
                yield self.finding(
                    f"PEFT leaves tensors of {member.adapter.name} out of its file: adapter {other} is called as a "
                    "part of their names",
                    member.at_directory(),
                    effects=(wrong("peft>=0.20", operation=_OPERATION, adapter=member.adapter.name),),
                    adapters=subject.paths,
                )
                return

    def _names(self, subject: SetSubject, member: Subject, held: list[_Held]) -> Iterator[Finding]:
        name = member.adapter.name
        own = {item.own for item in held if item.adapter == name}
        others = [other.adapter.name for other in subject.members if other is not member]
        effects, shown = [], ""
        for targets, written in _ERAS:
            found = written(held, name, others)
            if found != own:
                odd = sorted(own - found) or sorted(found - own)
                shown = f"loses {odd[0]}" if own - found else f"gains {odd[0]}"
                effects.append(_effect(targets, held, own - found, name))
        if effects:
            yield self.finding(
                f"adapter name {name!r}, saved with {first_names(others)}: its file {shown}",
                member.at_directory(),
                effects=tuple(effects),
                adapters=subject.paths,
            )

    def _undeclared(self, subject: SetSubject, member: Subject) -> Iterator[Finding]:
        if not (member.adapter.saved or member.adapter.of_kind(Kind.BASE_LAYER)):
            return
        heads = peft.implied_heads(subject.members[0].adapter)
        names = (*member.declared_names, *heads)
        biased = member.adapter.get("bias", "none") not in ("none", None)
        lost = [
            key
            for key in member.adapter.saved.values()
            if not key.infix and key.module and peft.saved_root(names, key.module) is None
        ]
        lost = [key for key in lost if not (biased and key.parameter == "bias")]
        wrapped = [key for key in member.adapter.of_kind(Kind.BASE_LAYER) if key.parameter == "weight"]
        lost += [key for key in wrapped if key.module.rpartition(".")[2] not in VOCABULARY_LEAVES]
        if lost:
            yield self.finding(
                f"{first_names(key.full_name for key in lost)} of {member.adapter.name} is not written again",
                member.at_tensor(lost[0].name),
                effects=(wrong("peft", operation=_OPERATION, adapter=member.adapter.name),),
                adapters=subject.paths,
            )

    def _entered(self, subject: SetSubject) -> Iterator[Finding]:
        for owner, module, later in entered_copies(subject, (member.adapter.name for member in subject.members)):
            if later is not None and saved_kind(subject, module) in ("linear", "embedding"):
                token = "lora_A" if saved_kind(subject, module) == "linear" else "lora_embedding_A"
                end = f"{token}.{later.adapter.name}" + (".weight" if token == "lora_A" else "")
                text = f"KeyError: 'modules_to_save.{owner.adapter.name}.{end}'"
                yield self.finding(
                    f"the target {owner.adapter.name} of {later.adapter.name} also selects {module} of the adapter "
                    "of this name",
                    later.at_field("target_modules"),
                    effects=(raises("peft>=0.20", text, operation=_OPERATION, adapter=owner.adapter.name),),
                    adapters=subject.paths,
                )
                return

    def _rows(self, subject: SetSubject) -> Iterator[Finding]:
        lacking = [member for member in subject.members if not trains_rows(member)]
        having = [member for member in subject.members if trains_rows(member)]
        if lacking and having:
            text = f"KeyError: 'token_adapter.trainable_tokens_delta.{lacking[0].adapter.name}'"
            yield self.finding(
                f"{lacking[0].adapter.name} has no token rows, and PEFT looks for them",
                having[0].at_field("trainable_token_indices"),
                effects=(raises("peft>=0.15", text, operation=_OPERATION, adapter=lacking[0].adapter.name),),
                adapters=subject.paths,
            )

    def _biases(self, subject: SetSubject) -> Iterator[Finding]:
        for member in subject.members:
            stored = [key for key in member.adapter.of_kind(Kind.BASE_LAYER) if key.parameter == "bias"]
            if stored and member.adapter.get("bias") == "lora_only":
                yield self.finding(
                    f"the biases of {member.adapter.name} are not written again",
                    member.at_field("bias"),
                    effects=(wrong("peft>=0.7,<0.21", operation=_OPERATION, adapter=member.adapter.name),),
                    adapters=subject.paths,
                )

    def _renamed(self, subject: SetSubject) -> Iterator[Finding]:
        """Biases that an adapter trains where other adapters have layers, and the other way round."""
        for member in subject.members:
            mode = (member.adapter.config or {}).get("bias")
            if mode not in ("all", "lora_only"):
                continue
            elsewhere = frozenset().union(*(other.layers for other in subject.members)) - member.layers
            biases = [key for key in member.adapter.of_kind(Kind.FULL) if is_base_bias(key)]
            moved = next((key for key in biases if key.module in elsewhere), None)
            added = [module for module in elsewhere if member.base and "bias" in member.base.modules.get(module, {})]
            if moved is not None:
                message = f"{moved.full_name} of {member.adapter.name} is written as {moved.module}.base_layer.bias"
                effect = wrong("peft>=0.7", operation=_OPERATION, adapter=member.adapter.name)
            elif mode == "lora_only" and added:
                message = (
                    f"biases of {first_names(sorted(added))} are also written to the file of {member.adapter.name}"
                )
                effect = wrong("peft>=0.21", operation=_OPERATION, adapter=member.adapter.name)
            else:
                continue
            yield self.finding(
                f"{message}, since other adapters have layers there",
                member.at_field("bias"),
                effects=(effect,),
                adapters=subject.paths,
            )
            return

    def _ends(self, subject: SetSubject) -> Iterator[Finding]:
        """With LoRA on one end of the vocabulary PEFT writes the base's weight of both, where they have layers."""
        ends = {base.embedding, *peft.vocabulary_heads(base)} if (base := subject.base) is not None else set()
        if not any(ends & found for found in {member.layers for member in subject.members}):
            return
        changed = [(member, ends & member.layers) for member in subject.members]
        everywhere = set().union(*(found for _, found in changed))
        for member, found in changed:
            if found and everywhere - found:
                added = first_names(f"{end}.base_layer.weight" for end in sorted(map(str, everywhere - found)))
                yield self.finding(
                    f"{added} is also written to the file of {member.adapter.name}, since another adapter changes it",
                    member.at_field("target_modules"),
                    effects=(wrong("peft>=0.14", operation=_OPERATION, adapter=member.adapter.name),),
                    adapters=subject.paths,
                )
                return

    def _wrappers(self, subject: SetSubject) -> Iterator[Finding]:
        """Up to 0.14 an adapter that saves anything gets a copy of every saved module that exists when it is loaded."""
        sets, declared = saved_sets(subject, heads_for_all=True), declared_sets(subject)
        for module in sorted(sets.union):
            entered = sets.holders(module)
            extra = [
                member.adapter.name
                for member, saved in zip(subject.members, declared.saved, strict=True)
                if member.adapter.name in entered and module not in saved and not _stores(member, module)
            ]
            if extra:
                yield self.finding(
                    f"PEFT up to 0.14 also writes {module} to the file of {first_names(extra)}",
                    subject.members[0].at_field("modules_to_save"),
                    effects=(wrong("peft>=0.6,<0.15", operation=_OPERATION, adapter=extra[0]),),
                    adapters=subject.paths,
                )
                return


def _stores(member: Subject, module: str) -> bool:
    return any(peft.saved_root((module,), key.module) is not None for key in member.adapter.saved.values())


_PARTS = (PREFIX, "modules_to_save", "weight", "bias", *(kind.value for kind in LORA_KINDS))
_BY_NAME = frozenset({"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "ADALORA"})


def _may_clash(subject: SetSubject) -> bool:
    """Whether any name can be confused with another one or with a part of the model; else nothing needs comparing."""
    if any(member.adapter.of_kind(Kind.LORA_BIAS) for member in subject.members):
        return True
    covered = {id(member.covered): member.covered for member in subject.members}
    modules = {module for found in covered.values() for module in found}
    modules.update(key.full_name for member in subject.members for key in member.adapter.full_keys)
    names = dict.fromkeys(member.adapter.name for member in subject.members)
    text, listed = " ".join((*modules, *_PARTS)), "\0".join(names)
    starts = {start: start in text for start in {name[:4] for name in names}}  # those of many names are few
    longest = max(map(len, names))
    return any(
        (starts[name[:4]] and name in text) or (len(name) < longest and listed.count(name) > 1) for name in names
    )


def _effect(targets: str, held: list[_Held], lost: set[str], name: str) -> Effect:
    """Since 0.20 a saved module whose tensors were filtered out is a KeyError."""
    missing = next((item for item in held if item.adapter == name and item.saved and item.own in lost), None)
    if missing is not None and targets == "peft>=0.20":
        rest = missing.name.partition(".modules_to_save.")[2]
        return raises(targets, f"KeyError: 'modules_to_save.{rest}'", operation=_OPERATION, adapter=name)
    return wrong(targets, operation=_OPERATION, adapter=name)


def _held(member: Subject) -> list[_Held]:
    """The tensors of an adapter that reach the model, by their names there."""
    name = member.adapter.name
    found = []
    for module, entry in member.covered.items():
        for key in entry.by_kind.values():
            found.append(_Held(_in_model(key, module, name), key.canonical, name, False))
    for key in member.adapter.saved.values():
        root = peft.saved_root(member.saved_names, key.module)
        if root is not None:
            rest = key.full_name[len(root) + 1 :]
            found.append(_Held(f"{PREFIX}{root}.modules_to_save.{name}.{rest}", PREFIX + key.full_name, name, True))
    return found


def _in_model(key: Key, module: str, name: str) -> str:
    stem = f"{PREFIX}{module}."
    if key.kind in (Kind.EMBEDDING_A, Kind.EMBEDDING_B):
        return f"{stem}{key.kind.value}.{name}"
    if key.kind is Kind.MAGNITUDE:
        return f"{stem}lora_magnitude_vector.{name}.weight"
    suffix = "bias" if key.kind is Kind.LORA_BIAS else "weight"
    return f"{stem}{'lora_B' if key.kind is Kind.LORA_BIAS else key.kind.value}.{name}.{suffix}"


# -- what each release writes to the file of one adapter ------------------------------------------------------------


def _selected(held: list[_Held], name: str) -> Iterator[_Held]:
    """Up to 0.19: LoRA tensors with the name anywhere in theirs, all biases of B, and the adapter's saved modules."""
    for item in held:
        if item.saved:
            if item.adapter == name:
                yield item
        elif name in item.name or "bias" in item.name:
            yield item


def _replaced(held: list[_Held], name: str, others: list[str]) -> set[str]:
    """Up to 0.17 the adapter's name is struck out wherever it stands."""
    return {_plain(item, name).replace(f".{name}", "") for item in _selected(held, name)}


def _plain(item: _Held, name: str) -> str:
    """The names as the state dict has them: saved modules without the wrapper's part, DoRA vectors without weight."""
    if item.saved:
        return item.own
    return item.name.removesuffix(".weight") if f"lora_magnitude_vector.{name}." in item.name else item.name


def _at_end(held: list[_Held], name: str, others: list[str]) -> set[str]:
    """0.18 and 0.19 strike it out at the end only."""
    return {_stripped(_plain(item, name), name) for item in _selected(held, name)}


def _stripped(key: str, name: str) -> str:
    if key.endswith(f".{name}"):
        return key.removesuffix(f".{name}")
    stem, _, last = key.rpartition(".")
    return re.sub(re.escape(f".{name}") + "$", "", stem) + f".{last}"


def _filtered(held: list[_Held], name: str, others: list[str]) -> set[str]:
    """Since 0.20: everything but what has another adapter's name between dots; unless that is all of the model."""
    unwanted = () if any(f".{other}." in PREFIX for other in others) else others
    kept = [
        item
        for item in held
        if not any(f".{other}." in item.name or item.name.endswith(f".{other}") for other in unwanted)
        and (item.adapter == name or not item.saved)
    ]
    return {_stripped(_plain(item, name), name) for item in kept}


_ERAS: tuple[tuple[str, Callable[[list[_Held], str, list[str]], set[str]]], ...] = (
    ("peft<0.18", _replaced),
    ("peft>=0.18,<0.20", _at_end),
    ("peft>=0.20", _filtered),
)
