"""AL901 unused-ignore."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, Severity
from adapterlint.ignores import Ignore, Remains, place_of
from adapterlint.rules.base import RunRule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_USED = b"""[[ignores]]
rule = "rank-mismatch"
path = "adapter"
reason = "an example"
"""
_UNUSED = b"""[[ignores]]
rule = "rank-mismatch"
path = "adapter"
pointer = "/alpha_pattern"
reason = "an example"
"""
_ELSEWHERE = b"""[[ignores]]
rule = "rank-mismatch"
path = "another"
reason = "an example"
"""


class UnusedIgnore(RunRule):
    """An entry of `ignores` in the configuration that no finding matched.

    ## What it does

    Reports an entry of `ignores` that matched nothing in this run. It counts as unused only if the rules that it is
    about looked at the adapters that it is about: a run that lacks the base, or checks other adapters, says nothing.

    ## Why is this bad?

    The next finding that the entry happens to match is a new one, and nobody will see it.

    ## Example

    ```toml
    [[ignores]]
    rule = "rank-mismatch"
    path = "adapters/cola"
    reason = "the rank is right, the tensor is not used"
    ```

    in a configuration, when the rank of `adapters/cola` has been corrected.

    ## Fix

    None by `fix`, which changes adapters only: remove the entry, or correct its rule, path, pointer or tensor.

    ## References

    - [Suppressing findings](https://adapterlint.readthedocs.io/suppressing/)
    """

    code = "AL901"
    name = "unused-ignore"
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        rank = lora_config(r=8)
        return [
            Example("the entry is used", rank, llama_tensors(4), beside={"adapterlint.toml": _USED}),
            Example(
                "about an adapter that is not checked", rank, llama_tensors(4), beside={"adapterlint.toml": _ELSEWHERE}
            ),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        files = {"adapterlint.toml": _USED}
        return [
            Example("nothing to ignore", lora_config(), llama_tensors(), beside=files),
            Example("about another place", lora_config(r=8), llama_tensors(4), beside={"adapterlint.toml": _UNUSED}),
        ]

    def check(self, subject: Remains) -> Iterator[Finding]:
        for item in subject.unused:
            message = f"no finding matched this ignore ({item.describe()}): {item.reason}"
            yield self.finding(message, place_of(item), fix=_remove(item))


def _remove(item: Ignore) -> Fix:
    return Fix(f"Remove the ignore from {item.file}", Safety.DISPLAY)
