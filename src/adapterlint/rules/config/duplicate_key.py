"""AL102."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapterlint.findings import CONFIG_FILE, Finding, Fix, Location, RemoveConfig, Safety, Severity
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config


class DuplicateKey(Rule):
    """## What it does
    Looks for keys that stand more than once in one object of `adapter_config.json`.

    ## Why is this bad?
    PEFT takes the last one, other readers take the first or refuse the file. If the values differ, one of them is not
    what the author meant; where the last one does not fit the tensors, another rule says what breaks.

    ## Example
    `{"r": 8, "lora_alpha": 16, "r": 4}`

    ## Fix
    Safe: all but the last one are removed, which is what every release of PEFT reads.

    ## References
    - Python's `json`: the last value wins; RFC 8259, section 4; measured on 0.4.0 to 0.21.2.
    """

    code = "AL102"
    name = "duplicate-key"
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        nested = '{"peft_type": "LORA", "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 8}}'
        return [
            Example("every key once", lora_config(), llama_tensors()),
            Example("the same key in two objects", nested),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("two values", '{"peft_type": "LORA", "r": 8, "lora_alpha": 8, "r": 4}', llama_tensors()),
            Example("one value three times", '{"peft_type": "LORA", "r": 4, "r": 4, "lora_alpha": 8, "r": 4}'),
            Example("inside a value", '{"peft_type": "LORA", "rank_pattern": {"q_proj": 2, "q_proj": 4}}'),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        for problem in subject.adapter.config_problems:
            if problem.kind != "duplicate-key" or problem.pointer is None:
                continue
            same = problem.detail == "same values"
            count = _count(problem.message)
            # An edit counts the occurrences that the one before it left, so the first goes every time.
            edits = (RemoveConfig(problem.pointer, 0),) * (count - 1)
            earlier = "the one before" if count == 2 else f"the {count - 1} before"
            yield self.finding(
                f"{problem.pointer[1:]!r} stands {count} times; PEFT takes the last, "
                + ("which has the same value" if same else "and the values differ"),
                Location(subject.adapter.path, CONFIG_FILE, pointer=problem.pointer, on_key=True),
                fix=Fix(f"Keep the last {problem.pointer[1:]!r}, remove {earlier}", Safety.SAFE, edits),
                severity=Severity.NOTE if same else Severity.WARNING,
            )


def _count(message: str) -> int:
    """How often the key stands there, which the reader says in its message only."""
    found = re.search(r" stands (\d+) times ", message)
    return int(found[1]) if found else 2
