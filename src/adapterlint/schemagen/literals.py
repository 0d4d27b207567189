"""Literal values in source text."""

from __future__ import annotations

import ast
from typing import Any

import libcst as cst


def source(node: cst.CSTNode) -> str:
    """The source text of a node."""
    return cst.Module([]).code_for_node(node)


def literal(node: cst.BaseExpression) -> Any:
    """The value of a literal, as JSON would hold it (tuples and sets are lists).

    Raises:
        ValueError: not a literal.
    """
    try:
        value = ast.literal_eval(source(node))
    except (ValueError, SyntaxError, TypeError) as error:
        raise ValueError(f"not a literal: {source(node)}") from error
    return as_json(value)


def as_json(value: Any) -> Any:
    """``value`` with tuples and sets turned into lists; a set's members are sorted by their text."""
    if isinstance(value, (set, frozenset)):
        return sorted((as_json(item) for item in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return value
