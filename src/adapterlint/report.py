"""What a run found, as data: the one object that every reporter prints."""

from collections.abc import Mapping
from typing import NamedTuple

from adapterlint.findings import Finding, Location, Outcome

LOAD = "load"


class Verdict(NamedTuple):
    """What one target does with one adapter or set.

    Attributes:
        outcome: loads, raises, wrong or unknown.
        inert: for ``wrong``: the base answers alone.
        stage: load, switch, after_load or after_switch; None for ``loads``.
        adapter: name of the adapter that fails, for a set.
        rules: codes of the rules whose effects say so, sorted.
        exception: the text that the target raises.
        assumes: what ``loads`` rests on (``base``).
        missing: what would settle an ``unknown``.
    """

    outcome: Outcome
    inert: bool = False
    stage: str | None = None
    adapter: str | None = None
    rules: tuple[str, ...] = ()
    exception: str | None = None
    assumes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Place(NamedTuple):
    """A location with its rows and columns (1-based code points) and the text around it.

    Attributes:
        location: the symbolic place.
        start: (line, column) of the first character; None where there is no text.
        end: (line, column) after the last character.
        excerpt: (line number, text) pairs to show.
    """

    location: Location
    start: tuple[int, int] | None = None
    end: tuple[int, int] | None = None
    excerpt: tuple[tuple[int, str], ...] = ()


class Replacement(NamedTuple):
    """A fix of the config as text: what lies between two places becomes another text.

    Attributes:
        start: (line, column) of the first character that goes.
        end: (line, column) after the last one.
        text: what stands there instead.
        first_line: the text of the line of ``start``.
        last_line: the text of the line of ``end``.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    text: str
    first_line: str
    last_line: str


class Reported(NamedTuple):
    """A finding with its places worked out; ``replacement`` only where a format asks for it."""

    finding: Finding
    place: Place
    related: tuple[Place, ...] = ()
    replacement: Replacement | None = None


class RuleDoc(NamedTuple):
    """What a report says of a rule: its severity and its documentation, the docstring as it stands in the source."""

    name: str
    severity: str
    text: str


class AdapterReport(NamedTuple):
    """One adapter: what it holds and the verdict of every target, loaded alone as ``default``.

    Attributes:
        path: as given.
        name: directory name.
        peft_type: as declared.
        tensors: number of stored tensors.
        modules: number of modules with adapter tensors.
        applies: (modules that exist in the base, modules with tensors), or None without a base.
        verdicts: target text -> verdict.
    """

    path: str
    name: str
    peft_type: str | None
    tensors: int
    modules: int
    applies: tuple[int, int] | None
    verdicts: Mapping[str, Verdict]


class SetReport(NamedTuple):
    """One set: its members in loading order and the verdict of every target on all that happens in it.

    Attributes:
        base: the base's path or name.
        adapters: member paths, in loading order.
        verdicts: target text -> verdict of load and switch.
        operations: operation -> target text -> verdict.
        loads_since: the oldest bundled release from which on every newer one loads the set, in every order; or None.
        explicit: the set was given, not discovered.
    """

    base: str | None
    adapters: tuple[str, ...]
    verdicts: Mapping[str, Verdict]
    operations: Mapping[str, Mapping[str, Verdict]]
    loads_since: str | None = None
    explicit: bool = True


class BaseReport(NamedTuple):
    """The base: its path and how many parameters its checkpoint holds."""

    path: str
    parameters: int


class Skipped(NamedTuple):
    """A rule that could not look, and what it lacked."""

    rule: str
    path: str
    needs: str


class Summary(NamedTuple):
    """Counts of a run; seconds are wall time."""

    adapters: int
    tensors: int
    errors: int
    warnings: int
    notes: int
    fixable: int
    seconds: float


class Report(NamedTuple):
    """Everything a run has to say.

    Attributes:
        tool_version: version of adapterlint.
        targets: requested targets, oldest first.
        targets_given: whether ``--target`` was used.
        base: the base of the run; None when there is none or several.
        adapters: one entry per adapter, in the order given or found.
        sets: one entry per set.
        findings: sorted by adapter, file, place and code.
        skipped: rules that lacked an input.
        summary: counts.
        internal_errors: tracebacks of rules that crashed, for ``--verbose`` and bug reports.
        operations: operations beyond loading that were asked about.
        releases: every release that the tool knows, as target texts, oldest first.
        stacks: requested target -> the release of transformers that its verdicts are about.
        rules: code -> documentation, of the rules that found something.
        config: the configuration file that was used.
        quiet: formats for people are to print the findings only.
        suppressed: findings that ignores and the baseline keep from being printed.
    """

    tool_version: str
    targets: tuple[str, ...]
    targets_given: bool
    base: BaseReport | None
    adapters: tuple[AdapterReport, ...]
    sets: tuple[SetReport, ...]
    findings: tuple[Reported, ...]
    skipped: tuple[Skipped, ...]
    summary: Summary
    internal_errors: tuple[str, ...] = ()
    operations: frozenset[str] = frozenset()
    releases: tuple[str, ...] = ()
    stacks: Mapping[str, str] = {}
    rules: Mapping[str, RuleDoc] = {}
    config: str | None = None
    quiet: bool = False
    suppressed: int = 0

    @property
    def shown(self) -> tuple[Reported, ...]:
        """The findings that are printed: less those that are only about operations nobody asked about."""
        return tuple(item for item in self.findings if concerns(item.finding, self.operations))


def path_of(location: Location) -> str:
    """The path of the file, or of the directory, that a location is in."""
    if not location.file or not location.path:
        return location.file or location.path
    return f"{location.path.rstrip('/')}/{location.file}"


def concerns(finding: Finding, operations: frozenset[str]) -> bool:
    """Whether a finding is to be printed where these operations were asked about."""
    about = {effect.operation for effect in finding.effects}
    return not about or (LOAD in about and not finding.quiet) or not about.isdisjoint(operations)
