"""Patterns of a config that are no regular expressions: what Python raises is what PEFT raises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rules_util import run_example

from adapterlint.model.patterns import error_in
from adapterlint.rules.examples import Example, llama_base, llama_tensors, lora_config


@pytest.mark.parametrize("pattern", ["(q_proj", "q{99999999999}", "[z-a]", ".*q_proj"])
def test_it_is_what_re_raises(pattern: str) -> None:
    raised = None
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        kind = "error" if isinstance(error, re.error) else type(error).__name__  # Python 3.13 calls it PatternError
        raised = f"{kind}: {error}"
    assert error_in(pattern) == raised


def test_a_repeat_that_is_too_large_is_a_finding(tmp_path: Path) -> None:
    example = Example("a", lora_config(target_modules="q{99999999999}"), llama_tensors(), llama_base())
    run = run_example(example, tmp_path)
    texts = [effect.exception for finding in run.findings for effect in finding.effects]
    assert run.errors == [] and "OverflowError: the repetition number is too large" in texts
