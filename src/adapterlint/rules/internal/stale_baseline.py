"""AL903 stale-baseline."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import basename, dirname

from adapterlint.findings import Finding, Fix, Location, Safety, Severity
from adapterlint.ignores import Remains
from adapterlint.model.subject import first_names
from adapterlint.rules.base import RunRule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_SETTINGS = b'baseline = "baseline.txt"\n'
_LINE = b"adapter/adapter_config.json\tAL207\t/r\traises\n"


class StaleBaseline(RunRule):
    """Lines of the baseline whose findings are gone.

    ## What it does

    Reports lines of the baseline file that stand for nothing that is found any more, among the adapters that this run
    looked at and the rules that had what they need.

    ## Why is this bad?

    The defect was repaired. If it comes back, the line hides it.

    ## Example

    ```text
    adapters/cola/adapter_config.json	AL207	/r	raises
    ```

    when the rank of `adapters/cola` has been corrected.

    ## Fix

    None by `fix`: `adapterlint baseline --prune` removes such lines.

    ## References

    - [Suppressing findings](https://adapterlint.readthedocs.io/suppressing/)
    """

    code = "AL903"
    name = "stale-baseline"
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        files = {"adapterlint.toml": _SETTINGS, "baseline.txt": _LINE}
        elsewhere = {"adapterlint.toml": _SETTINGS, "baseline.txt": b"an" + b"other-" + _LINE}
        return [
            Example("the finding is there", lora_config(r=8), llama_tensors(4), beside=files),
            Example("about an adapter that is not checked", lora_config(), llama_tensors(), beside=elsewhere),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        files = {"adapterlint.toml": _SETTINGS, "baseline.txt": _LINE}
        return [Example("the finding is gone", lora_config(), llama_tensors(), beside=files)]

    def check(self, subject: Remains) -> Iterator[Finding]:
        if not subject.stale:
            return
        names = first_names(f"{item.fingerprint.rule} in {item.fingerprint.path}" for item in subject.stale)
        count = len(subject.stale)
        lines = f"{count} lines stand" if count > 1 else "a line stands"
        place = Location(dirname(subject.baseline), basename(subject.baseline), offset=subject.stale[0].offset)
        fix = Fix("Run `adapterlint baseline --prune`", Safety.DISPLAY)
        yield self.finding(f"{lines} for what is not found any more: {names}", place, fix=fix)
