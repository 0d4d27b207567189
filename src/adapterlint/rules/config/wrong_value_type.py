"""AL106."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, Severity, pointer_to
from adapterlint.model.features import tempered
from adapterlint.model.subject import Subject
from adapterlint.model.values import Misfit, misfits
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config


class WrongValueType(Rule):
    """## What it does
    Checks the types of the values of a LoRA config: a rank that is a text or has a fraction, `modules_to_save` as a
    text, list items that are no texts, patterns that are no objects, flags written as texts.

    ## Why is this bad?
    PEFT does not check types. It computes with what the file holds and raises somewhere inside, or takes the text
    `"false"` for true.

    ## Example
    `"r": "8"`: every release raises `TypeError: '<=' not supported between instances of 'str' and 'int'`.

    ## Fix
    Safe where one value can be meant only: `"8"` and `8.0` become `8`, a name becomes a list of one name, a null
    pattern becomes `{}`.

    ## References
    - Every value and exception measured on 0.4.0 to 0.21.2.
    """

    code = "AL106"
    name = "wrong-value-type"
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("an alpha with a fraction", lora_config(lora_alpha=8.5), llama_tensors()),
            Example("a regular expression", lora_config(target_modules=".*(q|v)_proj"), llama_tensors()),
            Example("one layer", lora_config(layers_to_transform=0), llama_tensors(layers=1)),
            Example("null by default", lora_config(modules_to_save=None, task_type=None), llama_tensors()),
            Example("a config object", lora_config(use_bdlora={"nblocks": 2}, eva_config={}), llama_tensors()),
            Example("empty", lora_config(loftq_config={}, rank_pattern={}, modules_to_save=[]), llama_tensors()),
            Example("another type's fields", {"peft_type": "ADALORA", "r": 8, "rank_pattern": None}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("a rank as text", lora_config(r="4"), llama_tensors()),
            Example("a rank with a fraction", lora_config(r=4.0), llama_tensors()),
            Example("alpha as text", lora_config(lora_alpha="8"), llama_tensors()),
            Example("dropout as text", lora_config(lora_dropout="0.0"), llama_tensors()),
            Example("a name for a list", lora_config(modules_to_save="lm_head"), llama_tensors(), llama_base()),
            Example("a number among the targets", lora_config(target_modules=["q_proj", "v_proj", 5]), llama_tensors()),
            Example("a null pattern", lora_config(rank_pattern=None), llama_tensors()),
            Example("a flag as text", lora_config(use_rslora="false"), llama_tensors()),
            Example(
                "a text that the tensors belie", lora_config(use_dora="false"), {**llama_tensors(), **_magnitudes()}
            ),
            Example("null where an object is needed", lora_config(loftq_config=None), llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        yield from tempered(subject, self._findings(subject))

    def _findings(self, subject: Subject) -> Iterator[Finding]:
        for item in misfits(subject):
            yield self.finding(
                item.message,
                subject.at_config(pointer_to(*item.path)),
                effects=item.effects,
                fix=_fix(item),
                severity=None if item.effects else Severity.WARNING,
            )


def _fix(item: Misfit) -> Fix | None:
    if item.edit is None:
        return None
    return Fix(item.title, Safety.SAFE, (item.edit,))


def _magnitudes() -> dict[str, tuple[str, tuple[int, ...]]]:
    """The magnitudes of DoRA: the flag was on, whatever the text says."""
    names = [name for name in llama_tensors() if name.endswith("lora_B.weight")]
    return {name.replace("lora_B.weight", "lora_magnitude_vector"): ("F32", (16,)) for name in names}
