"""Finds every rule by walking the rule packages; nothing is listed by hand."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

from adapterlint import rules as package
from adapterlint.rules.base import Rule, SetRule

AnyRule = Rule | SetRule


@lru_cache(maxsize=1)
def all_rules() -> tuple[AnyRule, ...]:
    """Every rule once, sorted by code."""
    found: dict[str, AnyRule] = {}
    for folder in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if folder.ispkg:
            parent = importlib.import_module(folder.name)
            for info in pkgutil.iter_modules(parent.__path__, folder.name + "."):
                for rule in _rules_in(info.name):
                    if found.setdefault(rule.code, rule) is not rule:
                        raise RuntimeError(f"two rules have the code {rule.code}")
    return tuple(found[code] for code in sorted(found))


def _rules_in(module_name: str) -> list[AnyRule]:
    module = importlib.import_module(module_name)
    return [
        value()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, (Rule, SetRule)) and value.__module__ == module_name
    ]


def adapter_rules() -> tuple[Rule, ...]:
    """Rules about one adapter."""
    return tuple(rule for rule in all_rules() if isinstance(rule, Rule))


def set_rules() -> tuple[SetRule, ...]:
    """Rules about sets."""
    return tuple(rule for rule in all_rules() if isinstance(rule, SetRule))
