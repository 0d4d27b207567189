"""Conditions of PEFT's own refusals -> JSON Schema fragments that match the configs they refuse.

The language is small: comparisons of one field with a literal, truth, ``isinstance``, membership, ``and``, ``or``,
``not`` and ``^``. A key that is absent counts with the field's default. What needs more (two fields compared, the
environment asked) is left to ``patches/guards.json``. The texts are parsed, never run.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapterlint.schemagen.literals import as_json

Schema = dict[str, Any]
Test = Callable[[Any], bool]

_FALSE: list[Any] = [False, None, 0, "", [], {}]
_JSON_TYPES: dict[str, tuple[str, type]] = {
    "str": ("string", str),
    "list": ("array", list),
    "set": ("array", list),
    "tuple": ("array", list),
    "dict": ("object", dict),
    "bool": ("boolean", bool),
    "int": ("integer", int),
    "float": ("number", float),
}
_BOUNDS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("exclusiveMaximum", operator.lt),
    ast.LtE: ("maximum", operator.le),
    ast.Gt: ("exclusiveMinimum", operator.gt),
    ast.GtE: ("minimum", operator.ge),
}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}


class UntranslatableError(ValueError):
    """The condition is outside the small language."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What names in a condition mean.

    Attributes:
        defaults: field -> default as JSON holds it.
        enums: enum class -> values of its members.
        names: local names with the source text of their literals.
    """

    defaults: Mapping[str, Any]
    enums: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def refused_by(conditions: tuple[str, ...], scope: Scope) -> Schema:
    """A schema that matches exactly the objects for which all conditions hold.

    Raises:
        UntranslatableError: a condition needs more than this language.
    """
    parts = [_translate(_parse(condition), scope) for condition in conditions]
    return parts[0] if len(parts) == 1 else {"allOf": parts}


def _parse(condition: str) -> ast.expr:
    try:
        return ast.parse(condition, mode="eval").body
    except SyntaxError as error:
        raise UntranslatableError(condition) from error


def _translate(node: ast.expr, scope: Scope) -> Schema:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return {"allOf": [_translate(value, scope) for value in values]}
        case ast.BoolOp(op=ast.Or(), values=values):
            return {"anyOf": [_translate(value, scope) for value in values]}
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return {"not": _translate(operand, scope)}
        case ast.BinOp(op=ast.BitXor(), left=left, right=right):
            return {"oneOf": [_translate(left, scope), _translate(right, scope)]}
        case ast.Compare(comparators=comparators) if len(comparators) > 1:
            return {"allOf": [_translate(part, scope) for part in _links(node)]}
        case ast.Compare():
            return _comparison(node, scope)
        case ast.Call(func=ast.Name(id="isinstance"), args=[subject, ast.expr() as kind]):
            return _about(subject, scope, *_instance(kind))
        case ast.Attribute():
            return _about(node, scope, {"not": {"enum": _FALSE}}, bool)
    raise UntranslatableError(ast.unparse(node))


def _links(node: ast.Compare) -> list[ast.Compare]:
    operands = [node.left, *node.comparators]
    return [ast.Compare(operands[i], [op], [operands[i + 1]]) for i, op in enumerate(node.ops)]


def _about(subject: ast.expr, scope: Scope, schema: Schema, test: Test) -> Schema:
    """``schema`` for the field that ``subject`` names, the default standing in for an absent key."""
    match subject:
        case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in scope.defaults:
            about: Schema = {"properties": {name: schema}}
            return about if test(scope.defaults[name]) else {**about, "required": [name]}
    raise UntranslatableError(ast.unparse(subject))


def _instance(kind: ast.expr) -> tuple[Schema, Test]:
    elements = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    names = [element.id if isinstance(element, ast.Name) else "" for element in elements]
    if not all(name in _JSON_TYPES for name in names):
        raise UntranslatableError(ast.unparse(kind))
    types = sorted({_JSON_TYPES[name][0] for name in names})
    classes = tuple(_JSON_TYPES[name][1] for name in names)
    return {"type": types if len(types) > 1 else types[0]}, lambda value: isinstance(value, classes)


def _comparison(node: ast.Compare, scope: Scope) -> Schema:
    left, compare, right = node.left, node.ops[0], node.comparators[0]
    if isinstance(right, ast.Name) and right.id == "kwargs" and isinstance(left, ast.Constant):
        present: Schema = {"required": [left.value]}
        return {"not": present} if isinstance(compare, ast.NotIn) else present
    if isinstance(left, ast.Constant) and type(compare) in _MIRRORED:
        left, compare, right = right, _MIRRORED[type(compare)](), left
    if isinstance(left, ast.BinOp) and isinstance(left.op, ast.Mod):
        return _remainder(left, compare, right, scope)
    value = _value(right, scope)
    if type(compare) in _BOUNDS:
        return _about(left, scope, *_bound(type(compare), value))
    if isinstance(compare, (ast.In, ast.NotIn)):
        schema, test = _member(value)
        return _negated_if(isinstance(compare, ast.NotIn), left, scope, schema, test)
    if isinstance(compare, (ast.Eq, ast.NotEq, ast.Is, ast.IsNot)):
        schema, test = _equal(value)
        return _negated_if(isinstance(compare, (ast.NotEq, ast.IsNot)), left, scope, schema, test)
    raise UntranslatableError(ast.unparse(node))


def _negated_if(negate: bool, left: ast.expr, scope: Scope, schema: Schema, test: Test) -> Schema:
    if negate:
        return _about(left, scope, {"not": schema}, lambda value: not test(value))
    return _about(left, scope, schema, test)


def _bound(compare: type[ast.cmpop], limit: Any) -> tuple[Schema, Test]:
    keyword, holds = _BOUNDS[compare]
    return {"type": "number", keyword: limit}, lambda value: isinstance(value, (int, float)) and holds(value, limit)


def _member(values: Any) -> tuple[Schema, Test]:
    if not isinstance(values, list):
        raise UntranslatableError(f"in {values!r}")
    return {"enum": values}, lambda value: any(_same(value, item) for item in values)


def _equal(expected: Any) -> tuple[Schema, Test]:
    return ({"type": "null"} if expected is None else {"const": expected}), lambda value: _same(value, expected)


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _remainder(left: ast.BinOp, compare: ast.cmpop, right: ast.expr, scope: Scope) -> Schema:
    match left.right, right:
        case ast.Constant(value=int(divisor)), ast.Constant(value=0) if isinstance(compare, (ast.Eq, ast.NotEq)):
            whole: Schema = {"type": "integer", "multipleOf": divisor}
            test: Test = lambda value: isinstance(value, int) and value % divisor == 0  # noqa: E731
            return _negated_if(isinstance(compare, ast.NotEq), left.left, scope, whole, test)
    raise UntranslatableError(ast.unparse(left))


def _value(node: ast.expr, scope: Scope) -> Any:
    """The literal that an operand stands for: written out, a local name, an enum's member, or ``list`` of an enum."""
    match node:
        case ast.Name(id=name) if name in scope.names:
            return _value(_parse(scope.names[name]), scope)
        case ast.Call(func=ast.Name(id="list" | "set"), args=[ast.Name(id=name)]) if name in scope.enums:
            return list(scope.enums[name])
        case ast.Attribute(value=ast.Name(id=name), attr=member) if member in scope.enums.get(name, ()):
            return member
    try:
        return as_json(ast.literal_eval(node))
    except ValueError as error:
        raise UntranslatableError(ast.unparse(node)) from error
