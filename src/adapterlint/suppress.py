"""Which findings are reported. Verdicts are worked out before this and do not change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from adapterlint.findings import Finding

EVERYTHING = "ALL"


def names_rule(item: str, code: str, name: str) -> bool:
    """Whether a selector (a code, the beginning of one such as ``AL2``, a name, ``ALL``) means a rule."""
    return item in (name, EVERYTHING) or (code.startswith(item) and item[:2].isupper())


class Selection(NamedTuple):
    """Rules to report. Of the selectors that mean a rule the longest decides, and ``ignore`` between equal ones.

    Attributes:
        select: only these; empty for all.
        ignore: not these.
        extend: these as well.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    extend: tuple[str, ...] = ()

    def keeps(self, finding: Finding) -> bool:
        """Whether a finding is reported."""
        return self.wants(finding.rule, finding.name)

    def wants(self, code: str, name: str) -> bool:
        """Whether the findings of a rule are reported."""
        if not any(self):
            return True
        chosen = _closest(self.select or (EVERYTHING,), code, name)
        return max(chosen, _closest(self.extend, code, name)) > _closest(self.ignore, code, name)


def _closest(items: Iterable[str], code: str, name: str) -> int:
    """How closely the closest selector means the rule: 0 not at all, 1 everything, then by length; a name most."""
    sizes = [
        1 if item == EVERYTHING else len(code) if item == name else len(item)
        for item in items
        if names_rule(item, code, name)
    ]
    return max(sizes, default=0)
