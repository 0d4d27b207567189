"""What the installed PEFT does with sets of adapters beyond loading them, against what adapterlint predicts.

    python tests/operations/measure.py [--out RESULT.json] [--only GLOB] [--cases DIR] [--operation NAME]...

The operations are defined in docs/operations.md. The reference of every adapter is the base with the adapter merged by
hand. Without ``--cases`` the sets of battery.py are measured; with it, every directory below that holds a case.json
with ``base`` and ``order``. Prints the cells that disagree and a closing count; exits 1 if there are any.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import battery

from adapterlint import assemble
from adapterlint.discover import Found
from adapterlint.model import keys
from adapterlint.recipes import recipe
from adapterlint.run import Request, check
from adapterlint.verifying import TOLERANCES, Recipe, VerifyError
from adapterlint.verifying.base import BaseModel
from adapterlint.verifying.libraries import Libraries, load_libraries
from adapterlint.verifying.loading import _Session
from adapterlint.verifying.quiet import offline, recorded
from adapterlint.verifying.reference import merge

_RANK = {"ok": 0, "unknown": 1, "wrong": 2, "raises": 3}


@dataclass(frozen=True)
class Result:
    """What one operation did: ``ok``, ``wrong``, ``raises``, or ``unknown`` without a reference; and with what."""

    outcome: str
    detail: str = ""


OK = Result("ok")


class Bench:
    """One set on its base, in the installed PEFT."""

    def __init__(self, libraries: Libraries, base: BaseModel, recipes: dict[str, Recipe]) -> None:
        self.libraries, self.torch, self.base, self.recipes = libraries, libraries.torch, base, recipes
        self.session = _Session(libraries, base, recipes, TOLERANCES["float32"])
        self.names = tuple(recipes)
        self.references = {name: self.session.references[name].output for name in recipes}

    # -- steps ---------------------------------------------------------------------------------------------------

    def load(self) -> Any:
        """All adapters in one model, the first one active."""
        self.torch.manual_seed(0)
        return self.session._load(self.names)

    def compare(self, model: Any, name: str, note: str = "") -> Result:
        """Hold the model's output against the reference of an adapter."""
        return self.judge(self.base.output(model), self.references[name], note or name)

    def judge(self, output: Any, reference: Any, note: str) -> Result:
        """Hold an output against a reference."""
        if reference is None:
            return Result("unknown", note)
        gap = self.session._gap(output, reference)
        if gap is None or gap > self.session._limit(reference):
            return Result("wrong", f"{note}: {gap if gap is None else round(gap, 4)}")
        return OK

    def paths(self) -> dict[str, str]:
        """Adapter directories by name."""
        return {name: str(recipe.path) for name, recipe in self.recipes.items()}

    # -- operations ----------------------------------------------------------------------------------------------

    def merge(self) -> Iterator[Result]:
        """Every adapter in turn: load all, set_adapter, merge_and_unload."""
        for name in self.names:
            model = self.load()
            model.set_adapter(name)
            yield self.compare(model.merge_and_unload(), name)

    def mixed_batch(self) -> Iterator[Result]:
        """One batch for all adapters and the base."""
        model = self.load().eval()
        wanted = [*self.names, "__base__"]
        inputs = {key: value.repeat(len(wanted), 1) for key, value in self.base._inputs.items()}
        rows = len(self.base._inputs["input_ids"])
        with self.torch.no_grad():
            logits = model(**inputs, adapter_names=[name for name in wanted for _ in range(rows)]).logits
        for number, name in enumerate(wanted):
            block = logits[number * rows : (number + 1) * rows].float().flatten()
            reference = self.session.bare if name == "__base__" else self.references[name]
            yield self.judge(block, reference, name)

    def delete(self) -> Iterator[Result]:
        """Delete the active adapter, the first; then the one that the model calls active must answer."""
        model = self.load()
        model.delete_adapter(self.names[0])
        output = self.base.output(model)
        yield self.judge(output, self.references[_active(model)], f"active {_active(model)}")

    def hotswap(self) -> Iterator[Result]:
        """Load the first adapter and put every other one in its place."""
        from peft.utils.hotswap import hotswap_adapter

        first, *others = self.names
        for name in others:
            model = self.libraries.peft.PeftModel.from_pretrained(
                self.base.fresh(), self.paths()[first], adapter_name=first
            )
            hotswap_adapter(model, self.paths()[name], adapter_name=first, torch_device="cpu")
            yield self.compare(model, name)

    def weighted(self) -> Iterator[Result]:
        """Combine all adapters: every one-hot vector with ``linear``, unequal weights with ``cat``."""
        for kind, weights in self._weights():
            model = self.load()
            model.add_weighted_adapter(list(self.names), weights, "combined", combination_type=kind)
            model.set_adapter("combined")
            expected = self._combination(dict(zip(self.names, weights, strict=True)))
            yield self.judge(self.base.output(model), expected, f"{kind} {weights}")

    def _weights(self) -> Iterator[tuple[str, list[float]]]:
        for number in range(len(self.names)):
            yield "linear", [float(number == other) for other in range(len(self.names))]
        yield "cat", [0.7 / (number + 1) for number in range(len(self.names))]

    def _combination(self, weights: dict[str, float]) -> Any:
        """Output of the base plus the weighted sum of what every adapter changes in it."""
        if not all(recipe.mergeable for recipe in self.recipes.values()):
            return None
        target = self.base.fresh()
        total = {path: dict(module._parameters) for path, module in target.named_modules(remove_duplicate=False)}
        own = {path: dict(parameters) for path, parameters in total.items()}
        for name, weight in weights.items():
            changed = self.base.fresh()
            merge(self.torch, changed, self.recipes[name], self.session._read(self.recipes[name]))
            for path, module in changed.named_modules(remove_duplicate=False):
                for key, value in module._parameters.items():
                    before = own[path].get(key)
                    if value is None or (before is not None and bool(self.torch.equal(value, before))):
                        continue
                    start = total[path].get(key)
                    zero = self.torch.zeros_like(value)
                    summed = (zero if start is None else start) + weight * (
                        value - (zero if before is None else before)
                    )
                    total[path][key] = self.torch.nn.Parameter(summed.detach(), requires_grad=False)
        for path, module in target.named_modules(remove_duplicate=False):
            module._parameters.update(total[path])
        return self.base.output(target)

    def save(self) -> Iterator[Result]:
        """Save all; every file must hold the adapter's own tensors, and else only what it holds when saved alone."""
        with tempfile.TemporaryDirectory() as directory:
            self.load().save_pretrained(directory)
            for name in self.names:
                written = self._written(Path(directory), name)
                alone = self._saved_alone(name)
                own = {key if key in alone else _canonical(key): value for key, value in self._own(name).items()}
                lost = sorted(key for key in own if key not in written)
                foreign = sorted(key for key in written if key not in own and key not in alone)
                extra = sorted(key for key in written if key not in own and key in alone)
                changed = [key for key in own if key in written and not self._same(own[key], written[key])]
                if lost or foreign or changed:
                    yield Result("wrong", f"{name}: lost {lost[:2]} foreign {foreign[:2]} changed {changed[:2]}")
                else:
                    yield Result("ok", f"{name}: also alone {extra[:2]}" if extra else "")

    def _own(self, name: str) -> dict[str, Any]:
        return {str(key): value for key, value in self.session._read(self.recipes[name]).items()}

    def _same(self, one: Any, other: Any) -> bool:
        return one.shape == other.shape and bool(self.torch.equal(one.float(), other.float()))

    def _written(self, root: Path, name: str) -> dict[str, Any]:
        directory = root if name == "default" else root / name
        file = directory / "adapter_model.safetensors"
        if file.exists():
            return dict(self.libraries.load_safetensors(str(file)))
        return dict(self.torch.load(str(directory / "adapter_model.bin"), map_location="cpu", weights_only=True))

    def _saved_alone(self, name: str) -> set[str]:
        load = self.libraries.peft.PeftModel.from_pretrained
        with tempfile.TemporaryDirectory() as directory:
            try:
                load(self.base.fresh(), self.paths()[name]).save_pretrained(directory)
            except Exception:
                return set()
            return set(self._written(Path(directory), "default"))

    def native(self) -> Iterator[Result]:
        """transformers' own load_adapter for each, then set_adapter through all, twice."""
        self.torch.manual_seed(0)
        model = self.base.fresh()
        for name, path in self.paths().items():
            model.load_adapter(path, adapter_name=name)
        active = model.active_adapters()
        yield self.compare(model, active[0], f"after load, active {active}")
        for name in self.names * 2:
            model.set_adapter(name)
            yield self.compare(model, name, f"after set {name}")

    def loading(self) -> Iterator[Result]:
        """For comparison: load all, switch twice through all."""
        for step in self.session.observe(self.names).steps:
            outcome = "wrong" if step.outcome == "inert" else step.outcome
            yield Result(outcome, f"{step.stage} {step.adapter} {step.exception or step.difference}")

    def run(self, operation: str) -> Result:
        """The worst result of an operation; the first of its kind."""
        action: Callable[[], Iterator[Result]] = self.loading if operation == "load" else getattr(self, operation)
        results: list[Result] = []
        try:
            for result in action():
                results.append(result)
        except Exception as error:
            step = getattr(error, "step", None)
            text = step.exception if step is not None else f"{type(error).__name__}: {error}"
            stage = f"{step.stage}: " if step is not None else ""
            results.append(Result("raises", f"{stage}{' '.join(str(text).split())[:300]}"))
        return max(results, key=lambda result: _RANK[result.outcome])


def _canonical(name: str) -> str:
    return keys.parse(name).canonical


def _active(model: Any) -> str:
    active = model.active_adapter
    return str(active if isinstance(active, str) else active[0])


OPERATIONS = ("load", "merge", "mixed_batch", "delete", "hotswap", "weighted", "save", "native")


@dataclass(frozen=True)
class Located:
    """A set on disk."""

    name: str
    paths: tuple[Path, ...]
    base: Path

    def bench(self, libraries: Libraries) -> Bench:
        """The set, ready to be measured."""
        base, _ = assemble.read_base(str(self.base))
        recipes = {}
        for path in self.paths:
            adapter = assemble.read_adapter(Found(str(path), True), base)
            recipes[path.name] = recipe(assemble.subject(adapter, base))
        return Bench(libraries, BaseModel(libraries, str(self.base), "cpu", "float32"), recipes)

    def predicted(self, release: str) -> dict[str, tuple[str, tuple[str, ...]]]:
        """What adapterlint says of each operation: outcome and rules."""
        target = f"peft=={release}"
        report = check(Request([str(path) for path in self.paths], [target], str(self.base), "one"))
        found = report.sets[0]
        verdicts = {"load": found.verdicts[target], **{k: v[target] for k, v in found.operations.items()}}
        return {key: (verdict.outcome.value, verdict.rules) for key, verdict in verdicts.items()}


def battery_cases(root: Path, pattern: str = "*") -> Iterator[Located]:
    """The sets of battery.py, written below a directory."""
    for case in battery.cases():
        if fnmatch.fnmatch(case.name, pattern):
            base = root / "bases" / case.base
            if not base.exists():
                battery.write_base(case.base, base)
            yield Located(case.name, tuple(battery.write_case(case, root / case.name, base)), base)


def stored_cases(root: Path, pattern: str = "*") -> Iterator[Located]:
    """Sets below a directory, as their case.json describes them."""
    for file in sorted(root.rglob("case.json")):
        described = json.loads(file.read_text())
        if described.get("kind", "set") == "set" and fnmatch.fnmatch(described["id"], pattern):
            base = (file.parent / described["base"]).resolve()
            yield Located(described["id"], tuple(file.parent / name for name in described["order"]), base)


def measured(case: Located, libraries: Libraries, operations: Sequence[str] = OPERATIONS) -> dict[str, Result]:
    """Outcome of every operation on a set."""
    with offline(), recorded():
        libraries.torch.set_num_threads(1)
        try:
            bench = case.bench(libraries)
        except VerifyError as error:
            return {operation: Result("unknown", str(error)) for operation in operations}
        return {operation: bench.run(operation) for operation in operations}


def agrees(said: str, found: str) -> bool:
    """Whether a prediction and a measurement say the same."""
    return said == ("loads" if found == "ok" else found)


def _print(marks: Counter[str], rows: list[str], release: str) -> int:
    print("\n".join(rows))
    counts = ", ".join(f"{count} {mark}" for mark, count in sorted(marks.items()))
    print(f"peft {release}: {counts}")
    return 1 if any(mark.startswith("disagree") for mark in marks) else 0


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="*")
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--operation", action="append", choices=OPERATIONS)
    parser.add_argument("--release", help="predict for this release instead of the installed one")
    args = parser.parse_args()
    libraries = load_libraries()
    release = args.release or libraries.versions()["peft"]
    root = Path(tempfile.mkdtemp())
    found: dict[str, dict[str, Any]] = {}
    marks: Counter[str] = Counter()
    rows: list[str] = []
    try:
        located = partial(stored_cases, args.cases) if args.cases else partial(battery_cases, root)
        for case in located(args.only):
            said = case.predicted(release)
            results = measured(case, libraries, args.operation or OPERATIONS)
            found[case.name] = {}
            for operation, result in results.items():
                outcome, rules = said[operation]
                mark = "unknown" if result.outcome == "unknown" else "agree"
                mark = mark if mark == "unknown" or agrees(outcome, result.outcome) else f"disagree on {operation}"
                marks[mark] += 1
                found[case.name][operation] = [result.outcome, result.detail, outcome, list(rules)]
                if mark.startswith("disagree"):
                    rows.append(f"{case.name} {operation}: predicted {outcome} {rules}, measured {result}")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if args.out:
        args.out.write_text(json.dumps({"peft": release, "cases": found}, indent=1) + "\n")
    return _print(marks, rows, release)


if __name__ == "__main__":
    sys.exit(main())
