"""Load adapters in the PEFT that is installed and compare outputs: the only package that needs torch and PEFT."""

from adapterlint.verifying.libraries import MissingExtra, VerifyError
from adapterlint.verifying.loading import TOLERANCES, verify
from adapterlint.verifying.recipe import LoraDelta, Recipe, SavedParameter, TokenRows
from adapterlint.verifying.report import (
    AdapterReference,
    OrderResult,
    Step,
    Tolerance,
    VerifyReport,
    render_table,
)

__all__ = [
    "TOLERANCES",
    "AdapterReference",
    "LoraDelta",
    "MissingExtra",
    "OrderResult",
    "Recipe",
    "SavedParameter",
    "Step",
    "TokenRows",
    "Tolerance",
    "VerifyError",
    "VerifyReport",
    "render_table",
    "verify",
]
