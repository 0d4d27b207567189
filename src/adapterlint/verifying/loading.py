"""Load a set into the installed, unmodified PEFT in every order, and compare every output with its reference."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from adapterlint.verifying.base import BaseModel
from adapterlint.verifying.libraries import Libraries, VerifyError, load_libraries
from adapterlint.verifying.quiet import offline, recorded
from adapterlint.verifying.recipe import Recipe
from adapterlint.verifying.reference import NoReferenceError, merge
from adapterlint.verifying.report import AdapterReference, OrderResult, Stage, Step, Tolerance, VerifyReport

_TINY = 10_000_000  # parameters

ALONE = "default"  # what PEFT calls an adapter that is loaded without a name

# In float32, merged and unmerged weights agree to about 1e-5, while a wrong adapter is off by 0.1 or more. In half
# precision merging rounds every changed weight, so there "equal" only tells right from clearly wrong.
TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-4),
    "float16": Tolerance(2e-2, 2e-2),
    "bfloat16": Tolerance(1e-1, 1e-1),
}


def verify(
    recipes: Sequence[Recipe],
    base_path: str,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    orders: Literal["all"] | int = "all",
    names: Sequence[str] | None = None,
    dtype: str = "float32",
) -> VerifyReport:
    """Load the adapters in PEFT and say whether each one answers as it was trained.

    For every order the first adapter is loaded with ``PeftModel.from_pretrained``, the others with ``load_adapter``;
    the output is compared right then (the first one is active), and again after each ``set_adapter``, twice through
    all of them. A single adapter is loaded as ``default`` and compared once.

    Args:
        recipes: what the adapters mean.
        base_path: directory of the base model.
        device: ``auto`` takes cuda where there is one.
        orders: every permutation, or the first N (the first is the order given).
        names: adapter names, instead of those in the recipes.
        dtype: dtype of the base: float32, or float16 or bfloat16 for a base that does not fit otherwise.

    Raises:
        MissingExtra: torch, transformers or peft is not installed.
        VerifyError: the base cannot be loaded or run, or there is no such device.
        ValueError: no recipes, equal names, or an unknown dtype.
    """
    named = _named(recipes, names)
    if dtype not in TOLERANCES:
        raise ValueError(f"dtype must be one of {', '.join(TOLERANCES)}")
    libraries = load_libraries()
    with offline(), recorded() as messages:
        started = time.perf_counter()
        where = _device(libraries.torch, device)
        with _reproducible(libraries.torch, where):
            base = BaseModel(libraries, base_path, where, dtype)
            permutations = itertools.permutations(named)
            chosen = permutations if orders == "all" else itertools.islice(permutations, max(1, orders))
            with _few_threads(libraries.torch, base):
                session = _Session(libraries, base, named, TOLERANCES[dtype])
                results = tuple(session.observe(order) for order in chosen)
        seconds = time.perf_counter() - started
    return VerifyReport(
        device=where,
        device_name=libraries.torch.cuda.get_device_name() if where == "cuda" else None,
        versions=libraries.versions(),
        base=base_path,
        architecture=base.architecture,
        dtype=dtype,
        tolerance=session.tolerance,
        adapters=tuple(session.references[name].described for name in named),
        orders=results,
        warnings=tuple(messages),
        seconds=seconds,
    )


def _named(recipes: Sequence[Recipe], names: Sequence[str] | None) -> dict[str, Recipe]:
    if not recipes:
        raise ValueError("there is no adapter to verify")
    if len(recipes) == 1:
        return {ALONE: recipes[0]}
    chosen = list(names) if names is not None else [recipe.name for recipe in recipes]
    if len(chosen) != len(recipes) or len(set(chosen)) != len(chosen):
        raise ValueError(f"every adapter of a set needs a name of its own: {chosen}")
    return dict(zip(chosen, recipes, strict=True))


def _device(torch: Any, device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise VerifyError("torch finds no CUDA device here")
    return device


@contextlib.contextmanager
def _reproducible(torch: Any, device: str) -> Iterator[None]:
    """Leave the caller's random state alone, and keep TensorFloat-32 from rounding away the comparison."""
    if device == "cpu":
        with torch.random.fork_rng(devices=[]):
            yield
        return
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
        for backend in backends:
            backend.allow_tf32 = False
        try:
            yield
        finally:
            for backend, flag in zip(backends, before, strict=True):
                backend.allow_tf32 = flag


@contextlib.contextmanager
def _few_threads(torch: Any, base: BaseModel) -> Iterator[None]:
    """Run a tiny model in one thread: waiting for a second one takes longer, fifty times longer on a busy machine."""
    before = torch.get_num_threads()
    if sum(parameter.numel() for parameter in base.parameters().values()) < _TINY:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class _Reference:
    output: Any  # None: there is none
    described: AdapterReference
    must_differ: bool  # the base's own output, bit for bit, would mean that the adapter does nothing


class _StepError(Exception):
    """An exception of the libraries, with the step that it becomes."""

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self.step = step


class _Session:
    """Everything that one verification shares between the orders."""

    def __init__(self, libraries: Libraries, base: BaseModel, named: dict[str, Recipe], tolerance: Tolerance) -> None:
        self.libraries, self.base, self.named, self.tolerance = libraries, base, named, tolerance
        base.prepare(index for recipe in named.values() for rows in recipe.tokens for index in rows.indices)
        try:
            self.bare = base.output(base.fresh())
        except Exception as error:
            raise VerifyError(f"the base cannot run on token ids: {type(error).__name__}: {error}") from error
        self.references = {name: self._reference(name, recipe) for name, recipe in named.items()}

    def observe(self, order: tuple[str, ...]) -> OrderResult:
        """Load the adapters in this order, switch twice through all, and compare."""
        self.libraries.torch.manual_seed(0)  # tensors that the file lacks are drawn at random
        steps: list[Step] = []
        try:
            model = self._load(order)
        except _StepError as raised:
            return OrderResult(order, (raised.step,))
        steps.append(self._compare(model, order[0], "after_load"))
        for name in order * 2 if len(order) > 1 else ():
            try:
                _attempt("switch", name, partial(model.set_adapter, name))
            except _StepError as raised:
                steps.append(raised.step)
            else:
                steps.append(self._compare(model, name, "after_switch"))
        return OrderResult(order, tuple(steps))

    def _load(self, order: tuple[str, ...]) -> Any:
        first, *others = order
        paths = {name: str(self.named[name].path) for name in order}
        load = self.libraries.peft.PeftModel.from_pretrained
        model = _attempt("load", first, lambda: load(self.base.fresh(), paths[first], adapter_name=first))
        for name in others:
            _attempt("load", name, partial(model.load_adapter, paths[name], adapter_name=name))
        return model

    def _compare(self, model: Any, name: str, stage: Stage) -> Step:
        try:
            output = _attempt("forward", name, lambda: self.base.output(model))
        except _StepError as raised:
            return raised.step
        reference = self.references[name]
        if reference.output is None:
            return Step(name, stage, "unknown")
        gap, own = self._gap(output, reference.output), self._gap(output, self.bare)
        if gap is None or gap > self._limit(reference.output):
            same_as_base = own is not None and own <= self._limit(self.bare)
            return Step(name, stage, "inert" if same_as_base else "wrong", gap)
        # Within the tolerance of both: an adapter with a tiny effect still moves the last bits.
        return Step(name, stage, "inert" if own == 0.0 and reference.must_differ else "ok", gap)

    def _reference(self, name: str, recipe: Recipe) -> _Reference:
        reason, output = recipe.reason, None
        tensors: dict[str, Any] = {}
        if self.base.quantised:
            reason = "the base is quantised"
        merged = recipe.mergeable and not self.base.quantised
        try:
            tensors = self._read(recipe)
            output = self._merged(recipe, tensors) if merged else self._alone(recipe)
        except _StepError as raised:
            reason = f"PEFT cannot load it alone: {raised.step.exception}"
        except NoReferenceError as error:
            reason = str(error)
        effect = None if output is None else self._gap(output, self.bare)
        unused = {tensor: tensors[tensor] for tensor in tensors.keys() - recipe.tensors}
        source: Literal["merged", "peft", "none"] = "none" if output is None else "merged" if merged else "peft"
        described = AdapterReference(name, str(recipe.path), source, effect, reason, len(unused))
        return _Reference(output, described, must_differ=effect != 0.0 or self._any_trained(unused))

    def _read(self, recipe: Recipe) -> dict[str, Any]:
        path = Path(recipe.path, recipe.weights_file)
        try:
            if path.suffix == ".safetensors":
                return dict(self.libraries.load_safetensors(str(path)))
            stored = self.libraries.torch.load(str(path), map_location="cpu", weights_only=True)
        except Exception as error:
            raise NoReferenceError(f"{recipe.weights_file}: {type(error).__name__}: {error}") from error
        if not isinstance(stored, dict):
            raise NoReferenceError(f"{recipe.weights_file} holds no table of tensors")
        return {str(key): value for key, value in stored.items() if self.libraries.torch.is_tensor(value)}

    def _merged(self, recipe: Recipe, tensors: dict[str, Any]) -> Any:
        model = self.base.fresh()
        merge(self.libraries.torch, model, recipe, tensors)
        return self.base.output(model)

    def _alone(self, recipe: Recipe) -> Any:
        load = self.libraries.peft.PeftModel.from_pretrained
        self.libraries.torch.manual_seed(0)
        model = _attempt("load", recipe.name, lambda: load(self.base.fresh(), str(recipe.path)))
        return _attempt("forward", recipe.name, lambda: self.base.output(model))

    def _any_trained(self, unused: dict[str, Any]) -> bool:
        """Whether a tensor that the recipe does not use changes something: not a lone A, not zero, not the base's."""
        torch, known = self.libraries.torch, self.base.parameters().values()

        def copied(value: Any) -> bool:
            return any(value.shape == own.shape and torch.equal(value.to(own), own) for own in known)

        effective = [value for name, value in unused.items() if "lora_A" not in name and "embedding_A" not in name]
        return any(bool(torch.any(value != 0)) and not copied(value) for value in effective)

    def _gap(self, output: Any, reference: Any) -> float | None:
        if output.shape != reference.shape:
            return None
        gap = float((output - reference).abs().max())
        return None if math.isnan(gap) else gap

    def _limit(self, reference: Any) -> float:
        return self.tolerance.absolute + self.tolerance.relative * float(reference.abs().max())


def _attempt(stage: Stage, adapter: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:
        raise _StepError(Step(adapter, stage, "raises", exception=f"{type(error).__name__}: {error}")) from None
