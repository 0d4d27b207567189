"""AL511."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Severity, raises, wrong
from adapterlint.model import peft
from adapterlint.model.keys import PROMPT_TYPES, Key
from adapterlint.model.subject import SetSubject, Subject, first_names
from adapterlint.model.together import declared_sets, trains_rows
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_CLASSIFIER = {
    "base_model.model.classifier.weight": ("F32", (3, 16)),
    "base_model.model.classifier.bias": ("F32", (3,)),
}
_OPERATION = "native"
# Methods that keep tensors on the tuner, which transformers throws away; PEFT 0.21 refuses them.
_SHARED_STATE = frozenset({"VERA", "VBLORA", "PVERA", "TINYLORA", "UNILORA", "FROD"})


class NativeLoadMismatch(SetRule):
    """## What it does
    Looks for sets that transformers' own `model.load_adapter` cannot hold: each adapter is loaded under its name, the
    one that is active then must answer, and every one after `set_adapter`, twice through all.

    ## Why is this bad?
    transformers switches every wrapper to the name it is given: a saved module that one adapter lacks raises. If all
    save the same modules, LoRA follows the adapter loaded last while the modules stay with the first, until
    `set_adapter` is called. It knows no task types, so that a head that only `task_type` implies overwrites the base.

    ## Example
    `"modules_to_save": ["classifier"]` in one adapter, or in all of them.

    ## Fix
    None unasked: `adapterlint fix --form lowrank` leaves no saved modules (docs/forms.md). Or load with
    `PeftModel.from_pretrained` and `load_adapter`, or call `set_adapter` right after loading.

    ## References
    - transformers `integrations/peft.py`; measured with 4.36 to 4.57 on PEFT 0.8.2 to 0.21.2.
    """

    code = "AL511"
    name = "native-load-mismatch"
    severity = Severity.NOTE
    loading = False

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        wide = Example("b", bert_config(r=8), bert_tensors(r=8))
        return [SetExample("LoRA only", {"a": plain, "b": wide}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        head = Example("b", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_CLASSIFIER})
        typed = Example("c", bert_config(task_type="SEQ_CLS"), {**bert_tensors(), **_CLASSIFIER})
        return [
            SetExample("a head in one", {"a": plain, "b": head}, bert_base()),
            SetExample("a head in both", {"b": head, "c": head}, bert_base()),
            SetExample("a head that the task type implies", {"a": typed, "c": typed}, bert_base()),
        ]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        yield from self._method(subject)
        yield from self._saved(subject)
        yield from self._overwritten(subject)
        yield from self._absent(subject)
        yield from self._rows(subject)
        yield from self._beyond(subject)

    def _method(self, subject: SetSubject) -> Iterator[Finding]:
        methods = {str(member.adapter.peft_type) for member in subject.members}
        if len(methods) > 1:
            yield self.finding(
                f"transformers loads {' and '.join(sorted(methods))} side by side, and switches them all on",
                subject.members[-1].at_field("peft_type"),
                effects=(wrong("peft>=0.11", operation=_OPERATION), *_without_norms(subject)),
                adapters=subject.paths,
            )
        for member in subject.members:
            effects = tuple(_refusals(str(member.adapter.peft_type), subject))
            if effects:
                yield self.finding(
                    f"transformers cannot load {member.adapter.peft_type} adapters itself",
                    member.at_field("peft_type"),
                    effects=effects,
                    adapters=subject.paths,
                )
                return

    def _saved(self, subject: SetSubject) -> Iterator[Finding]:
        sets = declared_sets(subject)
        if not sets.union:
            return
        owner = next(member for member, saved in zip(subject.members, sets.saved, strict=True) if saved)
        lacking = next((name for name, saved in zip(sets.names, sets.saved, strict=True) if sets.union - saved), None)
        if lacking is None:
            message = f"transformers leaves {first_names(sorted(sets.union))} with the first adapter until set_adapter"
            effects: tuple[Effect, ...] = (wrong("peft>=0.11", operation=_OPERATION, adapter=sets.names[-1]),)
        else:
            module = min(sets.union - sets.saved[sets.names.index(lacking)])
            holders = [name for name, saved in zip(sets.names, sets.saved, strict=True) if module in saved]
            message = f"transformers cannot switch to {lacking}, which does not save {module}"
            effects = tuple(_switching(lacking, holders))
        yield self.finding(message, owner.at_field("modules_to_save"), effects=effects, adapters=subject.paths)

    def _overwritten(self, subject: SetSubject) -> Iterator[Finding]:
        for member in subject.members:
            own = member.layers
            keys = [key for key in member.adapter.saved.values() if key.module not in own and _overwrites(member, key)]
            if keys:
                yield self.finding(
                    f"transformers writes {first_names(key.full_name for key in keys)} of {member.adapter.name} "
                    "into the base, since modules_to_save does not name it",
                    member.at_tensor(keys[0].name),
                    effects=(wrong("peft", operation=_OPERATION, adapter=member.adapter.name),),
                    adapters=subject.paths,
                )
                return

    def _absent(self, subject: SetSubject) -> Iterator[Finding]:
        """Task classes are PEFT's: here a head is looked for if the config names it, and only then."""
        for member, saved in zip(subject.members, declared_sets(subject).saved, strict=True):
            stored = member.adapter.saved
            wanted = (name for root in sorted(saved) for name in member.parameters_of(root))
            missing = next((name for name in wanted if name not in stored), None)
            if missing is not None and member.adapter.readable:
                yield self.finding(
                    f"transformers looks for {missing} in the file of {member.adapter.name}",
                    member.at_field("modules_to_save"),
                    effects=(raises("peft>=0.15", f"KeyError: '{missing}'", operation=_OPERATION),),
                    adapters=subject.paths,
                )
                return

    def _beyond(self, subject: SetSubject) -> Iterator[Finding]:
        """Up to 0.10 layers of a later adapter stay active where the first one has none, as in AL510."""
        first, *others = subject.members
        own = first.layers
        later = next((member for member in others if not own.issuperset(member.covered)), None)
        if later is not None and first.adapter.is_lora:
            yield self.finding(
                f"PEFT up to 0.10 leaves layers of {later.adapter.name} active beside {first.adapter.name}",
                later.at_field("target_modules"),
                effects=(wrong("peft<0.11", operation=_OPERATION, adapter=first.adapter.name),),
                adapters=subject.paths,
            )

    def _rows(self, subject: SetSubject) -> Iterator[Finding]:
        having = [member for member in subject.members if trains_rows(member)]
        if not having:
            return
        yield self.finding(
            f"transformers does not switch the token rows of {having[0].adapter.name}",
            having[0].at_field("trainable_token_indices"),
            effects=tuple(_row_effects(subject, len(having) == len(subject.members))),
            adapters=subject.paths,
        )


def _without_norms(subject: SetSubject) -> Iterator[Effect]:
    """A norm of LN_TUNING, or an embedding of TRAINABLE_TOKENS, asks every active adapter for its own."""
    asking = [member for member in subject.members if member.adapter.peft_type in ("LN_TUNING", "TRAINABLE_TOKENS")]
    other = next((member for member in subject.members if member not in asking), None)
    if other is not None and asking:
        yield raises("peft>=0.11", f"KeyError: '{other.adapter.name}'", operation=_OPERATION)


def _refusals(method: str, subject: SetSubject) -> Iterator[Effect]:
    """What transformers cannot load at all, or not a second time."""
    first, last = subject.members[0].adapter.name, subject.members[-1].adapter.name
    text = "ValueError: `create_and_replace` does not support prompt learning{} yet."
    if method in PROMPT_TYPES or method == "ADAPTION_PROMPT":
        yield raises("peft<0.21", text.format(" and adaption prompt"), operation=_OPERATION)
        yield raises("peft>=0.21", text.format(", adaption prompt and shadow"), operation=_OPERATION)
    elif method in _SHARED_STATE:
        refusal = (
            f"ValueError: `inject_adapter_in_model` does not support PeftType.{method} because it uses shared state "
            "stored on the tuner. Please use `get_peft_model` instead."
        )
        yield raises("peft>=0.21", refusal, operation=_OPERATION)
        if method == "VERA":
            text = "ValueError: No layers types compatible with VeRA were found."
            text += " Please check `peft_config.target_modules`."
            yield raises("peft>=0.11,<0.20", f"KeyError: '{last}'", operation=_OPERATION, adapter=last)
            yield raises("peft>=0.20,<0.21", text, operation=_OPERATION, adapter=last)
    elif (
        method == "RANDLORA" and len({member.adapter.peft_type for member in subject.members}) == 1
    ):  # every load puts new projections in the place of the earlier ones'
        yield raises("peft>=0.16", f"KeyError: '{first}'", operation=_OPERATION, adapter=first)
    elif method == "ADALORA":
        text = "TypeError: AdaLoraModel.__init__() got an unexpected keyword argument 'low_cpu_mem_usage'"
        yield raises("peft>=0.13,<0.17", text, operation=_OPERATION)


def _switching(lacking: str, holders: list[str]) -> Iterator[Effect]:
    text = f"ValueError: Adapter {lacking} not found in "
    listed = ", ".join(f"'{name}'" for name in holders)
    yield raises("peft<0.15", f"{text}dict_keys([{listed}])", stage="switch", operation=_OPERATION, adapter=lacking)
    yield raises("peft>=0.15", f"{text}{{{listed}}}", stage="switch", operation=_OPERATION, adapter=lacking)


def _overwrites(member: Subject, key: Key) -> bool:
    """Whether a full tensor lands in the base when only ``modules_to_save`` counts."""
    if key.infix or not key.has_canonical_prefix or not key.module:
        return False
    if peft.saved_root(member.declared_names, key.module) is not None:
        return False
    if member.adapter.get("bias", "none") not in ("none", None) and key.parameter == "bias":
        return False
    if member.base is None:
        return True
    stored = member.base.parameters.get(key.full_name)
    return stored is not None and member.payload.equals_base(member.adapter.tensors[key.name], stored) is not True


def _row_effects(subject: SetSubject, everywhere: bool) -> Iterator[Effect]:
    if everywhere:
        yield wrong("peft>=0.15,<0.18", operation=_OPERATION)
        yield raises("peft>=0.18", "IndexError: list index out of range", operation=_OPERATION)
        return
    lacking = next(member.adapter.name for member in subject.members if not trains_rows(member))
    yield wrong("peft>=0.15,<0.16", operation=_OPERATION)
    yield raises("peft>=0.16", f"KeyError: '{lacking}'", stage="switch", operation=_OPERATION, adapter=lacking)
