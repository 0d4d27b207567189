"""The translation of PEFT's own refusals, against the conditions themselves, which the test runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from adapterlint.schemagen.conditions import Scope, UntranslatableError, refused_by

DEFAULTS = {"a": 1, "b": None, "c": "text", "d": []}
SCOPE = Scope(DEFAULTS, {"Kind": ("TEXT", "RANDOM")}, {"allowed": "{'x', 'y'}"})
ENVIRONMENT = {"allowed": {"x", "y"}, "Kind": ["TEXT", "RANDOM"]}
VALUES = st.sampled_from(
    [None, True, False, 0, 1, 2, 3, -1, 0.5, 1.0, "", "x", "TEXT", "text", [], ["q"], {}, {"k": 1}]
)
CONFIGS = st.dictionaries(st.sampled_from(list(DEFAULTS)), VALUES)

CONDITIONS = [
    "self.a",
    "not self.a",
    "self.b is None",
    "self.b is not None and self.a",
    "self.d and (not self.b)",
    "isinstance(self.c, str) and self.b is not None",
    "isinstance(self.d, (list, dict))",
    "self.c == 'text'",
    "self.c != 'text' or self.a",
    "self.c not in allowed",
    "self.c in ['x', 'text']",
    "self.c not in list(Kind)",
    "(self.b is not None) ^ (self.c != 'text')",
    "not (self.b is None) ^ (self.c == 'x')",
]
NUMERIC = [
    "self.a <= 0",
    "self.a > 1",
    "0 >= self.a",
    "0.0 < self.a < 1.0",
    "not 0.0 <= self.a <= 1.0",
    "self.a % 2 != 0",
    "not (self.a != 0) ^ (self.c != 'text')",
]


def holds(condition: str, config: dict[str, Any]) -> bool:
    subject = SimpleNamespace(**{**DEFAULTS, **config})
    return bool(eval(condition, {**ENVIRONMENT, "self": subject, "kwargs": config}))


def matches(condition: str, config: dict[str, Any]) -> bool:
    return Draft202012Validator(refused_by((condition,), SCOPE)).is_valid(config)


@pytest.mark.parametrize("condition", CONDITIONS)
@settings(max_examples=150, deadline=None)
@given(config=CONFIGS)
def test_a_translation_matches_what_the_condition_matches(condition: str, config: dict[str, Any]) -> None:
    if any(isinstance(config.get(name), (list, dict)) for name in "c") and " in " in condition:
        return  # unhashable in a set: Python raises, and no config holds it
    assert matches(condition, config) == holds(condition, config)


@pytest.mark.parametrize("condition", NUMERIC)
@pytest.mark.parametrize("value", [-2, -1, 0, 1, 2, 3, 0.5, 1.5, 1.0, "absent"])
def test_numeric_conditions(condition: str, value: Any) -> None:
    config = {} if value == "absent" else {"a": value}
    if "%" in condition and isinstance(value, float):
        return  # a rank is whole
    assert matches(condition, config) == holds(condition, config)


@pytest.mark.parametrize("config", [{}, {"a": None}])
@pytest.mark.parametrize("condition", ['"a" not in kwargs', '"a" in kwargs'])
def test_missing_keys(condition: str, config: dict[str, Any]) -> None:
    assert matches(condition, config) == holds(condition, config)


def test_several_conditions_must_all_hold() -> None:
    schema = Draft202012Validator(refused_by(("self.a", "self.b is None"), SCOPE))
    assert schema.is_valid({}) and not schema.is_valid({"b": 1}) and not schema.is_valid({"a": 0})


def test_truth_tells_false_from_zero_and_one() -> None:
    assert matches("self.a not in (True, False)", {"a": 1}), "1 is no flag in JSON, whatever Python says"
    assert not matches("self.a not in (True, False)", {"a": True})


@pytest.mark.parametrize(
    "condition",
    [
        "self.a > self.b",
        "self.unknown",
        "importlib.util.find_spec('scipy')",
        "self.a in TABLE",
        "self.a % self.b != 0",
        "isinstance(self.a, Other)",
        "len(self.d) == 2",
        "self.c == Kind.MISSING",
        "for item in self.d",
    ],
)
def test_what_needs_more_is_refused(condition: str) -> None:
    with pytest.raises(UntranslatableError):
        refused_by((condition,), SCOPE)


def test_nothing_is_run() -> None:
    with pytest.raises(UntranslatableError):
        refused_by(("__import__('sys').exit(3)",), SCOPE)
