"""What the installed PEFT does with every example of every rule and every fixture, against what adapterlint predicts.

    python tests/conformance/measure.py [--out RESULT.json] [--only GLOB]

Each case is loaded once, in the order given, by :func:`adapterlint.verifying.verify`; the reference is the base with
the adapter merged by hand. Prints the cells that disagree and a closing count; exits 1 if there are any.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapterlint import assemble
from adapterlint.recipes import recipe
from adapterlint.rules.examples import AnyExample, SetExample, bert_base, llama_base, write_any, write_base
from adapterlint.rules.registry import all_rules
from adapterlint.run import Request, check
from adapterlint.verifying import Recipe, VerifyError, verify

FIXTURES = Path(__file__).parents[2] / "fixtures"


class Case:
    """Something to load: adapter directories and a base."""

    def __init__(self, name: str, paths: list[Path], base: Path) -> None:
        self.name = name
        self.paths = [str(path) for path in paths]
        self.base = str(base)


def examples(root: Path) -> Iterator[Case]:
    """Every example of every rule, on its own base or on one that fits its targets."""
    for rule in all_rules():
        for kind in ("valid", "invalid"):
            for number, example in enumerate(getattr(rule, kind)()):
                name = f"{rule.code}-{kind}-{number}"
                paths, base = write_any(example, root / name)
                yield Case(name, paths, base or _default_base(example, root))


def _default_base(example: AnyExample, root: Path) -> Path:
    member = next(iter(example.members.values())) if isinstance(example, SetExample) else example
    text = json.dumps(member.config, default=str) + " ".join(member.tensors or {})
    is_bert = "bert" in " ".join(member.tensors or {}) or '"query"' in text
    target = root / ("bert" if is_bert else "llama")
    return target if target.exists() else write_base(bert_base() if is_bert else llama_base(), target)


def fixtures() -> Iterator[Case]:
    """The shipped sets and the traps."""
    yield Case("fixture-seed", sorted((FIXTURES / "sets" / "seed").iterdir()), FIXTURES / "base" / "seed")
    for path in sorted((FIXTURES / "ok").iterdir()):
        if (path / "adapter_config.json").exists():
            yield Case(f"fixture-{path.name}", [path], _named_base(path))


def _named_base(path: Path) -> Path:
    config = json.loads((path / "adapter_config.json").read_text())
    reference = str(config.get("base_model_name_or_path") or "")
    named = FIXTURES / "base" / reference.rpartition("/")[2]
    if reference and named.is_dir():
        return named
    targets = json.dumps(config.get("target_modules"))
    return FIXTURES / "base" / ("seed" if "query" in targets else "llama")


def predicted(case: Case, release: str) -> str:
    """The verdict of adapterlint."""
    report = check(Request(case.paths, [f"peft=={release}"], case.base, "one" if len(case.paths) > 1 else "none"))
    entry: Any = report.sets[0] if len(case.paths) > 1 else report.adapters[0]
    return str(entry.verdicts[f"peft=={release}"].outcome.value)


def measured(case: Case) -> tuple[str, str]:
    """Outcome and exception of the installed PEFT; ``unknown`` where there is no reference."""
    from adapterlint.discover import Found

    base, _ = assemble.read_base(case.base)
    recipes: list[Recipe] = []
    for path in case.paths:
        adapter = assemble.read_adapter(Found(path, True), base)
        recipes.append(recipe(assemble.subject(adapter, base)))
    try:
        report = verify(recipes, case.base, device="cpu", orders=1)
    except VerifyError as error:
        return "unknown", str(error)
    steps = report.orders[0].steps
    raised = next((step for step in steps if step.outcome == "raises"), None)
    if raised is not None:
        return "raises", raised.exception or ""
    outcomes = {step.outcome for step in steps}
    if "unknown" in outcomes:
        return "unknown", ""
    return ("wrong" if outcomes & {"wrong", "inert"} else "loads"), ""


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="*")
    args = parser.parse_args()
    import peft

    release = peft.__version__
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for case in [*examples(Path(directory)), *fixtures()]:
            if not fnmatch.fnmatch(case.name, args.only):
                continue
            said = predicted(case, release)
            found, text = measured(case)
            results[case.name] = {"predicted": said, "measured": found, "exception": text}
    marks: Counter[str] = Counter()
    for name, result in results.items():
        said, found = result["predicted"], result["measured"]
        mark = "no reference" if found == "unknown" else "agree" if said == found else "disagree"
        marks[mark] += 1
        if mark == "disagree":
            print(f"{name}: predicted {said}, measured {found} {result['exception'][:110]}")
    if args.out:
        args.out.write_text(json.dumps({"peft": release, "cases": results}, indent=1) + "\n")
    print(
        f"peft {release}: {marks['agree']} agree, {marks['disagree']} disagree, {marks['no reference']} without reference"
    )
    return 1 if marks["disagree"] else 0


if __name__ == "__main__":
    sys.exit(main())
