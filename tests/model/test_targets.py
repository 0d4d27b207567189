"""Texts of targets, with and without a release of transformers, and which effects hold for them."""

from __future__ import annotations

import pytest

from adapterlint.findings import Finding, Location, Severity, inert, raises, unknown
from adapterlint.model.target import Target, TargetError, alongside, bundled, resolve
from adapterlint.releases import covers, parts_of
from adapterlint.verdicts import verdict, with_severity


def only(text: str) -> Target:
    (target,) = resolve((text,))
    return target


def test_a_target_names_transformers_or_has_that_of_its_time() -> None:
    plain, named = only("peft==0.18.1"), only("peft==0.18.1, transformers==5.23")
    assert (str(plain), plain.transformers, plain.named) == ("peft==0.18.1", "4.57.1", False)
    assert (str(named), named.transformers, named.named) == ("peft==0.18.1,transformers==5.23", "5.23", True)
    assert only("peft==0.8.2").transformers == "4.36.2" and only("peft==0.14.0").transformers == "4.48.3"


def test_what_was_measured_says_so() -> None:
    assert only("peft==0.18.1,transformers==5.23.0").evidence == "measured"
    assert only("peft==0.18.1,transformers==5.2").evidence == "interpolated"


def test_releases_that_cannot_be_imported_together_are_no_targets() -> None:
    found = [target.version for target in resolve(("peft>=0.15,<0.19,transformers==5.23",))]
    assert found == ["0.15.0", "0.15.1", "0.15.2", "0.18.0", "0.18.1"]
    with pytest.raises(TargetError, match=r"0\.17\.1 cannot be imported with transformers 5\.23; it needs .*<5"):
        resolve(("peft==0.17.1,transformers==5.23",))
    with pytest.raises(TargetError, match=r"it needs transformers>=4\.43"):
        resolve(("peft==0.14.0,transformers==4.40",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("peft,transformers>=5", "one release of transformers"),
        ("peft,transformers==5", "one release of transformers"),
        ("peft,transformers", "one release of transformers"),
        ("peft,transformers==5.999", "known: 4.36.2 to 5.23.0"),
        ("peft,transformers==4.30", "known: 4.36.2 to 5.23.0"),
        ("peft==9.9,transformers==5.23", "no bundled release"),
        ("transformers==5.23", "knows peft only"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        resolve((text,))


def test_both_kinds_in_one_run() -> None:
    found = resolve(
        ("peft>=0.20,<0.21,transformers==5.23", "peft==0.21.2", "peft,transformers==4.57.1", "peft==0.21.2")
    )
    named = "peft==0.21.2,transformers==4.57.1", "peft==0.20.0,transformers==5.23"
    assert [str(target) for target in found] == ["peft==0.21.2", *named]


def test_the_releases_beside_the_targets() -> None:
    assert alongside(resolve(("peft",))) == bundled()
    named = alongside(resolve(("peft>=0.20,transformers==5.23",)))
    assert {target.transformers for target in named} == {"5.23"} and len(named) < len(bundled())
    assert alongside(resolve(("peft==0.20.0,transformers==5.23", "peft"))) == bundled()


def test_ranges_may_speak_of_transformers() -> None:
    assert parts_of("peft>=0.6,<0.14,transformers>=5,<5.16") == ("peft>=0.6,<0.14", "transformers>=5,<5.16")
    span = "peft>=0.16,transformers>=4.52,<5"
    assert covers(span, "peft", "0.17.1", "4.57.1") and not covers(span, "peft", "0.17.1", "5.0.0")
    assert not covers(span, "peft", "0.15.2", "4.57.1") and not covers(span, "peft", "0.17.1")


def finding(*effects: object) -> Finding:
    return Finding("AL000", "example", "message", Location("a"), Severity.NOTE, effects=tuple(effects))  # type: ignore[arg-type]


def outcome(text: str, *effects: object) -> str:
    return verdict([finding(*effects)], only(text), scope="alone", has_base=True).outcome.value


def test_transformers_of_its_time_decides_where_none_is_named() -> None:
    effect = raises("peft,transformers>=4.52", "TypeError")
    assert [outcome(text, effect) for text in ("peft==0.14.0", "peft==0.15.2")] == ["loads", "raises"]
    assert outcome("peft==0.14.0,transformers==4.57.1", effect) == "raises"
    assert outcome("peft==0.21.2,transformers==4.48.3", effect) == "loads"


def test_what_cannot_be_told_without_it_can_be_told_with_it() -> None:
    effects = unknown("peft>=0.15", missing=("transformers",)), inert("peft,transformers>=4.52")
    assert outcome("peft==0.17.1", *effects) == "unknown"
    assert outcome("peft==0.17.1,transformers==4.57.1", *effects) == "wrong"
    assert outcome("peft==0.17.1,transformers==4.48.3", *effects) == "loads"


def test_severity_is_for_the_release_that_is_named() -> None:
    item = finding(raises("peft,transformers>=5", "TypeError"))
    five, usual = resolve(("peft,transformers==5.23",)), resolve(("peft",))
    kept = with_severity(item, five, True)
    assert kept is not None and kept.severity is Severity.ERROR
    assert with_severity(item, usual, True) is None
