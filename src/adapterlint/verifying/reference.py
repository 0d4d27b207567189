"""The right answer: an adapter merged into its base by hand, with torch alone.

The arithmetic is done in float64 and written in the dtype of the base. A changed parameter is replaced, not
overwritten, so a parameter that was tied to it keeps its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterlint.verifying.recipe import LoraDelta, Recipe, SavedParameter, TokenRows


class NoReferenceError(Exception):
    """The recipe does not fit the base or the file, so that there is nothing to compare with."""


def merge(torch: Any, model: Any, recipe: Recipe, tensors: Mapping[str, Any]) -> None:
    """Change ``model`` into base plus adapter.

    Raises:
        NoReferenceError: a tensor, module or parameter of the recipe is missing, or the shapes do not fit.
    """
    steps: list[LoraDelta | SavedParameter | TokenRows] = [*recipe.saved, *recipe.deltas, *recipe.tokens]
    for step in steps:
        try:
            _apply(torch, model, step, tensors)
        except (AttributeError, KeyError, IndexError, RuntimeError) as error:
            place = step.module if isinstance(step, LoraDelta) else step.parameter
            raise NoReferenceError(f"{place}: {type(error).__name__}: {error}") from error


def _apply(torch: Any, model: Any, step: LoraDelta | SavedParameter | TokenRows, tensors: Mapping[str, Any]) -> None:
    if isinstance(step, LoraDelta):
        _apply_delta(torch, model.get_submodule(step.module), step, tensors)
        return
    path, _, name = step.parameter.rpartition(".")
    module = model.get_submodule(path)
    old = _stored(module, name)
    if isinstance(step, TokenRows):
        new = old.clone()
        new[list(step.indices)] = tensors[step.tensor].to(old)
    else:
        new = tensors[step.tensor]
        if new.shape != old.shape:
            raise RuntimeError(f"shape {tuple(new.shape)} in the file, {tuple(old.shape)} in the base")
    _replace(torch, module, name, new)


def _apply_delta(torch: Any, module: Any, delta: LoraDelta, tensors: Mapping[str, Any]) -> None:
    old = _stored(module, "weight")
    # transformers' Conv1D (GPT-2) is a linear layer that stores its weight as (in, out)
    turned = type(module).__name__ == "Conv1D" and delta.kind == "linear"
    weight = (old.T if turned else old).double()
    change = product(torch, delta.kind, *_double(weight, tensors, delta.a, delta.b))
    if change.shape != weight.shape:  # adding would broadcast
        raise RuntimeError(f"B @ A has the shape {tuple(change.shape)}, the base weight {tuple(weight.shape)}")
    changed = weight + delta.scale * change
    if delta.magnitude is not None:
        changed = rescaled(torch, delta.kind, changed, *_double(weight, tensors, delta.magnitude))
    _replace(torch, module, "weight", changed.T if turned else changed)
    if delta.bias is not None:
        (added,) = _double(weight, tensors, delta.bias)
        bias = module._parameters.get("bias")
        total = delta.scale * added if bias is None else bias.double() + delta.scale * added
        _replace(torch, module, "bias", total, like=old)


def product(torch: Any, kind: str, a: Any, b: Any) -> Any:
    """B @ A in the layout of the base weight: (out, in), (rows, columns) or (out, in / groups, kernel...)."""
    if kind == "embedding":
        return (b @ a).T
    if kind == "conv":
        return torch.einsum("or,ri...->oi...", b.flatten(1), a)
    return b @ a


def rescaled(torch: Any, kind: str, weight: Any, magnitude: Any) -> Any:
    """DoRA: every output direction of ``weight`` (for an embedding: every column) brought to its stored length."""
    if kind == "embedding":
        return weight * (magnitude.flatten() / torch.linalg.vector_norm(weight, dim=0))
    lengths = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return weight * (magnitude.flatten() / lengths).reshape(-1, *[1] * (weight.dim() - 1))


def _stored(module: Any, name: str) -> Any:
    if module._parameters.get(name) is not None:
        return module._parameters[name].detach()
    return module._buffers[name]


def _double(like: Any, tensors: Mapping[str, Any], *names: str) -> list[Any]:
    return [tensors[name].to(like.device).double() for name in names]


def _replace(torch: Any, module: Any, name: str, value: Any, like: Any = None) -> None:
    like = _stored(module, name) if like is None else like
    if name in module._buffers:
        module._buffers[name] = value.to(like)
    else:
        new = value.to(like).contiguous().clone()  # a view of a tied tensor must not be shared
        module._parameters[name] = torch.nn.Parameter(new, requires_grad=False)
