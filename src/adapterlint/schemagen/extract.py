"""One tree of PEFT sources -> its config classes, what each peft_type selects, and its enums. Nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import libcst as cst

from adapterlint.schemagen.guards import METHODS, Guard
from adapterlint.schemagen.kinds import NULL, Kind, Kinds, kinds, last_name
from adapterlint.schemagen.literals import literal, source
from adapterlint.schemagen.modules import REGISTER, ModuleFacts, RawClass, RawField, read_module

ROOT = "peft"
_EMPTY_FACTORIES: dict[str, Any] = {"dict": {}, "list": [], "set": [], "tuple": []}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a config class, inherited ones included.

    Attributes:
        kinds: what it may hold.
        required: whether there is no default.
        default: the default as JSON holds it; None if required.
        factory: name of the ``default_factory``; a dataclass's name stands for that class's own defaults.
        help: help text, one line.
        init: whether the constructor takes it.
    """

    name: str
    annotation: str
    kinds: Kinds
    required: bool
    default: Any
    factory: str = ""
    help: str = ""
    init: bool = True


@dataclass(frozen=True, slots=True)
class ConfigClass:
    """A config dataclass with everything it inherits.

    Attributes:
        module: dotted name of the defining module.
        fields: by name, in the order of the constructor.
        peft_type: what ``__post_init__`` sets; empty for a nested config.
        guards: when its constructor, or the loading of its file, refuses a config.
    """

    name: str
    module: str
    fields: dict[str, Field]
    peft_type: str
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True, slots=True)
class Extraction:
    """What one tree says.

    Attributes:
        mapping: peft_type -> class name, the table that decides between ``KeyError`` and loading.
        classes: config classes, the nested ones that fields name included.
        enums: enum class -> its members' values, in order; those that fields name, and PeftType and TaskType.
        remarks: oddities, such as a peft_type that selects the class of another.
    """

    mapping: dict[str, str]
    classes: dict[str, ConfigClass]
    enums: dict[str, tuple[Any, ...]]
    remarks: tuple[str, ...]


def extract(tree: Mapping[str, str]) -> Extraction:
    """Read a tree of sources.

    Args:
        tree: path from the root of the sources (``peft/config.py``) -> text.

    Raises:
        ValueError: a construct that is not understood, with its place, or no mapping at all.
    """
    return _Extractor(tree).run()


class _Extractor:
    def __init__(self, tree: Mapping[str, str]) -> None:
        self.tree = tree
        self.read: dict[str, ModuleFacts] = {}
        self.classes: dict[str, ConfigClass] = {}
        self.enums: dict[str, tuple[Any, ...]] = {}
        self.remarks: list[str] = []

    @cached_property
    def paths(self) -> dict[str, str]:
        """Dotted module name -> path; a package hides a module of the same name, as it does for the interpreter."""
        found: dict[str, str] = {}
        for path in sorted(self.tree):
            if path.endswith(".py"):
                package = path.endswith("/__init__.py")
                name = path.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
                if package or name not in found:
                    found[name] = path
        return found

    def module(self, name: str) -> ModuleFacts:
        """The facts of a module; empty for one outside the tree."""
        if name not in self.read:
            self.read[name] = read_module(self.tree[self.paths[name]]) if name in self.paths else ModuleFacts()
        return self.read[name]

    def run(self) -> Extraction:
        """Everything, starting from the mapping."""
        for name in ("PeftType", "TaskType"):
            self.enum_of(name, f"{ROOT}.utils")
        mapping = {key: self.config(*place).name for key, place in self.mapped().items()}
        if not mapping:
            raise ValueError("no PEFT_TYPE_TO_CONFIG_MAPPING and no register_peft_method call: not the sources of PEFT")
        for key, name in mapping.items():
            own = self.classes[name].peft_type
            if own != key:
                self.remarks.append(f"{key} selects {name}, which sets peft_type to {own or 'nothing'}")
        return Extraction(mapping, self.classes, self.enums, tuple(self.remarks))

    def mapped(self) -> dict[str, tuple[str, str]]:
        """peft_type -> (class, module that names it). PEFT itself refuses registered names that are no PeftType."""
        mapping = {key: (name, f"{ROOT}.mapping") for key, name in self.module(f"{ROOT}.mapping").mapped.items()}
        for module, path in self.paths.items():
            if module.startswith(f"{ROOT}.tuners.") and f"{REGISTER}(" in self.tree[path]:
                registered = self.module(module).registered
                known = {key: (name, module) for key, name in registered.items() if key in self.enums["PeftType"]}
                mapping.update(known)
        return mapping

    def find(self, name: str, module: str) -> tuple[RawClass, str] | None:
        """The class that ``name`` means in ``module``, with its own module; imports are followed within the tree."""
        seen = set()
        while (name, module) not in seen:
            seen.add((name, module))
            facts = self.module(module)
            if name in facts.classes:
                return facts.classes[name], module
            if name not in facts.imports:
                return None
            written, level, name = facts.imports[name]
            module = self.absolute(module, written, level)
        return None

    def absolute(self, module: str, written: str, level: int) -> str:
        """The dotted name that ``from <written> import`` means inside ``module``."""
        if level == 0:
            return written
        parts = module.split(".")
        up = level - 1 if self.paths.get(module, "").endswith("/__init__.py") else level
        return ".".join([*parts[: len(parts) - up], *filter(None, [written])])

    def config(self, name: str, module: str) -> ConfigClass:
        """The config class that ``name`` means in ``module``, closed over its bases."""
        found = self.find(name, module)
        if found is None:
            raise ValueError(f"{module}: class {name} is not in the sources")
        raw, home = found
        known = self.classes.get(raw.name)
        if known is None:
            fields, peft_type = self.closure(raw, home)
            guards = tuple(guard for method in METHODS for guard in self.guards(raw, home, method))
            known = self.classes[raw.name] = ConfigClass(raw.name, home, fields, peft_type, guards)
        elif known.module != home:
            raise ValueError(f"two config classes are called {raw.name}: {known.module} and {home}")
        return known

    def closure(self, raw: RawClass, home: str) -> tuple[dict[str, Field], str]:
        """Fields and peft_type of a class with its bases'. A field that is declared again keeps its first place."""
        fields: dict[str, Field] = {}
        peft_type = ""
        for base in reversed(raw.bases):
            found = self.find(base, home)
            if found is not None:
                inherited, inherited_type = self.closure(*found)
                fields.update(inherited)
                peft_type = inherited_type or peft_type
        if raw.is_dataclass:
            fields.update((item.name, self.field(item, raw.name, home)) for item in raw.fields)
        return fields, raw.peft_type or peft_type

    def guards(self, raw: RawClass, home: str, method: str) -> tuple[Guard, ...]:
        """The guards of a method, the base classes' where the method is inherited or calls theirs."""
        own = raw.methods.get(method)
        inherited: tuple[Guard, ...] = ()
        if own is None or own.extends:
            found = (self.find(base, home) for base in raw.bases)
            inherited = tuple(guard for place in found if place is not None for guard in self.guards(*place, method))
        return inherited if own is None else (*inherited, *own.guards)

    def field(self, raw: RawField, owner: str, module: str) -> Field:
        """A field with its annotation and default understood."""
        try:
            found = kinds(raw.annotation, lambda name: self.named(name, module))
        except ValueError as error:
            raise ValueError(f"{module}: {owner}.{raw.name}: {error}") from error
        default, factory = self.default(raw, owner, module)
        if default is None and raw.default is not None and NULL not in found:
            found = (*found, NULL)  # PEFT writes its defaults out, whatever the annotation says
        text = " ".join(source(raw.annotation).split())
        return Field(raw.name, text, found, raw.default is None, default, factory, raw.help, raw.init)

    def default(self, raw: RawField, owner: str, module: str) -> tuple[Any, str]:
        """(default as JSON holds it, name of the factory)."""
        node = raw.default
        if node is None:
            return None, ""
        if raw.factory:
            return self.made(node, module)
        try:
            return literal(node), ""
        except ValueError:
            pass
        members = self.enum_of(last_name(node.value), module) if isinstance(node, cst.Attribute) else None
        if members is None or not isinstance(node, cst.Attribute):
            self.remarks.append(f"{module}: the default of {owner}.{raw.name} is no literal: {source(node)[:60]}")
            return None, ""
        return members[node.attr.value], ""

    def made(self, node: cst.BaseExpression, module: str) -> tuple[Any, str]:
        """What a ``default_factory`` makes: a builtin, a dataclass of the tree, or a lambda around a literal."""
        if isinstance(node, cst.Lambda):
            return literal(node.body), "lambda"
        name = last_name(node)
        if name in _EMPTY_FACTORIES:
            return _EMPTY_FACTORIES[name], name
        made = self.config(name, module)
        return {item.name: item.default for item in made.fields.values()}, name

    def named(self, name: str, module: str) -> Kinds:
        """What a name in an annotation means: an alias, an enum's values, or an object with a dataclass's fields."""
        alias = self.module(module).aliases.get(name)
        if alias is not None:
            return kinds(alias, lambda inner: self.named(inner, module))
        members = self.enum_of(name, module)
        if members is not None:
            return (Kind("enum", values=tuple(members.values()), ref=name),)
        found = self.find(name, module)
        if found is None or not found[0].is_dataclass:
            raise ValueError(f"{name} is neither an enum nor a dataclass of the sources")
        return (Kind("object", ref=self.config(name, module).name),)

    def enum_of(self, name: str, module: str) -> dict[str, Any] | None:
        """Member -> value of the enum that ``name`` means in ``module``; None if it is no enum."""
        found = self.find(name, module)
        if found is None or not any(base.endswith("Enum") for base in found[0].bases):
            return None
        members = found[0].members
        self.enums[found[0].name] = tuple(members.values())
        return members
