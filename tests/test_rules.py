"""Every rule, from its own file: words, examples, and that no example of any rule crashes another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapterlint.rules.registry import AnyRule, all_rules
from adapterlint.testing import Case, rule_cases
from adapterlint.verdicts import INTERNAL_ERROR

# No input makes a rule of ours fail, so that the rule about failing rules has no example.
CASES = [case for case in rule_cases(*all_rules()) if (case.rule.code, case.kind) != (INTERNAL_ERROR, "words")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case: Case, tmp_path: Path) -> None:
    case.run(tmp_path)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)
def test_own_codes(rule: AnyRule) -> None:
    assert re.fullmatch(r"AL\d{3}", rule.code)


def test_names_and_codes_are_unique() -> None:
    rules = all_rules()
    assert len({rule.code for rule in rules}) == len({rule.name for rule in rules}) == len(rules)
