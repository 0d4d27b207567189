"""What a rule says of its fault decides which operations beyond loading the fault decides: rules of third parties."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from adapterlint import verdicts
from adapterlint.cli import new_rule
from adapterlint.findings import OPERATIONS, Damage, Effect, Finding, raises, unknown, wrong
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.report import Report
from adapterlint.reporters import json as json_reporter
from adapterlint.rules.base import Rule, SetRule
from adapterlint.rules.examples import Example, SetExample, llama_base, llama_tensors, lora_config, write_any
from adapterlint.rules.registry import all_rules, also
from adapterlint.run import Request, check

CODE = "ACME001"
RAISES = raises("peft", "ValueError: of Acme")
USUAL = {"merge", "mixed_batch", "delete", "weighted", "native"}
EVERY = set(OPERATIONS)
WORDS = get_args(Damage)


class _OfOne(Rule):
    """Finds fault with the adapter of one name."""

    code, name = CODE, "acme-fault"
    on, effect, tensor = "two", wrong(), False
    one_finding: Damage | None = None

    def check(self, subject: Subject) -> Iterator[Finding]:
        if subject.adapter.name == self.on:
            place = subject.at_tensor(next(iter(subject.adapter.tensors))) if self.tensor else subject.at_field("r")
            yield self.finding("fault", place, effects=(self.effect,), damage=self.one_finding)


class _OfSet(SetRule):
    """Finds fault with a set; the effect names an adapter."""

    code, name = CODE, "acme-fault"
    on, effect = "two", wrong()

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        effect = self.effect._replace(adapter=self.on)
        place = subject.members[0].at_field("r")
        yield self.finding("fault", place, effects=(effect,), adapters=subject.paths)


@pytest.fixture(scope="module")
def request_of_three(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """Three equal adapters: the first is active, and the second follows it once it is deleted."""
    plain = Example("plain", lora_config(), llama_tensors())
    members = {"one": plain, "two": plain, "zebra": plain}
    paths, base = write_any(SetExample("three", members, llama_base()), tmp_path_factory.mktemp("three"))
    return Request([str(path) for path in paths], ["peft==0.21.2"], str(base), "one")


def report(request: Request, base: type[Rule | SetRule], **attributes: Any) -> Report:
    """The report with a rule of these attributes."""
    with also(type("Made", (base,), attributes)()):
        return check(request)


def decided(request: Request, base: type[Rule | SetRule], **attributes: Any) -> set[str]:
    """The operations whose verdict the rule alone decides; all others are right."""
    (found,) = report(request, base, **attributes).sets
    verdict_of = {operation: found.operations[operation]["peft==0.21.2"] for operation in OPERATIONS}
    assert all(
        verdict.rules == (() if verdict.outcome.value == "loads" else (CODE,)) for verdict in verdict_of.values()
    )
    return {operation for operation, verdict in verdict_of.items() if verdict.rules}


def test_without_the_rule_every_operation_is_right(request_of_three: Request) -> None:
    assert decided(request_of_three, _OfOne, on="nobody") == set()


@pytest.mark.parametrize(
    ("damage", "if_wrong", "if_raises"),
    [
        ("model", USUAL, EVERY - {"hotswap"}),
        ("files", USUAL | {"hotswap"}, EVERY),
        ("config", USUAL, EVERY),
        ("tensors", USUAL | {"hotswap"}, EVERY - {"hotswap"}),
        ("base", USUAL - {"delete"}, EVERY - {"hotswap"}),  # right for the adapter that changed it
        ("peft_model", USUAL - {"native"}, EVERY - {"hotswap", "native"}),
        ("active", set(), set()),
    ],
)
def test_the_damage_to_an_adapter_decides(
    damage: str, if_wrong: set[str], if_raises: set[str], request_of_three: Request
) -> None:
    assert decided(request_of_three, _OfOne, damage=damage) == if_wrong
    assert decided(request_of_three, _OfOne, damage=damage, effect=RAISES) == if_raises
    assert decided(request_of_three, _OfOne, one_finding=damage) == if_wrong  # in place of the rule's


def test_every_damage_is_tried_and_documented() -> None:
    (mark,) = (mark for mark in test_the_damage_to_an_adapter_decides.pytestmark if mark.name == "parametrize")
    assert {row[0] for row in mark.args[1]} == set(WORDS)
    assert set(re.findall(r"- ``(\w+)``: ", Rule.__mro__[1].__doc__ or "")) == set(WORDS)


def test_the_damage_to_others_decides(request_of_three: Request) -> None:
    """The first adapter is the one that is deleted, and the only one that hot-swapping loads."""
    assert decided(request_of_three, _OfOne, on="one") == USUAL - {"delete"}
    assert decided(request_of_three, _OfOne, on="one", effect=RAISES) == EVERY
    assert decided(request_of_three, _OfOne, on="one", damage="base") == USUAL
    assert decided(request_of_three, _OfOne, on="zebra") == USUAL - {"delete"}
    assert decided(request_of_three, _OfOne, on="zebra", damage="base") == USUAL


def test_what_cannot_be_told_of_the_files_cannot_be_told_of_a_hot_swap(request_of_three: Request) -> None:
    assert decided(request_of_three, _OfOne, damage="files", effect=unknown()) == EVERY
    assert decided(request_of_three, _OfOne, on="one", damage="files", effect=unknown()) == EVERY
    assert decided(request_of_three, _OfOne, damage="config", effect=unknown()) == EVERY - {"hotswap"}


class _Crashing(_OfOne):
    def check(self, subject: Subject) -> Iterator[Finding]:
        raise RuntimeError(f"on {subject.adapter.name}")
        yield


class _CrashingOnSets(_OfSet):
    def check(self, subject: SetSubject) -> Iterator[Finding]:
        raise RuntimeError(f"on {subject.paths}")
        yield


@pytest.mark.parametrize("crashing", [_Crashing, _CrashingOnSets])
def test_a_crash_leaves_every_operation_unknown(crashing: type[Rule | SetRule], request_of_three: Request) -> None:
    (found,) = report(request_of_three, crashing).sets
    assert {found.operations[operation]["peft==0.21.2"].outcome.value for operation in OPERATIONS} == {"unknown"}


def test_what_is_dropped_cannot_be_saved(request_of_three: Request) -> None:
    assert decided(request_of_three, _OfOne, tensor=True) == USUAL | {"save"}
    assert decided(request_of_three, _OfOne, tensor=True, drops=False) == USUAL
    assert decided(request_of_three, _OfOne, drops=True) == USUAL | {"save"}
    assert decided(request_of_three, _OfSet, drops=True) == USUAL | {"save"}
    assert decided(request_of_three, _OfSet) == USUAL


@pytest.mark.parametrize("operation", sorted(EVERY - {"hotswap"}))
def test_a_spared_operation_is_right_unless_loading_raises(operation: str, request_of_three: Request) -> None:
    late = RAISES._replace(stage="after_load")
    everything = EVERY - {"hotswap"}
    assert decided(request_of_three, _OfOne, effect=late, spares=(operation,)) == everything - {operation}
    assert decided(request_of_three, _OfOne, effect=RAISES, spares=(operation,)) == everything
    assert decided(request_of_three, _OfOne, spares=(operation,)) == USUAL - {operation}
    assert decided(request_of_three, _OfOne, spares=(operation,), effect=unknown()) == everything


def test_a_set_rule_may_speak_of_its_first_adapter_alone(request_of_three: Request) -> None:
    assert decided(request_of_three, _OfSet, effect=RAISES, on="one") == EVERY - {"hotswap"}
    assert decided(request_of_three, _OfSet, effect=RAISES, on="one", of_first=True) == EVERY
    assert decided(request_of_three, _OfSet, effect=RAISES, on="two", of_first=True) == EVERY - {"hotswap"}
    assert decided(request_of_three, _OfSet, on="one", of_first=True) == USUAL - {"delete"}


def test_what_a_rule_claims_of_an_operation_holds_whatever_the_damage(request_of_three: Request) -> None:
    effect: Effect = wrong(operation="merge")
    for damage in WORDS:
        assert decided(request_of_three, _OfOne, damage=damage, effect=effect, spares=OPERATIONS) == {"merge"}


def test_a_report_says_nothing_of_it(request_of_three: Request) -> None:
    found = report(request_of_three, _OfOne, damage="files", drops=True, spares=("merge",))
    plain = report(request_of_three, _OfOne)
    said, usual = (json.loads(json_reporter.render(each))["findings"] for each in (found, plain))
    assert found.findings[0].finding.damage == "files"
    assert said == usual != []


def test_verdicts_know_no_rule() -> None:
    assert re.findall(r"AL\d+", Path(verdicts.__file__).read_text(encoding="utf-8")) == []


def test_the_rules_know_the_words() -> None:
    for rule in all_rules():
        assert rule.damage in WORDS, rule.code
        assert set(rule.spares) <= EVERY, rule.code
        assert rule.of_first is False or isinstance(rule, SetRule), rule.code


def test_those_who_write_rules_are_told() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs" / "howto" / "new-rule.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `\"(\w+)\"` \|", page, re.M) == list(WORDS)
    assert all(f"`{word}" in page for word in ("damage`", "drops`", "spares`", "of_first = True`"))
    assert "## Operations beyond loading\n" in page
    assert "howto/new-rule/#operations-beyond-loading" in new_rule._RULE
