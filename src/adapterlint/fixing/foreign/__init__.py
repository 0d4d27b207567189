"""Adapters of other tools as adapters of PEFT: the edits that make the one of the other, with the same effect.

Every producer has its own definition of what an adapter adds to a weight, which the module of its format states. The
result has that very effect in PEFT. Where the file leaves more than one meaning, it is refused, with the reason.
"""

from __future__ import annotations

from adapterlint.findings import Edit
from adapterlint.fixing.errors import PlanError
from adapterlint.model.subject import Subject
from adapterlint.rules.files.foreign_format import DIFFUSERS, KOHYA, MLX, TORCHTUNE, recognise


def plan(subject: Subject) -> tuple[Edit, ...]:
    """The edits that make an adapter of PEFT. Raises PlanError with the reason if they would have to guess."""
    from adapterlint.fixing.foreign import diffusers, kohya, mlx, named, torchtune  # few adapters are of these
    from adapterlint.fixing.foreign.layers import CannotConvertError

    adapter = subject.adapter
    found = recognise(adapter)
    converters = {MLX: mlx.edits, KOHYA: kohya.edits, DIFFUSERS: diffusers.edits, TORCHTUNE: torchtune.edits}
    convert = converters.get(found.format) if found else None
    if found is not None and found.format in (KOHYA, MLX) and adapter.peft_type is not None:
        convert = named.edits
    if found is None or convert is None:
        raise PlanError(adapter.path, "its format is not one that can be converted")
    try:
        return convert(subject, found)
    except CannotConvertError as error:
        raise PlanError(adapter.path, str(error)) from None
