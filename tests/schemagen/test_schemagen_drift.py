"""Regenerating everything from the wheels gives the bundled bytes.

Set ADAPTERLINT_PEFT_WHEELS to a folder; wheels that are not in it are downloaded into it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from schemagen_util import SCHEMAS, fields_json

from adapterlint.schemagen.build import Built, build_all
from adapterlint.schemagen.extract import Extraction, extract
from adapterlint.schemagen.patches import load_patches
from adapterlint.schemagen.sources import download, load, wheel_path

WHEELS = os.environ.get("ADAPTERLINT_PEFT_WHEELS")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not WHEELS, reason="ADAPTERLINT_PEFT_WHEELS is not set")]


@pytest.fixture(scope="module")
def extractions() -> dict[str, Extraction]:
    folder = Path(WHEELS or "")
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for release in fields_json()["releases"]:
        wheel = wheel_path(folder, release)
        sources = load(wheel) if wheel.is_file() else download(release, folder)
        assert sources.release == release
        found[release] = extract(sources.tree)
    return found


@pytest.fixture(scope="module")
def built(extractions: dict[str, Extraction]) -> Built:
    return build_all(extractions, load_patches(SCHEMAS / "patches"))


def test_the_same_bytes(built: Built) -> None:
    changed = [name for name, text in built.files.items() if (SCHEMAS / name).read_text(encoding="utf-8") != text]
    assert not changed


def test_every_refusal_of_every_release_is_translated_or_listed(built: Built) -> None:
    assert not [remark for remark in built.remarks if "no schema expresses" in remark]


def test_every_listed_refusal_still_exists(extractions: dict[str, Extraction]) -> None:
    owners = [owner for extraction in extractions.values() for owner in extraction.classes.values()]
    texts = {guard.text for owner in owners for guard in owner.guards}
    patches = load_patches(SCHEMAS / "patches")
    assert {text for text, _ in patches.inexpressible} | {entry["guard"] for entry in patches.guards} <= texts


def test_every_correction_of_kinds_corrects_something(extractions: dict[str, Extraction]) -> None:
    from adapterlint.schemagen.patches import Patches

    patches = load_patches(SCHEMAS / "patches")
    for entry in patches.kinds:
        alone = Patches(kinds=(entry,))
        assert any(alone.apply(release, item) != item for release, item in extractions.items()), entry
