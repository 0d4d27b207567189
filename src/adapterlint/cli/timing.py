"""``check --timing``: what each rule costs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from adapterlint import checking
from adapterlint.rules.registry import AnyRule, adapter_rules, set_rules


@contextmanager
def timed() -> Iterator[None]:
    """Measure the rules that run inside, and print a table of what they cost on the standard error stream."""
    enough, checking.ENOUGH = checking.ENOUGH, sys.maxsize  # all in this process, where the clock is
    started = time.perf_counter()
    costs: dict[AnyRule, list[float]] = {}
    rules: list[AnyRule] = [*adapter_rules(), *set_rules()]
    for rule in rules:
        costs[rule] = []
        setattr(rule, "check", _measured(rule.check, costs[rule]))  # noqa: B010  (shadows the method, for this run)
    try:
        yield
    finally:
        checking.ENOUGH = enough
        for rule in rules:
            delattr(rule, "check")
    total = time.perf_counter() - started
    _print(costs, total)


def _measured(check: Callable[..., Any], costs: list[float]) -> Callable[..., Any]:
    def measured(subject: Any) -> list[Any]:
        started = time.perf_counter()
        try:
            return list(check(subject))
        finally:
            costs.append(time.perf_counter() - started)

    return measured


def _print(costs: dict[AnyRule, list[float]], total: float) -> None:
    ran = sorted(((sum(times), len(times), rule) for rule, times in costs.items() if times), key=lambda row: -row[0])
    inside = sum(seconds for seconds, _, _ in ran)
    click.echo(f"{'ms':>9}  {'runs':>5}  rule", err=True)
    for seconds, runs, rule in ran:
        click.echo(f"{seconds * 1000:9.2f}  {runs:5}  {rule.code} {rule.name}", err=True)
    click.echo(f"{inside * 1000:9.2f}         all rules", err=True)
    click.echo(f"{(total - inside) * 1000:9.2f}         the rest: reading, verdicts, places", err=True)
