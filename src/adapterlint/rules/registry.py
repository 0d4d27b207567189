"""Finds every rule by walking the rule packages; nothing is listed by hand."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from functools import lru_cache

from adapterlint import rules as package
from adapterlint.rules.base import Rule, SetRule

AnyRule = Rule | SetRule

_SETS = "sets"  # the package of the rules about sets: a check of a single adapter does not import it


@lru_cache(maxsize=1)
def all_rules() -> tuple[AnyRule, ...]:
    """Every rule once, sorted by code."""
    found: dict[str, AnyRule] = {}
    every: list[AnyRule] = [*adapter_rules(), *set_rules()]
    for rule in every:
        if found.setdefault(rule.code, rule) is not rule:
            raise RuntimeError(f"two rules have the code {rule.code}")
    return tuple(found[code] for code in sorted(found))


@lru_cache(maxsize=1)
def adapter_rules() -> tuple[Rule, ...]:
    """Rules about one adapter, sorted by code."""
    folders = [name for name in _names(package.__path__[0]) if name != _SETS]
    rules = [rule for folder in folders for rule in _rules(folder) if isinstance(rule, Rule)]
    return tuple(sorted(rules, key=lambda rule: rule.code))


@lru_cache(maxsize=1)
def set_rules() -> tuple[SetRule, ...]:
    """Rules about sets, sorted by code."""
    rules = [rule for rule in _rules(_SETS) if isinstance(rule, SetRule)]
    return tuple(sorted(rules, key=lambda rule: rule.code))


def _names(directory: str) -> Iterator[str]:
    """Sub-packages of a directory. (pkgutil would do the same, and cost 3 ms at every start.)"""
    with os.scandir(directory) as entries:
        for name in sorted(entry.name for entry in entries if entry.is_dir()):
            if os.path.isfile(os.path.join(directory, name, "__init__.py")):
                yield name


def _rules(folder: str) -> Iterator[AnyRule]:
    parent = f"{package.__name__}.{folder}"
    directory = os.path.join(package.__path__[0], folder)
    for file in sorted(os.listdir(directory)):
        stem, ending = os.path.splitext(file)
        if ending == ".py" and stem != "__init__":
            module_name = f"{parent}.{stem}"
            for value in vars(importlib.import_module(module_name)).values():
                if isinstance(value, type) and issubclass(value, (Rule, SetRule)) and value.__module__ == module_name:
                    yield value()
