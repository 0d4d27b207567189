"""What a rule is. A rule is one file: code, words, effects, examples and the check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from adapterlint.findings import Effect, Finding, Fix, Location, Severity
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.rules.examples import AnyExample

if TYPE_CHECKING:
    from adapterlint.ignores import Remains

Need = Literal["files", "config", "header", "payload", "base", "set", "settings"]


class _RuleBase:
    """Attributes that every rule has; the documentation page is the docstring.

    Attributes:
        code: ``AL`` and three digits; a plugin's has another prefix.
        name: kebab-case, the bad thing, reads well after "allow".
        since: release of adapterlint that introduced it.
        needs: inputs without which it cannot look; a rule that lacks one is skipped and counted.
        severity: severity where no requested target is known to fail because of the finding.
        effects: claims that hold for every finding of the rule; a rule may compute its own instead.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    since: ClassVar[str] = "0.1.0"
    needs: ClassVar[tuple[Need, ...]] = ("config",)
    severity: ClassVar[Severity] = Severity.WARNING
    effects: ClassVar[tuple[Effect, ...]] = ()
    targeted: ClassVar[bool] = False

    @staticmethod
    def valid() -> list[AnyExample]:
        """Examples on which the rule stays silent."""
        return []

    @staticmethod
    def invalid() -> list[AnyExample]:
        """Examples on which the rule reports."""
        return []

    def finding(
        self,
        message: str,
        location: Location,
        *,
        effects: tuple[Effect, ...] | None = None,
        related: tuple[Location, ...] = (),
        fix: Fix | None = None,
        severity: Severity | None = None,
        ceiling: Severity = Severity.ERROR,
        adapters: tuple[str, ...] = (),
    ) -> Finding:
        """A finding of this rule."""
        return Finding(
            rule=self.code,
            name=self.name,
            message=message,
            location=location,
            related=related,
            effects=self.effects if effects is None else effects,
            fix=fix,
            severity=self.severity if severity is None else severity,
            ceiling=ceiling,
            targeted=self.targeted,
            adapters=adapters,
        )


class Rule(_RuleBase):
    """A rule about one adapter."""

    def check(self, subject: Subject) -> Iterator[Finding]:
        """Report what is wrong with the adapter."""
        raise NotImplementedError


class SetRule(_RuleBase):
    """A rule about adapters that are loaded together."""

    needs: ClassVar[tuple[Need, ...]] = ("set",)
    loading: ClassVar[bool] = True
    """Whether it may say something about loading; if not, it looks at the set's own order only."""

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        """Report what is wrong with the set."""
        raise NotImplementedError


class RunRule(_RuleBase):
    """A rule about what the user told the linter: ignores and baseline."""

    needs: ClassVar[tuple[Need, ...]] = ("settings",)

    def check(self, subject: Remains) -> Iterator[Finding]:
        """Report what does nothing any more."""
        raise NotImplementedError
