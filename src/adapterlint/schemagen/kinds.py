"""What a config field may hold, read from its annotation.

A field's type is a tuple of :class:`Kind` alternatives. They describe the value as it stands in JSON: sets and tuples
are lists, enum members are their values, and a nested dataclass is an object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import libcst as cst

from adapterlint.schemagen.literals import literal


@dataclass(frozen=True, slots=True)
class Kind:
    """One alternative of a field's type.

    Attributes:
        name: ``bool``, ``int``, ``float``, ``str``, ``null``, ``any``, ``list``, ``dict``, ``enum``, ``object`` or
            ``pattern``.
        items: what a list holds, or the values of a dict (keys are always strings); empty = anything.
        values: the literals of an ``enum``, or the regular expression of a ``pattern``.
        ref: the enum class or dataclass that an ``enum`` or ``object`` names; empty for a ``Literal``.
    """

    name: str
    items: tuple[Kind, ...] = ()
    values: tuple[Any, ...] = ()
    ref: str = ""

    def plain(self) -> Any:
        """The compact form used in ``fields.json``: a string, or an object for enums and patterns."""
        if self.name == "enum":
            return {"enum": self.ref or list(self.values)}
        if self.name == "pattern":
            return {"pattern": self.values[0]}
        if self.name == "object":
            return "dict"
        if self.items:
            return f"{self.name}[{'|'.join(str(item.plain()) for item in self.items)}]"
        return self.name


def parse_plain(value: Any) -> Kind:
    """The kind that :meth:`Kind.plain` wrote, for patches. An ``enum`` by name has no values: its user looks them up.

    Raises:
        ValueError: not a kind.
    """
    if isinstance(value, dict):
        if "pattern" in value:
            return Kind("pattern", values=(value["pattern"],))
        named = isinstance(value["enum"], str)
        return Kind("enum", ref=value["enum"]) if named else Kind("enum", values=tuple(value["enum"]))
    name, _, rest = value.partition("[")
    if name not in _NAMES:
        raise ValueError(f"not a kind: {value!r}")
    return Kind(name, items=tuple(parse_plain(item) for item in rest.removesuffix("]").split("|")) if rest else ())


NULL = Kind("null")
_NAMES = ("bool", "int", "float", "str", "null", "any", "list", "dict")
Kinds: TypeAlias = tuple[Kind, ...]
Resolve: TypeAlias = Callable[[str], Kinds]

_PLAIN = {
    "bool": "bool",
    "int": "int",
    "float": "float",
    "str": "str",
    "None": "null",
    "Any": "any",
    "object": "any",
    "dict": "dict",
    "Dict": "dict",
    "list": "list",
    "List": "list",
    "set": "list",
    "Set": "list",
    "tuple": "list",
    "Tuple": "list",
    "Sequence": "list",
}


def kinds(annotation: cst.BaseExpression, resolve: Resolve) -> Kinds:
    """The alternatives that an annotation allows, in its own order, ``null`` last.

    Args:
        annotation: the annotation's expression.
        resolve: says what a class name means that is neither a builtin nor from ``typing``.

    Raises:
        ValueError: a form that no known release uses.
    """
    found = dict.fromkeys(_alternatives(annotation, resolve))
    return tuple(kind for kind in found if kind != NULL) + ((NULL,) if NULL in found else ())


def _alternatives(node: cst.BaseExpression, resolve: Resolve) -> list[Kind]:
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.BitOr):
        return _alternatives(node.left, resolve) + _alternatives(node.right, resolve)
    if isinstance(node, cst.SimpleString):
        return _alternatives(cst.parse_expression(str(node.evaluated_value)), resolve)
    if isinstance(node, cst.Subscript):
        return _subscript(node, resolve)
    name = last_name(node)
    if not name:
        raise ValueError(f"not an annotation that is understood: {type(node).__name__}")
    return [Kind(_PLAIN[name])] if name in _PLAIN else list(resolve(name))


def _subscript(node: cst.Subscript, resolve: Resolve) -> list[Kind]:
    name = last_name(node.value)
    arguments = [element.slice.value for element in node.slice if isinstance(element.slice, cst.Index)]
    if name == "Literal":
        return [Kind("enum", values=tuple(literal(argument) for argument in arguments))]
    if name == "Annotated":
        return _alternatives(arguments[0], resolve)
    if name in ("Optional", "Union"):
        found = [kind for argument in arguments for kind in _alternatives(argument, resolve)]
        return [*found, NULL] if name == "Optional" else found
    outer = _PLAIN.get(name)
    if outer == "dict":
        return [Kind("dict", items=kinds(arguments[-1], resolve))]
    if outer == "list":
        inner = [argument for argument in arguments if not isinstance(argument, cst.Ellipsis)]
        items = dict.fromkeys(kind for argument in inner for kind in kinds(argument, resolve))
        return [Kind("list", items=tuple(items))]
    raise ValueError(f"not an annotation that is understood: {name}[...]")


def last_name(node: cst.BaseExpression) -> str:
    """``Optional`` for ``Optional`` and ``typing.Optional``; empty for what is neither a name nor an attribute."""
    if isinstance(node, cst.Name):
        return node.value
    return node.attr.value if isinstance(node, cst.Attribute) else ""
