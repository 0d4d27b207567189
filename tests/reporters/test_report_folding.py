"""Releases in few words: what is said in ranges is expanded again, with packaging as the judge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from adapterlint.findings import raises, unknown, wrong
from adapterlint.model.target import bundled
from adapterlint.reporters.folding import fold, fold_effects

KNOWN = [str(target) for target in bundled()]
VERSIONS = [target.version for target in bundled()]
MINORS = sorted({".".join(version.split(".")[:2]) for version in VERSIONS}, key=Version)


def expand(text: str) -> set[str]:
    """The releases that a folded text stands for; a two-part number is all releases of that series."""
    if text == "every release":
        return set(VERSIONS)
    found: set[str] = set()
    for part in text.removeprefix("peft ").split(", "):
        if part.startswith("<="):
            low, high = VERSIONS[0], part[2:]
        elif part.startswith(">="):
            low, high = part[2:], VERSIONS[-1]
        else:
            low, _, high = part.partition("-")
            high = high or low
        upper = Version(f"{high}.999") if high in MINORS else Version(high)
        found |= {version for version in VERSIONS if Version(low) <= Version(version) <= upper}
    return found


@given(st.sets(st.sampled_from(VERSIONS), min_size=1), st.booleans())
def test_what_is_folded_expands_again(chosen: set[str], open_ended: bool) -> None:
    text = fold([f"peft=={version}" for version in chosen], KNOWN, open_ended=open_ended)
    assert expand(text) == chosen


@given(st.integers(0, len(VERSIONS) - 1), st.integers(0, len(VERSIONS) - 1))
def test_a_run_is_one_range(first: int, last: int) -> None:
    first, last = sorted((first, last))
    text = fold(KNOWN[first : last + 1], KNOWN)
    assert "," not in text and expand(text) == set(VERSIONS[first : last + 1])


def ranged(*bounds: str) -> list[str]:
    return [
        f"peft=={version}"
        for version in VERSIONS
        if all(
            Version(version) >= Version(bound[2:]) if bound.startswith(">=") else Version(version) < Version(bound[1:])
            for bound in bounds
        )
    ]


@pytest.mark.parametrize(
    ("targets", "closed", "opened"),
    [
        (ranged(), "peft 0.3-0.21", "every release"),
        (ranged("<0.6"), "peft 0.3-0.5", "peft <=0.5"),
        (ranged(">=0.18"), "peft 0.18-0.21", "peft >=0.18"),
        (ranged(">=0.6", "<0.14"), "peft 0.6-0.13", "peft 0.6-0.13"),
        (ranged(">=0.6.2", "<0.13.2"), "peft 0.6.2-0.13.1", "peft 0.6.2-0.13.1"),
        (ranged(">=0.13", "<0.13.2"), "peft 0.13.0-0.13.1", "peft 0.13.0-0.13.1"),
        (ranged(">=0.13", "<0.14"), "peft 0.13", "peft 0.13"),
        (["peft==0.13.2"], "peft 0.13.2", "peft 0.13.2"),
        (["peft==0.10.0", "peft==0.8.2"], "peft 0.8.2, 0.10", "peft 0.8.2, 0.10"),
        (["peft==0.21.2"], "peft 0.21.2", "peft >=0.21.2"),
        (["peft==9.9"], "peft 9.9", "peft 9.9"),
        (["vllm==0.33.0", "peft==0.13.2"], "peft 0.13.2 and vllm 0.33.0", "peft 0.13.2 and vllm 0.33.0"),
        ([*KNOWN, "vllm==0.33.0"], "peft 0.3-0.21 and vllm 0.33.0", "every peft and vllm 0.33.0"),
    ],
)
def test_words(targets: list[str], closed: str, opened: str) -> None:
    assert fold(targets, KNOWN) == closed
    assert fold(reversed(targets), KNOWN, open_ended=True) == opened


def test_effects_that_say_the_same_share_a_line() -> None:
    effects = [
        wrong("peft>=0.15,<0.18"),
        raises("peft>=0.6,<0.11", "E: x"),
        wrong("peft<0.6"),
        wrong("peft>=0.15,<0.16"),
    ]
    lines = [line.text for line in fold_effects(effects, KNOWN)]
    assert lines == ["silently wrong on peft <=0.5, 0.15-0.17", "raises on peft 0.6-0.10: E: x"]
    assert [line.text for line in fold_effects(reversed(effects), KNOWN)] == lines


def test_an_effect_on_a_target_that_is_not_bundled_keeps_its_range() -> None:
    (line,) = fold_effects([raises("vllm>=0.9,<1", "E")], KNOWN)
    assert line.text == "raises on vllm>=0.9,<1: E"


def test_what_depends_on_transformers_says_so() -> None:
    effects = [wrong("peft<0.16,transformers>=5"), unknown("peft<0.15", missing=("transformers",))]
    named, usual = "peft==0.14.0,transformers==5.23", "peft==0.14.0"

    def text(**requested: str) -> list[str]:
        return [line.text for line in fold_effects(effects, KNOWN, requested)]

    base = "silently wrong on peft <=0.15 with transformers >=5"
    told = "cannot be told on peft <=0.14{} without the release of transformers"
    assert text() == [told.format(""), base] or text() == [base, told.format("")]
    assert set(text(**{named: "5.23"})) == {f"{base} [requested]", told.format("")}
    assert set(text(**{usual: "4.48.3"})) == {base, told.format(" [requested]")}
    assert set(text(**{usual: "5.23"})) == {base, told.format(" [requested]")}


def test_targets_that_name_transformers_are_folded_by_themselves() -> None:
    named = [f"{target},transformers==5.23" for target in KNOWN[-2:]]
    assert fold([*named, KNOWN[-1]], KNOWN).count("with transformers 5.23") == 1


def test_requested_targets_are_marked() -> None:
    def text(targets: str, *requested: str) -> str:
        (line,) = fold_effects([wrong(targets)], KNOWN, {f"peft=={version}": "" for version in requested})
        assert line.requested == ("[requested" in line.text)
        return line.text

    assert text("peft>=0.6,<0.14") == "silently wrong on peft 0.6-0.13"
    assert text("peft>=0.6,<0.14", "0.21.2") == "silently wrong on peft 0.6-0.13"
    assert text("peft>=0.6,<0.14", "0.13.2", "0.21.2") == "silently wrong on peft 0.6-0.13 [requested: 0.13.2]"
    assert text("peft>=0.6,<0.14", "0.13.2") == "silently wrong on peft 0.6-0.13 [requested]"
    assert text("peft>=0.13,<0.14", *VERSIONS) == "silently wrong on peft 0.13 [requested]"
