"""AL902 expired-ignore."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, Severity
from adapterlint.ignores import Remains, place_of
from adapterlint.rules.base import RunRule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_ENTRY = """[[ignores]]
rule = "rank-mismatch"
reason = "an example"
until = %s
"""


class ExpiredIgnore(RunRule):
    """An entry of `ignores` in the configuration whose last day is over.

    ## What it does

    Reports an entry of `ignores` whose `until` is before today (UTC). Such an entry ignores nothing any more.

    ## Why is this bad?

    It was meant to be looked at again by that day. The finding that it was about is reported again, if it is there.

    ## Example

    ```toml
    [[ignores]]
    rule = "pickle-weights"
    path = "adapters/legacy"
    reason = "is replaced with the next release"
    until = 2024-06-30
    ```

    ## Fix

    None by `fix`: mend what the entry is about and remove it, or decide on another day.

    ## References

    - [Suppressing findings](https://adapterlint.readthedocs.io/suppressing/)
    """

    code = "AL902"
    name = "expired-ignore"
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        return [_example("the day is to come", "9999-12-31")]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [_example("the day is over", "2024-06-30"), _example("the day as a text", '"2024-06-30"')]

    def check(self, subject: Remains) -> Iterator[Finding]:
        for item in subject.expired:
            message = f"this ignore ({item.describe()}) held until {item.until} and holds no longer: {item.reason}"
            fix = Fix(f"Remove the ignore from {item.file}, or decide on another day", Safety.DISPLAY)
            yield self.finding(message, place_of(item), fix=fix)


def _example(title: str, day: str) -> Example:
    files = {"adapterlint.toml": (_ENTRY % day).encode()}
    return Example(title, lora_config(r=8), llama_tensors(4), beside=files)
