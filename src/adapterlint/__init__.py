"""adapterlint: a static compatibility linter and converter for PEFT adapter directories.

The names of ``__all__`` are the public ones; docs/api.md says what they do. Each is imported when first asked for,
so that the command line does not pay for what it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterlint.api import check, fix
    from adapterlint.errors import UserError
    from adapterlint.findings import Effect, Finding, Fix, Location, Outcome, Safety, Severity
    from adapterlint.fixing.prove import Proof
    from adapterlint.fixing.repair import FixReport
    from adapterlint.model.subject import SetSubject, Subject
    from adapterlint.report import AdapterReport, Report, Reported, SetReport, Verdict
    from adapterlint.rules.base import Rule, SetRule
    from adapterlint.rules.examples import Example, SetExample

__version__ = "0.1.0"

__all__ = [
    "AdapterReport",
    "Effect",
    "Example",
    "Finding",
    "Fix",
    "FixReport",
    "Location",
    "Outcome",
    "Proof",
    "Report",
    "Reported",
    "Rule",
    "Safety",
    "SetExample",
    "SetReport",
    "SetRule",
    "SetSubject",
    "Severity",
    "Subject",
    "UserError",
    "Verdict",
    "check",
    "fix",
]

_HOMES = {
    "api": ("check", "fix"),
    "errors": ("UserError",),
    "findings": ("Effect", "Finding", "Fix", "Location", "Outcome", "Safety", "Severity"),
    "fixing.prove": ("Proof",),
    "fixing.repair": ("FixReport",),
    "model.subject": ("SetSubject", "Subject"),
    "report": ("AdapterReport", "Report", "Reported", "SetReport", "Verdict"),
    "rules.base": ("Rule", "SetRule"),
    "rules.examples": ("Example", "SetExample"),
}


if not TYPE_CHECKING:  # for a type checker every name would be there

    def __getattr__(name: str) -> Any:
        for module, names in _HOMES.items():
            if name in names:
                from importlib import import_module

                value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
