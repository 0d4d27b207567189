"""The healthy traps answer as trained from the release on that their table states."""

from __future__ import annotations

import pytest
from verifying_util import PROJECT, installed_peft, recipe_of

from adapterlint.releases import version_key
from adapterlint.verifying import verify

for _library in ("torch", "transformers", "peft"):
    pytest.importorskip(_library)

pytestmark = pytest.mark.peft

OK = PROJECT / "fixtures" / "ok"
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (OK / "README.md").read_text().splitlines()
    if line.startswith("| ") and (OK / line.split("|")[1].strip()).is_dir()
]


@pytest.mark.parametrize(("name", "base", "since"), [(row[0], row[1], row[3]) for row in ROWS])
def test_trap_answers_as_trained(name: str, base: str, since: str) -> None:
    if installed_peft() < version_key(since):
        pytest.skip(f"loads since PEFT {since}")
    path = PROJECT / "fixtures" / "base" / base
    report = verify([recipe_of(OK / name, path)], str(path), device="cpu")
    assert report.ok, report.orders
    assert (report.adapters[0].effect or 0) > 0.1
    assert report.adapters[0].source == ("peft" if "adalora" in name else "merged")
