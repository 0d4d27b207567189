"""The refusals in ``__post_init__`` and ``check_kwargs``: under which conditions a config class raises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import libcst as cst

from adapterlint.schemagen.literals import literal, source

METHODS = ("__post_init__", "check_kwargs")


@dataclass(frozen=True, slots=True)
class Guard:
    """One ``raise`` and the conditions that lead to it.

    Attributes:
        conditions: source texts, all of which must hold; a branch not taken stands as ``not (...)``.
        exception: name of the exception's class.
        names: local names that the conditions may use, with the literals they stand for.
    """

    conditions: tuple[str, ...]
    exception: str
    names: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The conditions in one line, which is also how ``patches/guards.json`` refers to them."""
        return " && ".join(self.conditions)


@dataclass(frozen=True, slots=True)
class GuardedMethod:
    """The guards of one method.

    Attributes:
        extends: whether the method calls its base class's.
    """

    guards: tuple[Guard, ...]
    extends: bool


def read_method(node: cst.FunctionDef) -> GuardedMethod:
    """The guards of a ``__post_init__`` or ``check_kwargs``. What a loop raises is under the loop's own text."""
    name = node.name.value
    statements = list(_statements(node.body))
    literals = tuple(dict(_literals(statements)).items())
    guards = tuple(Guard(conditions, exception, literals) for conditions, exception in _raises(statements, ()))
    return GuardedMethod(guards, f"super().{name}(" in source(node.body))


def _statements(block: cst.BaseSuite) -> Iterator[cst.CSTNode]:
    for statement in block.body:
        if isinstance(statement, cst.SimpleStatementLine):
            yield from statement.body
        else:
            yield statement


def _literals(statements: Sequence[cst.CSTNode]) -> Iterator[tuple[str, str]]:
    """Assignments of a literal to a local name, at the top of the function."""
    for statement in statements:
        if isinstance(statement, cst.Assign) and isinstance(statement.targets[0].target, cst.Name):
            try:
                literal(statement.value)
            except ValueError:
                continue
            yield statement.targets[0].target.value, one_line(statement.value)


def _raises(statements: Sequence[Any], conditions: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for statement in statements:
        if isinstance(statement, cst.Raise) and statement.exc is not None:
            call = statement.exc.func if isinstance(statement.exc, cst.Call) else statement.exc
            yield conditions, source(call)
        elif isinstance(statement, cst.If):
            yield from _branches(statement, conditions)
        elif isinstance(getattr(statement, "body", None), cst.BaseSuite):
            head = one_line(statement).partition(":")[0]
            yield from _raises(list(_statements(statement.body)), (*conditions, head))


def _branches(statement: cst.If, conditions: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    test = one_line(statement.test)
    yield from _raises(list(_statements(statement.body)), (*conditions, test))
    otherwise = (*conditions, f"not ({test})")
    if isinstance(statement.orelse, cst.If):
        yield from _branches(statement.orelse, otherwise)
    elif isinstance(statement.orelse, cst.Else):
        yield from _raises(list(_statements(statement.orelse.body)), otherwise)


def one_line(node: cst.CSTNode) -> str:
    """Source text with runs of white space made one blank, and none inside brackets' ends."""
    text = " ".join(source(node).split())
    return text.replace("( ", "(").replace(" )", ")").replace("[ ", "[").replace(" ]", "]")
