"""What installed PEFT releases do with healthy and broken adapters of every method, against adapterlint's verdicts.

    python measure.py make OUT [RECIPE...]          healthy adapters, by the PEFT that is installed
    python measure.py load OUT RESULT [CASE...]     load them, and broken ones, with the PEFT that is installed
    python measure.py judge OUT RESULT... [CASE...] compare the results with adapterlint's verdicts
    python measure.py all OUT ENVIRONMENTS          everything, release by release

OUT/<writer>/<recipe>/ holds a healthy adapter; a CASE is a pattern of <writer>/<recipe>/<defect>. ENVIRONMENTS is a
JSON file, {release: {"python": interpreter, "path": [folders for PYTHONPATH]}}; every release writes and loads.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import defects  # noqa: E402
import recipes  # noqa: E402

TOLERANCE = 1e-3
COARSE = 0.05  # for weights that were rounded to half precision


def quiet() -> None:
    """No warnings, no logging, one thread."""
    import logging

    import torch

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def make(out: Path, names: Sequence[str] = ()) -> None:
    """Make every healthy adapter that the installed PEFT can make, below ``out/<its version>``."""
    import peft

    for recipe in recipes.RECIPES:
        if names and recipe.name not in names:
            continue
        directory = out / peft.__version__ / recipe.name
        directory.mkdir(parents=True, exist_ok=True)
        reason = recipes.make(recipe, directory)
        if reason:
            print(f"{peft.__version__} {recipe.name}: {reason}")


@lru_cache(maxsize=4)
def plain_answer(base: str) -> Any:
    """What the base says without an adapter."""
    return recipes.answer(recipes.fresh_base(base), {})


def observe(
    adapter: Path, base: str, reference: Any, inputs: dict[str, Any], near: float = TOLERANCE
) -> dict[str, Any]:
    """Load one adapter with the installed PEFT and say what came of it."""
    import torch
    from peft import PeftModel

    torch.manual_seed(7)
    stage = "load"
    try:
        model = PeftModel.from_pretrained(recipes.fresh_base(base), str(adapter))
        stage = "forward"
        output = recipes.answer(model, inputs)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".replace(str(adapter.parent), "").split())
        return {"outcome": "raises", "stage": stage, "error": text[:300]}
    gap = float(abs(output - reference).max()) if output.shape == reference.shape else None
    if gap is not None and gap <= near:
        return {"outcome": "loads"}
    plain = plain_answer(base)
    inert = output.shape == plain.shape and float(abs(output - plain).max()) <= TOLERANCE
    return {"outcome": "wrong", "inert": inert, "diff": gap}


def cases(out: Path, patterns: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any], Path, Any, Any]]:
    """Every healthy adapter below ``out`` with every defect: id, meta, reference file, config, tensors."""
    for meta_file in sorted(out.glob("*/*/meta.json")):
        directory = meta_file.parent
        meta = json.loads(meta_file.read_text())
        if not (directory / "adapter" / "adapter_model.safetensors").exists():
            continue
        for name, config, tensors in defects.broken(directory / "adapter"):
            case = f"{meta['peft']}/{meta['recipe']}/{name}"
            if not patterns or any(fnmatch.fnmatch(case, pattern) for pattern in patterns):
                yield case, meta, directory / "reference.npy", config, tensors


def load(out: Path, result: Path, patterns: Sequence[str]) -> None:
    """Load every case with the installed PEFT; writes {case: outcome}."""
    import numpy as np
    import peft

    quiet()
    found: dict[str, Any] = json.loads(result.read_text())["cases"] if result.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (case, meta, reference, config, tensors) in enumerate(cases(out, patterns)):
            if case in found:
                continue
            adapter = Path(folder) / str(number) / "adapter"
            defects.write(config, tensors, adapter)
            near = COARSE if "mend" in case else TOLERANCE
            found[case] = observe(adapter, meta["base"], np.load(reference), meta["inputs"], near)
    result.write_text(json.dumps({"peft": peft.__version__, "cases": found}, indent=0))


def predict(adapter: Path, base: str, releases: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """adapterlint's verdicts on one directory, by release, and the codes of its findings."""
    from adapterlint.run import Request, check

    targets = [f"peft=={release}" for release in releases]
    report = check(Request([str(adapter)], targets, str(recipes.BASES / base), grouping="none"))
    assert not report.internal_errors, report.internal_errors
    return dict(report.adapters[0].verdicts), sorted({item.finding.rule for item in report.findings})


def judge(out: Path, results: Sequence[Path], patterns: Sequence[str] = ()) -> int:
    """Print where verdicts and measurements differ."""
    measured = {entry["peft"]: entry["cases"] for entry in (json.loads(file.read_text()) for file in results)}
    wanted = {case for found in measured.values() for case in found}
    tally: Counter[str] = Counter()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (case, meta, _, config, tensors) in enumerate(cases(out, patterns)):
            if case not in wanted:
                continue
            adapter = Path(folder) / str(number) / "adapter"
            defects.write(config, tensors, adapter)
            releases = [release for release, found in measured.items() if case in found]
            verdicts, codes = predict(adapter, meta["base"], releases)
            truth = {release: measured[release][case]["outcome"] for release in releases}
            releases = [release for release in releases if not undefined(case, truth[release], tensors)]
            said = {release: verdicts[f"peft=={release}"].outcome.value for release in releases}
            marks = [_mark(truth[release], said[release]) for release in releases]
            tally.update(marks)
            if any(mark != "correct" for mark in marks):
                letters = {"loads": ".", "wrong": "w", "raises": "X", "unknown": "?"}
                truth_text = "".join(letters[truth[release]] for release in releases)
                said_text = "".join(letters[said[release]] for release in releases)
                lines.append(f"{case:45} truth {truth_text} said {said_text} {' '.join(codes)}")
    print("\n".join(lines))
    print(f"releases {' '.join(measured)}: " + " ".join(f"{name} {count}" for name, count in sorted(tally.items())))
    return 1 if set(tally) - {"correct", "unknown"} else 0


def undefined(case: str, outcome: str, tensors: Any) -> bool:
    """Whether the directory alone does not say what is right: a declared module without any tensor.

    Up to 0.14 the base's values stay, which were perhaps never trained.
    """
    nothing = not any("classifier" in name or "lm_head" in name for name in tensors)
    return outcome == "wrong" and "/head." in case and nothing


def _mark(truth: str, said: str) -> str:
    if truth == said:
        return "correct"
    if said == "unknown":
        return "unknown"
    if said == "loads":
        return "false_load"
    return "false_alarm" if truth == "loads" else "wrong_kind"


def everything(out: Path, environments: Path) -> int:
    """Make, load and judge with every release of the environments file; one process each."""
    stacks = json.loads(environments.read_text())
    results = []
    for command in ("make", "load"):
        for release, stack in stacks.items():
            more = []
            if command == "load":
                results.append(out / f"{release}.json")
                more = [str(results[-1])]
            variables = {**os.environ, "PYTHONPATH": os.pathsep.join(stack["path"])}
            subprocess.run([stack["python"], __file__, command, str(out), *more], env=variables, check=True)
    return judge(out, results)


def main(arguments: list[str]) -> int:
    command, out, *rest = arguments
    if command == "make":
        quiet()
        make(Path(out), rest)
    elif command == "load":
        load(Path(out), Path(rest[0]), rest[1:])
    elif command == "judge":
        files = [Path(item) for item in rest if item.endswith(".json")]
        return judge(Path(out), files, [item for item in rest if not item.endswith(".json")])
    elif command == "all":
        return everything(Path(out), Path(rest[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
