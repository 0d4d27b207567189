"""Operations beyond loading: what adapterlint says of them, against what the installed PEFT does and older ones did."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from adapterlint.model.target import bundled
from adapterlint.releases import version_key
from adapterlint.run import Request, check

for _library in ("torch", "transformers", "peft"):
    pytest.importorskip(_library)

HERE = Path(__file__).parent
OLDER = json.loads((HERE / "measured.json").read_text())
OPERATIONS = ("merge", "mixed_batch", "delete", "hotswap", "weighted", "save", "native")
LETTERS = {".": "loads", "W": "wrong", "R": "raises"}

# Between them, every operation goes right at least twice and wrong at least twice on the newest release.
SELECTED = (
    "plain-two",
    "rank-4-8",
    "rslora-first",
    "alpha-pattern-both",
    "dora-second",
    "lora-bias-llama",
    "embedding-both-tied",
    "lm-head-lora-both-tied",
    "lm-head-lora-both-llama",
    "targets-disjoint",
    "targets-subset-second",
    "targets-three-c",
    "layers-first-narrow",
    "saved-equal",
    "saved-equal-container",
    "saved-union-filled",
    "saved-differ-ac",
    "saved-differ-ad",
    "typed-implied",
    "llama-both-equal-tied",
    "rows-differ-tied",
    "names-q-query",
    "names-weight-other",
    "ia3-two",
)

pytestmark = pytest.mark.peft


def _load(name: str) -> ModuleType:
    """The measuring script, under a name of its own: another directory has one, too."""
    specification = importlib.util.spec_from_file_location(f"operations_{name}", HERE / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


measure = _load("measure")


@pytest.fixture(scope="module")
def located(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Every set of the battery on disk."""
    return {case.name: case for case in measure.battery_cases(tmp_path_factory.mktemp("battery"))}


@pytest.fixture(scope="module")
def installed() -> str:
    """Release of the installed PEFT, if the tool knows it."""
    release = importlib.metadata.version("peft")
    if release not in {target.version for target in bundled()}:
        pytest.skip(f"no tables for PEFT {release}")
    return release


@pytest.fixture(scope="module")
def results(located: dict[str, object]) -> dict[str, dict[str, object]]:
    """What the installed PEFT does with the selected sets."""
    libraries = measure.load_libraries()
    return {name: measure.measured(located[name], libraries, OPERATIONS) for name in SELECTED}


@pytest.mark.parametrize("name", SELECTED)
def test_prediction_equals_measurement(
    name: str, located: dict[str, object], results: dict[str, dict[str, object]], installed: str
) -> None:
    said = located[name].predicted(installed)  # type: ignore[attr-defined]
    found = {operation: results[name][operation] for operation in OPERATIONS}
    wrong = {
        operation: (said[operation], result)
        for operation, result in found.items()
        if not measure.agrees(said[operation][0], result.outcome)  # type: ignore[attr-defined]
    }
    assert wrong == {}


def test_every_operation_is_shown_right_and_wrong(results: dict[str, dict[str, object]], installed: str) -> None:
    if version_key(installed) < (0, 21):
        pytest.skip("chosen for PEFT 0.21")
    for operation in OPERATIONS:
        outcomes = Counter(result[operation].outcome == "ok" for result in results.values())  # type: ignore[attr-defined]
        assert outcomes[True] >= 2 and outcomes[False] >= 2, (operation, outcomes)


def test_the_exceptions_are_worded_as_raised(
    located: dict[str, object], results: dict[str, dict[str, object]], installed: str
) -> None:
    raised = 0
    for name, result in results.items():
        case = located[name]
        paths = [str(path) for path in case.paths]  # type: ignore[attr-defined]
        report = check(Request(paths, [f"peft=={installed}"], str(case.base), "one"))  # type: ignore[attr-defined]
        texts = [effect.exception for item in report.findings for effect in item.finding.effects if effect.exception]
        for operation in OPERATIONS:
            outcome = result[operation]
            if outcome.outcome == "raises":  # type: ignore[attr-defined]
                raised += 1
                found = outcome.detail  # type: ignore[attr-defined]
                assert any(_same_words(text, found) for text in texts), (name, operation, found, texts)
    assert raised > 20


def _same_words(said: str, found: str) -> bool:
    """Equal up to sizes and the order of names in a set, or as far as the measurement was kept."""
    plain = " ".join(said.split())
    kept = found.partition(", but got")[0].partition(" at entry")[0].partition("equal size")[0]
    return plain.startswith(kept[:80]) or found.startswith(plain[:80])


def _cells(release: str) -> Iterator[tuple[str, str, str]]:
    """Set, operation and outcome of everything that was measured on a release.

    Sets that do not load are left out, but for those that are about what outlives a defect.
    """
    column = OLDER["releases"].index(release)
    for name, rows in OLDER["cases"].items():
        if rows["load"][column] == "." or name.startswith("outlived-"):
            for operation in OPERATIONS:
                letter = rows[operation][column]
                if letter in LETTERS:
                    yield name, operation, LETTERS[letter]


@pytest.mark.slow
def test_predictions_for_every_release_that_was_measured(located: dict[str, object]) -> None:
    targets = [f"peft=={release}" for release in OLDER["releases"]]
    said = {}
    for name in OLDER["cases"]:
        case = located[name]
        paths = [str(path) for path in case.paths]  # type: ignore[attr-defined]
        report = check(Request(paths, targets, str(case.base), "one"))  # type: ignore[attr-defined]
        assert report.internal_errors == ()
        said[name] = report.sets[0].operations
    marks: Counter[str] = Counter()
    wrong = []
    for release in OLDER["releases"]:
        for name, operation, expected in _cells(release):
            found = said[name][operation][f"peft=={release}"].outcome.value
            mark = "right" if found == expected else "unknown" if found == "unknown" else "wrong"
            marks[mark] += 1
            if mark == "wrong":
                wrong.append(f"{release} {name} {operation}: {found}, measured {expected}")
    print(f"{marks['right']} of {marks.total()} outcomes right")
    assert marks.total() > 15_000 and marks["unknown"] < 20
    assert wrong == []
