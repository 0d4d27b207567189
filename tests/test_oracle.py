"""Predictions against measured behaviour of fourteen unmodified PEFT releases, where those measurements are at hand."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterlint.report import Verdict
from adapterlint.run import Request, check

ORACLE = Path(__file__).parents[2] / "shared" / "oracle" / "dev"

pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="the measured cases are not here")


def verdicts(
    case: dict[str, object], source: Path, target: Path, releases: list[str], with_base: bool = True
) -> dict[str, Verdict]:
    paths = []
    for name in case["order"]:  # type: ignore[attr-defined]
        shutil.copytree(source / name, target / name)
        paths.append(str(target / name))
    base = str((source / str(case["base"])).resolve()) if with_base else None
    report = check(Request(paths, [f"peft=={release}" for release in releases], base))
    entry = report.adapters[0] if case["kind"] == "single" else report.sets[0]
    assert report.internal_errors == ()
    return {release: entry.verdicts[f"peft=={release}"] for release in releases}


def cases(target: Path, with_base: bool = True) -> Iterator[tuple[str, str, Verdict, str]]:
    """Every case and release, what is predicted, and the outcome that was measured."""
    for case_id, results in json.loads((ORACLE / "truth.json").read_text()).items():
        source = ORACLE / "cases" / case_id
        case = json.loads((source / "case.json").read_text())
        found = verdicts(case, source, target / case_id, list(results), with_base)
        for release, result in results.items():
            yield case_id, release, found[release], result["outcome"]


def test_verdicts_equal_what_was_measured(tmp_path: Path) -> None:
    marks: Counter[str] = Counter()
    wrong = []
    for case_id, release, verdict, expected in cases(tmp_path):
        if expected != "undefined":
            said = verdict.outcome.value
            mark = "right" if said == expected else f"{expected}-as-{said}"
            marks[mark] += 1
            if mark != "right":
                wrong.append(f"{case_id} on {release}: {expected}, not {said}")
    total = sum(marks.values())
    print(f"{marks['right']} of {total} verdicts right; {dict(marks)}")
    assert marks["right"] / total >= 0.995, wrong
    assert not [mark for mark in marks if mark.startswith("loads-as")], wrong


def test_without_a_base_nothing_is_claimed_that_only_a_base_shows(tmp_path: Path) -> None:
    marks: Counter[str] = Counter()
    wrong = []
    for case_id, release, verdict, expected in cases(tmp_path, with_base=False):
        said = verdict.outcome.value
        if said == "loads":
            assert verdict.assumes == ("base",), (case_id, release)
        if said == "unknown":
            assert verdict.missing, (case_id, release)
        if expected != "undefined":
            mark = "right" if said == expected else "unknown" if said == "unknown" else f"{expected}-as-{said}"
            marks[mark] += 1
            if mark not in ("right", "unknown") and said != "loads":
                wrong.append(f"{case_id} on {release}: {expected}, not {said}")
    print(f"without a base: {dict(marks)}")
    assert not wrong
    assert marks["right"] / sum(marks.values()) >= 0.9
