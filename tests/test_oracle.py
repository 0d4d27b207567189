"""Predictions against measured behaviour of fourteen unmodified PEFT releases, where those measurements are at hand."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from adapterlint.run import Request, check

ORACLE = Path(__file__).parents[2] / "shared" / "oracle" / "dev"

pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="the measured cases are not here")


def predicted(case: dict[str, object], source: Path, target: Path, releases: list[str]) -> dict[str, str]:
    paths = []
    for name in case["order"]:  # type: ignore[attr-defined]
        shutil.copytree(source / name, target / name)
        paths.append(str(target / name))
    base = str((source / str(case["base"])).resolve())
    report = check(Request(paths, [f"peft=={release}" for release in releases], base))
    entry = report.adapters[0] if case["kind"] == "single" else report.sets[0]
    assert report.internal_errors == ()
    return {release: entry.verdicts[f"peft=={release}"].outcome.value for release in releases}


def test_verdicts_equal_what_was_measured(tmp_path: Path) -> None:
    truth = json.loads((ORACLE / "truth.json").read_text())
    marks: Counter[str] = Counter()
    wrong = []
    for case_id, results in truth.items():
        source = ORACLE / "cases" / case_id
        case = json.loads((source / "case.json").read_text())
        found = predicted(case, source, tmp_path / case_id, list(results))
        for release, result in results.items():
            expected = result["outcome"]
            if expected == "undefined":
                continue
            mark = "right" if found[release] == expected else f"{expected}-as-{found[release]}"
            marks[mark] += 1
            if mark != "right":
                wrong.append(f"{case_id} on {release}: {expected}, not {found[release]}")
    total = sum(marks.values())
    print(f"{marks['right']} of {total} verdicts right; {dict(marks)}")
    assert marks["right"] / total >= 0.995, wrong
    assert not [mark for mark in marks if mark.startswith("loads-as")], wrong
