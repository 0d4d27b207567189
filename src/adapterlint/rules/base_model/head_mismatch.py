"""AL405."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, Severity, raises
from adapterlint.model.base import HEAD_LEAVES, VOCABULARY_LEAVES, Base
from adapterlint.model.keys import Key
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.base_model.base_shape_mismatch import differing_full
from adapterlint.rules.examples import AnyExample, Example, bert_base, bert_config, bert_tensors
from adapterlint.rules.tensors.sharded_remnant import full_mismatch


class HeadMismatch(Rule):
    """## What it does
    Compares the rows of a stored classification head with the base's number of labels.

    ## Why is this bad?
    The load raises a size mismatch on every release. The base must be loaded with the adapter's `num_labels`.

    ## Example
    `classifier.weight` of 5 rows on a base with 3 labels.

    ## Fix
    None in the files: the head was trained for other labels. Load the base with `num_labels=N`.

    ## References
    - Measured on 0.4.0 to 0.21.2.
    """

    code = "AL405"
    name = "head-mismatch"
    needs = ("config", "header", "base")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("same", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_head(3)}, bert_base())
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("other", bert_config(modules_to_save=["classifier"]), {**bert_tensors(), **_head(5)}, bert_base())
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        if base is None:
            return
        heads = tuple(leaf for leaf in HEAD_LEAVES if leaf not in VOCABULARY_LEAVES)
        found = [(k, s) for k, s in differing_full(subject, base) if k.module.rpartition(".")[2] in heads]
        found += list(_missing_head_rows(subject, base))
        if found:
            key, shape = found[0]
            stored = list(subject.adapter.shape(key))
            yield self.finding(
                f"{key.full_name} is {stored}, in the base {list(shape)}",
                subject.at_tensor(key.name),
                effects=(raises("peft", full_mismatch(subject, key)),),
                fix=Fix(f"Load the base with num_labels={stored[0] if stored else 0}", Safety.DISPLAY),
            )


def _missing_head_rows(subject: Subject, base: Base) -> Iterator[tuple[Key, tuple[int, ...]]]:
    """A head that the checkpoint lacks is made with the config's number of labels."""
    labels = base.config.get("id2label") or base.config.get("num_labels")
    count = len(labels) if isinstance(labels, dict) else labels
    if not isinstance(count, int):
        return
    for key in subject.adapter.saved.values():
        shape = subject.adapter.shape(key)
        made = key.module in base.missing_heads and key.module != "pre_classifier" and key.has_canonical_prefix
        if made and shape and shape[0] not in (count, 0):
            yield key, (count, *shape[1:])


def _head(labels: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        "base_model.model.classifier.weight": ("F32", (labels, 16)),
        "base_model.model.classifier.bias": ("F32", (labels,)),
    }
