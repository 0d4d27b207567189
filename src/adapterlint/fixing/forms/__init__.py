"""Normal forms: what an adapter, or a set of them, is brought to so that it loads in more places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from adapterlint.findings import Edit
from adapterlint.fixing.forms.common import FormError
from adapterlint.fixing.values import TermError
from adapterlint.model.subject import SetSubject
from adapterlint.model.target import Target

__all__ = ["FORMS", "Form", "FormError", "plan_form"]

Form = Literal["union", "lowrank", "portable"]

FORMS: dict[Form, str] = {
    "union": "give every adapter of the set the same saved modules",
    "lowrank": "turn saved modules into LoRA, with one rank and the same layers in every adapter",
    "portable": "put the scale into B, with one rank and the keys that every engine knows",
}
"""The forms, and what each does to an adapter."""


def plan_form(form: Form, subject: SetSubject, targets: Sequence[Target]) -> list[tuple[Edit, ...]]:
    """The edits of each member, in the set's order; own names must be canonical already. Raises FormError."""
    from adapterlint.fixing.forms import lowrank, portable, union  # few adapters need one

    try:
        if form == "union":
            return union.plan(subject, targets)
        if form == "lowrank":
            return lowrank.plan(subject, targets)
        return [portable.plan(member) for member in subject.members]
    except TermError as error:
        raise FormError(f"{', '.join(member.adapter.name for member in subject.members)}: {error}") from error
    except (OSError, EOFError) as error:
        raise FormError(f"a file cannot be read: {error}") from error
