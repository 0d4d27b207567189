"""What one Python file says: its imports, dataclasses and enums, and which config class it gives to which peft_type."""

# libcst calls its visits by the names of its nodes.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import libcst as cst

from adapterlint.schemagen.guards import METHODS, GuardedMethod, read_method
from adapterlint.schemagen.kinds import last_name
from adapterlint.schemagen.literals import literal

CONFIG_MAPPING = "PEFT_TYPE_TO_CONFIG_MAPPING"
REGISTER = "register_peft_method"


@dataclass(frozen=True, slots=True)
class RawField:
    """A dataclass field as written, nothing resolved.

    Attributes:
        default: the default's expression; None if there is none.
        factory: whether ``default`` is a ``default_factory``.
        help: the text under ``metadata["help"]``.
        init: whether ``__init__`` accepts it.
    """

    name: str
    annotation: cst.BaseExpression
    default: cst.BaseExpression | None
    factory: bool
    help: str
    init: bool


@dataclass(slots=True)
class RawClass:
    """A class as written.

    Attributes:
        is_dataclass: whether it has the decorator; without it, annotations are no fields.
        peft_type: the last ``peft_type`` set in ``__post_init__`` or as a class attribute; empty if there is none.
        members: ``NAME = literal`` assignments, which an enum's members are.
        methods: the methods that may refuse a config, by name.
    """

    name: str
    bases: list[str]
    is_dataclass: bool
    fields: list[RawField] = field(default_factory=list)
    peft_type: str = ""
    members: dict[str, object] = field(default_factory=dict)
    methods: dict[str, GuardedMethod] = field(default_factory=dict)


@dataclass(slots=True)
class ModuleFacts:
    """All that is known of one file.

    Attributes:
        imports: local name -> (module as written, relative level, name there).
        mapped: peft_type -> config class, from the mapping's display.
        registered: the same from calls of ``register_peft_method``.
        aliases: module-level names for a type, such as ``Variant = Literal["a", "b"]``.
    """

    imports: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    classes: dict[str, RawClass] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    registered: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, cst.BaseExpression] = field(default_factory=dict)


def read_module(text: str) -> ModuleFacts:
    """Parse one file.

    Raises:
        libcst.ParserSyntaxError: not Python.
    """
    facts = ModuleFacts()
    cst.parse_module(text).visit(_Visitor(facts))
    return facts


class _Visitor(cst.CSTVisitor):
    def __init__(self, facts: ModuleFacts) -> None:
        super().__init__()
        self.facts = facts
        self.open: list[RawClass] = []

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        name = node.name.value
        if self.open and name in METHODS:
            self.open[-1].methods[name] = read_method(node)
        return bool(self.open) and name == "__post_init__"

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        if isinstance(node.names, cst.ImportStar):
            return
        module = _dotted(node.module)
        for alias in node.names:
            name = _dotted(alias.name)
            local = _dotted(alias.asname.name) if alias.asname else name
            self.facts.imports[local] = (module, len(node.relative), name)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        decorators = (item.decorator for item in node.decorators)
        names = {last_name(item.func if isinstance(item, cst.Call) else item) for item in decorators}
        bases = [last_name(item.value) for item in node.bases]
        self.open.append(RawClass(node.name.value, [base for base in bases if base], "dataclass" in names))

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        found = self.open.pop()
        self.facts.classes[found.name] = found

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if isinstance(node.target, cst.Name):
            if self.open:
                _class_annotation(self.open[-1], node, node.target.value)
            elif node.target.value == CONFIG_MAPPING and node.value is not None:
                self.facts.mapped.update(_mapping(node.value))

    def visit_Assign(self, node: cst.Assign) -> None:
        target = node.targets[0].target
        if self.open:
            _class_assignment(self.open[-1], target, node.value)
        elif isinstance(target, cst.Name) and target.value == CONFIG_MAPPING:
            self.facts.mapped.update(_mapping(node.value))
        elif isinstance(target, cst.Name) and isinstance(node.value, cst.Subscript):
            self.facts.aliases[target.value] = node.value

    def visit_Call(self, node: cst.Call) -> None:
        if not self.open and last_name(node.func) == REGISTER:
            given = _keywords(node.args)
            self.facts.registered[str(literal(given["name"])).upper()] = last_name(given["config_cls"])


def _class_annotation(owner: RawClass, node: cst.AnnAssign, name: str) -> None:
    annotation = node.annotation.annotation
    head = annotation.value if isinstance(annotation, cst.Subscript) else annotation
    if last_name(head) not in ("ClassVar", "InitVar"):
        owner.fields.append(_field(name, annotation, node.value))


def _class_assignment(owner: RawClass, target: cst.BaseExpression, value: cst.BaseExpression) -> None:
    own_attribute = isinstance(target, cst.Attribute) and last_name(target.value) == "self"
    if last_name(target) == "peft_type" and (own_attribute or isinstance(target, cst.Name)):
        owner.peft_type = member_name(value)
    elif isinstance(target, cst.Name):
        try:
            owner.members[target.value] = literal(value)
        except ValueError:
            return


def _field(name: str, annotation: cst.BaseExpression, value: cst.BaseExpression | None) -> RawField:
    if not (isinstance(value, cst.Call) and last_name(value.func) == "field"):
        return RawField(name, annotation, value, False, "", True)
    given = _keywords(value.args)
    factory = "default_factory" in given
    default = given["default_factory"] if factory else given.get("default")
    init = "init" not in given or bool(literal(given["init"]))
    return RawField(name, annotation, default, factory, _help(given.get("metadata")), init)


def _help(metadata: cst.BaseExpression | None) -> str:
    """The text under ``"help"`` in one line; parts that are no literal are left out."""
    if not isinstance(metadata, cst.Dict):
        return ""
    for element in metadata.elements:
        if isinstance(element, cst.DictElement) and _text(element.key) == "help":
            return " ".join(_text(element.value).split())
    return ""


def _text(node: cst.BaseExpression) -> str:
    if isinstance(node, cst.ConcatenatedString):
        return _text(node.left) + _text(node.right)
    if isinstance(node, cst.BinaryOperation):
        return _text(node.left) + _text(node.right)
    if isinstance(node, cst.Tuple):  # a comma too many in some of PEFT's
        return " ".join(_text(element.value) for element in node.elements)
    return str(node.evaluated_value) if isinstance(node, cst.SimpleString) else ""


def _mapping(node: cst.BaseExpression) -> dict[str, str]:
    elements: Sequence[cst.BaseDictElement] = node.elements if isinstance(node, cst.Dict) else ()
    return {member_name(item.key): last_name(item.value) for item in elements if isinstance(item, cst.DictElement)}


def member_name(node: cst.BaseExpression) -> str:
    """``LORA`` for ``PeftType.LORA``, ``PeftType("LORA")``, ``PeftType["LORA"]`` and ``"LORA"``; else empty."""
    if isinstance(node, cst.SimpleString):
        return str(node.evaluated_value)
    if isinstance(node, cst.Attribute):
        return last_name(node.value) if node.attr.value in ("value", "name") else node.attr.value
    if isinstance(node, cst.Call) and node.args:
        return member_name(node.args[0].value)
    if isinstance(node, cst.Subscript) and isinstance(node.slice[0].slice, cst.Index):
        return member_name(node.slice[0].slice.value)
    return ""


def _keywords(arguments: Sequence[cst.Arg]) -> dict[str, cst.BaseExpression]:
    return {item.keyword.value: item.value for item in arguments if item.keyword is not None}


def _dotted(node: cst.BaseExpression | cst.AsName | Literal[""] | None) -> str:
    if isinstance(node, cst.Attribute):
        return f"{_dotted(node.value)}.{node.attr.value}"
    return node.value if isinstance(node, cst.Name) else ""
