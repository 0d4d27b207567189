"""What a rule is. A rule is one file: code, words, effects, examples and the check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from adapterlint.findings import Damage, Effect, Finding, Fix, Location, Severity
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.rules.examples import AnyExample

if TYPE_CHECKING:
    from adapterlint.ignores import Remains

Need = Literal["files", "config", "header", "payload", "base", "set", "settings"]


class _RuleBase:
    """Attributes that every rule has; the documentation page is the docstring.

    Every operation begins with loading, so that effects on loading decide the operations beyond it, too, but for what
    ``damage``, ``drops``, ``spares`` and, of a :class:`SetRule`, ``of_first`` say. Two operations do not use every
    adapter: deleting is judged by the adapter that answers next, and hot-swapping loads the first one only, in whose
    place it puts the tensors of the others. What a rule claims of an operation itself holds in any case.

    Attributes:
        code: ``AL`` and three digits; a plugin's has another prefix.
        name: kebab-case, the bad thing, reads well after "allow".
        since: release of adapterlint that introduced it.
        needs: inputs without which it cannot look; a rule that lacks one is skipped and counted.
        severity: severity where no requested target is known to fail because of the finding.
        effects: claims that hold for every finding of the rule; a rule may compute its own instead.
        damage: where lies what goes wrong at loading. :meth:`finding` takes another one for a single finding.

            - ``model``: tensors do not get where they belong among the model's layers.
            - ``files``: something cannot be read from the directory, so that hot-swapping the adapter fails as well.
            - ``config``: so does reading the config, if it raises.
            - ``tensors``: values are missing or worthless wherever they are put, in a hot swap, too, unless it raises.
            - ``base``: parameters of the base are changed, for the other adapters even when this one is deleted.
            - ``peft_model``: classes and names of PeftModel are at fault, which transformers' own loader does not use.
            - ``active``: loading leaves the wrong adapter active. No operation minds: each names the one that it wants,
              and what goes wrong all the same is for rules about that operation to say.
        drops: whether ``wrong`` means that PEFT leaves out tensors of the file, so that it cannot save them. None: if a
            finding about one adapter points to a tensor.
        spares: operations that turn out right if the fault shows only after loading, or about which the rule claims
            effects of its own.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    since: ClassVar[str] = "0.1.0"
    needs: ClassVar[tuple[Need, ...]] = ("config",)
    severity: ClassVar[Severity] = Severity.WARNING
    effects: ClassVar[tuple[Effect, ...]] = ()
    targeted: ClassVar[bool] = False
    damage: ClassVar[Damage] = "model"
    drops: ClassVar[bool | None] = None
    spares: ClassVar[tuple[str, ...]] = ()
    of_first: ClassVar[bool] = False

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
        damage: Damage | None = None,
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
            damage=self.damage if damage is None else damage,
            drops=self.drops,
            spares=self.spares,
            of_first=self.of_first,
        )


class Rule(_RuleBase):
    """A rule about one adapter."""

    def check(self, subject: Subject) -> Iterator[Finding]:
        """Report what is wrong with the adapter."""
        raise NotImplementedError


class SetRule(_RuleBase):
    """A rule about adapters that are loaded together.

    Attributes:
        loading: whether it may say something about loading; if not, it looks at the set's own order only.
        of_first: whether an exception that it claims of the first adapter comes without the others, as when that one's
            own name is at fault. Hot-swapping, which loads only the first, then raises as well.
    """

    needs: ClassVar[tuple[Need, ...]] = ("set",)
    loading: ClassVar[bool] = True

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        """Report what is wrong with the set."""
        raise NotImplementedError


class RunRule(_RuleBase):
    """A rule about what the user told the linter: ignores and baseline."""

    needs: ClassVar[tuple[Need, ...]] = ("settings",)

    def check(self, subject: Remains) -> Iterator[Finding]:
        """Report what does nothing any more."""
        raise NotImplementedError
