"""AL999 internal-error."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import INTERNAL_ERROR, Finding, Severity
from adapterlint.ignores import Remains
from adapterlint.rules.base import RunRule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config


class InternalError(RunRule):
    """A rule that failed itself, instead of telling what is wrong with the adapter.

    ## What it does

    Reports that a rule raised an exception on this adapter or set. The other rules go on. The traceback is printed on
    the standard error stream, and the command exits with 2.

    ## Why is this bad?

    What the rule would have said is not known, and so the verdict is `unknown`, unless something worse is sure.

    ## Example

    There is none on purpose: every example of every rule is run against all rules.

    ## Fix

    None: report the traceback. With `--ignore` the finding is hidden; the verdict stays `unknown`, the exit code 2.

    ## References

    - [Issues](https://github.com/adapterlint/adapterlint/issues)
    """

    code = INTERNAL_ERROR
    name = "internal-error"
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [Example("no rule fails", lora_config(), llama_tensors())]

    def check(self, subject: Remains) -> Iterator[Finding]:
        return iter(())  # the pipeline makes the finding, where it catches the exception
