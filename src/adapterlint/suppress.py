"""Which findings are reported. Verdicts are worked out before this and do not change."""

from __future__ import annotations

from typing import NamedTuple

from adapterlint.findings import Finding


class Selection(NamedTuple):
    """Rules to report, by code, code prefix (``AL2``) or name.

    Attributes:
        select: only these; empty for all.
        ignore: not these.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def keeps(self, finding: Finding) -> bool:
        """Whether a finding is reported."""
        if self.select and not any(_matches(finding, item) for item in self.select):
            return False
        return not any(_matches(finding, item) for item in self.ignore)


def _matches(finding: Finding, item: str) -> bool:
    return item == finding.name or (item.startswith("AL") and finding.rule.startswith(item))
