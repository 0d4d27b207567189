"""Rules of third parties, from entry points in the group ``adapterlint.rules``; nothing is loaded that is not named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from adapterlint.errors import UserError
from adapterlint.findings import PREFIX
from adapterlint.rules.base import Rule, SetRule

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "adapterlint.rules"
_CODE = re.compile(r"[A-Z]{2,8}\d{2,4}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class PluginError(UserError):
    """A plugin that cannot be used; the text names it and the cause."""


@lru_cache(maxsize=8)
def load(names: tuple[str, ...], taken: tuple[tuple[str, str], ...]) -> tuple[Rule | SetRule, ...]:
    """The rules of plugins.

    Args:
        names: of entry points.
        taken: code and name of every rule that there is already.

    Raises:
        PluginError: one is not installed, cannot be imported, or has a rule that may not be.
    """
    from importlib.metadata import entry_points

    installed: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        installed.setdefault(point.name, []).append(point)
    known = dict(taken)
    rules: list[Rule | SetRule] = []
    for name in dict.fromkeys(names):
        if name not in installed:
            there = f"installed are {', '.join(sorted(installed))}" if installed else "none is installed"
            raise PluginError(f"there is no plugin {name!r}: {there} (entry points in the group {GROUP})")
        label = " and ".join(_label(point) for point in installed[name])
        if len(installed[name]) > 1:
            raise PluginError(f"two distributions have a plugin of one name: {label}")
        found = _found(installed[name][0], label)
        if not found:
            raise PluginError(f"{label} has no rules: it must be a rule, a list of rules or a module that defines them")
        for rule in found:
            problem = refusal(getattr(rule, "code", ""), getattr(rule, "name", ""), known)
            if problem:
                raise PluginError(f"{label}: rule {type(rule).__name__}: {problem}")
            known[rule.code] = rule.name
            rules.append(rule)
    return tuple(rules)


def _label(point: EntryPoint) -> str:
    distribution = point.dist.name if point.dist else "an unknown distribution"
    return f"plugin {point.name!r} ({point.value}, of {distribution})"


def _found(point: EntryPoint, label: str) -> list[Rule | SetRule]:
    """The rules of an entry point; whatever its code raises is an error of the plugin."""
    try:
        value = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"{label} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        return list(_rules(value))
    except (Exception, SystemExit) as error:
        raise PluginError(f"{label}: a rule cannot be made: {type(error).__name__}: {error}") from error


def _rules(value: Any) -> Iterator[Rule | SetRule]:
    """The rules in what an entry point names: a rule, a list of them, or a module that defines them."""
    if isinstance(value, ModuleType):
        defined = [item for item in vars(value).values() if getattr(item, "__module__", "") == value.__name__]
        yield from (item() for item in defined if _is_rule(item))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _rules(item)
    elif _is_rule(value):
        yield value()


def _is_rule(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, (Rule, SetRule)) and value not in (Rule, SetRule)


def refusal(code: object, name: object, known: Mapping[str, str]) -> str | None:
    """Why a rule with this code and name cannot stand beside those that are known, code -> name; None if it can."""
    if not _CODE.fullmatch(str(code)) or not _NAME.fullmatch(str(name)):
        return f"it needs a code such as ACME001 and a kebab-case name, not {code!r} and {name!r}"
    if str(code).startswith(PREFIX):
        return f"codes that begin with {PREFIX} are reserved, {code!r} needs another prefix"
    if code in known or name in known.values():
        return f"there is a rule {code} or {name} already; it needs a code and a name of its own"
    return None
