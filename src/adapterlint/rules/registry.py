"""Finds every rule by walking the rule packages; nothing is listed by hand. Plugins add theirs when configured."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from adapterlint import rules as package
from adapterlint.rules.base import Rule, RunRule, SetRule

AnyRule = Rule | SetRule | RunRule

# Packages of rules that a check of a single adapter, without ignores and baseline, does not import.
_SETS = "sets"
_RUN = "internal"

_plugins: tuple[Rule | SetRule, ...] = ()
_extra: tuple[Rule | SetRule, ...] = ()


def activate(plugins: Sequence[str]) -> None:
    """Use the rules of these plugins, beside the own ones, and of no others.

    Args:
        plugins: names of entry points in the group ``adapterlint.rules``.

    Raises:
        PluginError: one is not installed, cannot be imported, or has a rule that may not be.
    """
    global _plugins
    if not plugins and not _plugins:
        return
    found: tuple[Rule | SetRule, ...] = ()
    if plugins:
        from adapterlint.rules.plugins import load

        own = [(rule.code, rule.name) for folder in _names(package.__path__[0]) for rule in _rules(folder)]
        found = load(tuple(plugins), tuple(own))
    if found != _plugins:
        _plugins = found
        _forget()


def _forget() -> None:
    for cached in (all_rules, adapter_rules, set_rules):
        cached.cache_clear()


@contextmanager
def also(rule: AnyRule) -> Iterator[None]:
    """Run this rule as well, if it is not one of those that are run; for tests of rules that are not installed."""
    global _extra
    before = _extra
    if isinstance(rule, (Rule, SetRule)) and all(known.code != rule.code for known in all_rules()):
        _extra = (*_extra, rule)
        _forget()
    try:
        yield
    finally:
        if _extra != before:
            _extra = before
            _forget()


@lru_cache(maxsize=1)
def all_rules() -> tuple[AnyRule, ...]:
    """Every rule once, sorted by code."""
    found: dict[str, AnyRule] = {}
    every: list[AnyRule] = [*adapter_rules(), *set_rules(), *run_rules()]
    for rule in every:
        if found.setdefault(rule.code, rule) is not rule:
            raise RuntimeError(f"two rules have the code {rule.code}")
    return tuple(found[code] for code in sorted(found))


@lru_cache(maxsize=1)
def adapter_rules() -> tuple[Rule, ...]:
    """Rules about one adapter, sorted by code."""
    folders = [name for name in _names(package.__path__[0]) if name not in (_SETS, _RUN)]
    rules = [rule for folder in folders for rule in _rules(folder) if isinstance(rule, Rule)]
    rules += [rule for rule in (*_plugins, *_extra) if isinstance(rule, Rule)]
    return tuple(sorted(rules, key=lambda rule: rule.code))


@lru_cache(maxsize=1)
def set_rules() -> tuple[SetRule, ...]:
    """Rules about sets, sorted by code."""
    rules = [rule for rule in _rules(_SETS) if isinstance(rule, SetRule)]
    rules += [rule for rule in (*_plugins, *_extra) if isinstance(rule, SetRule)]
    return tuple(sorted(rules, key=lambda rule: rule.code))


@lru_cache(maxsize=1)
def run_rules() -> tuple[RunRule, ...]:
    """Rules about ignores and baseline, sorted by code."""
    return tuple(sorted((rule for rule in _rules(_RUN) if isinstance(rule, RunRule)), key=lambda rule: rule.code))


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
                if (
                    isinstance(value, type)
                    and issubclass(value, (Rule, SetRule, RunRule))
                    and value.__module__ == module_name
                ):
                    yield value()
