"""Values of a configuration file, checked and brought into the form that the program uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from adapterlint.config.errors import ConfigError
from adapterlint.config.files import File
from adapterlint.config.find import shown
from adapterlint.config.keys import IGNORE_FIELDS, Field, Key
from adapterlint.errors import nearest, no_rule
from adapterlint.ignores import Ignore, PathIgnore, Pattern
from adapterlint.model.target import TargetError, resolve
from adapterlint.suppress import names_rule

Known = Callable[[], Iterable[tuple[str, str]]]
"""Code and name of every rule that there is; called only if a file names rules."""


def convert(file: File, key: Key, known: Known) -> Any:
    """The value of a key in a file.

    Raises:
        ConfigError: it is of another kind, or names what there is not; the text names file and line.
    """
    return _Reader(file, known).value(key)


class _Reader:
    def __init__(self, file: File, known: Known) -> None:
        self._file = file
        self._known = known

    def value(self, key: Key) -> Any:
        raw = self._file.values[key.name]
        if key.kind == "path":
            return self._path(raw, key.name)
        if key.kind == "choice":
            return self._choice(raw, key.choices, key.name)
        if key.kind == "sets":
            return self._sets(raw, key)
        if key.kind == "path-ignores":
            return self._path_ignores(raw, key.name)
        if key.kind == "ignores":
            return self._ignores(raw, key.name)
        return self._texts(raw, key)

    def _wrong(self, message: str, *keys: str | int) -> NoReturn:
        raise ConfigError(f"{self._file.where(*keys)}: {message}")

    # -- texts ---------------------------------------------------------------------------------------------------

    def _texts(self, raw: Any, key: Key) -> tuple[str, ...]:
        items = self._list(raw, key.name)
        for number, item in enumerate(items):
            if key.kind == "codes":
                self._rule(item, key.name, number)
            elif key.kind == "choices":
                self._choice(item, key.choices, key.name, number)
            elif key.name == "targets":
                self._target(item, key.name, number)
        return items

    def _list(self, raw: Any, *keys: str | int) -> tuple[str, ...]:
        if isinstance(raw, str):
            self._wrong(f"{keys[-1]} takes a list: [{_quoted(raw)}]", *keys)
        if isinstance(raw, list) and any(isinstance(item, dict) for item in raw) and keys == ("ignore",):
            self._wrong("ignore takes a list of rules; entries with a reason belong in [[ignores]]", *keys)
        if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
            self._wrong(f"{keys[-1]} takes a list of texts, not {_kind(raw)}", *keys)
        return tuple(raw)

    def _text(self, raw: Any, *keys: str | int) -> str:
        if not isinstance(raw, str) or not raw.strip():
            self._wrong(f"{keys[-1]} takes a text, not {_kind(raw)}", *keys)
        return str(raw)

    def _rule(self, item: str, *keys: str | int) -> None:
        rules = list(self._known())
        if not any(names_rule(item, *rule) for rule in rules):
            self._wrong(f"{_quoted(item)} {no_rule(item, rules)}", *keys)

    def _choice(self, raw: Any, choices: Sequence[str], *keys: str | int) -> str:
        if not isinstance(raw, str) or raw not in choices:
            hint = nearest(raw, choices) if isinstance(raw, str) else ""
            name = next(key for key in keys if isinstance(key, str))
            self._wrong(f"{name} takes {_or(choices)}, not {_shown(raw)}{hint}", *keys)
        return str(raw)

    def _target(self, item: str, *keys: str | int) -> None:
        try:
            resolve((item,))
        except TargetError as error:
            self._wrong(str(error), *keys)

    # -- paths ---------------------------------------------------------------------------------------------------

    def _path(self, raw: Any, *keys: str | int) -> str:
        return shown(os.path.join(self._file.root, os.path.expanduser(self._text(raw, *keys))))

    def _pattern(self, raw: Any, *keys: str | int) -> Pattern:
        text = os.path.expanduser(self._text(raw, *keys))
        return Pattern(os.path.relpath(text, self._file.root) if os.path.isabs(text) else text, self._file.root)

    def _sets(self, raw: Any, key: Key) -> str | tuple[tuple[Pattern, ...], ...]:
        if not isinstance(raw, list):
            return self._choice(raw, key.choices, key.name)
        if not raw or not all(isinstance(item, list) and item for item in raw):
            self._wrong(f"sets takes {_or(key.choices)}, or a list of lists of adapter directories", key.name)
        return tuple(
            tuple(self._member(member, key.name, number, place) for place, member in enumerate(members))
            for number, members in enumerate(raw)
        )

    def _member(self, raw: Any, *keys: str | int) -> Pattern:
        pattern = self._pattern(raw, *keys)
        if not set(pattern.glob) & set("*?") and not os.path.isdir(os.path.join(pattern.root, pattern.glob)):
            self._wrong(f"{pattern.glob}: no such directory; sets takes adapter directories", *keys)
        return pattern

    # -- ignores -------------------------------------------------------------------------------------------------

    def _path_ignores(self, raw: Any, name: str) -> tuple[PathIgnore, ...]:
        if not isinstance(raw, Mapping):
            self._wrong(f"{name} takes a table: a glob over paths, and its rules", name)
        found = []
        for glob, codes in raw.items():
            items = self._list(codes, name, glob)
            for number, item in enumerate(items):
                self._rule(item, name, glob, number)
            found.append(PathIgnore(self._pattern(glob, name, glob), items))
        return tuple(found)

    def _ignores(self, raw: Any, name: str) -> tuple[Ignore, ...]:
        if not isinstance(raw, list) or not all(isinstance(item, Mapping) for item in raw):
            self._wrong("ignores takes tables, each headed [[ignores]], with a rule or a place, and a reason", name)
        return tuple(self._ignore(item, name, number) for number, item in enumerate(raw))

    def _ignore(self, raw: Mapping[str, Any], *keys: str | int) -> Ignore:
        fields = {field.name: field for field in IGNORE_FIELDS}
        for name in raw:
            if name not in fields:
                hint = nearest(name, fields) or f"; an ignore has {_or(list(fields))}"
                self._wrong(f"unknown key {_quoted(name)} in an ignore{hint}", *keys, name)
        if "reason" not in raw:
            self._wrong("an ignore needs a reason: why is this meant to be so?", *keys)
        if not raw.keys() & {"rule", "path", "pointer", "tensor"}:
            self._wrong("an ignore needs a rule, a path, a pointer or a tensor", *keys)
        if "pointer" in raw and "tensor" in raw:
            self._wrong("an ignore has a pointer or a tensor, not both: a finding is about one place", *keys)
        values = {name: self._field(raw[name], fields[name], *keys, name) for name in raw}
        return Ignore(
            reason=values["reason"],
            file=self._file.path,
            pointer=self._file.pointer(*keys),
            rules=values.get("rule", ()),
            paths=tuple(self._pattern(path, *keys, "path") for path in values.get("path", ())),
            key=values.get("pointer"),
            tensor=values.get("tensor"),
            until=values.get("until"),
        )

    def _field(self, raw: Any, field: Field, *keys: str | int) -> Any:
        if field.kind == "date":
            return self._date(raw, *keys)
        if field.kind == "text":
            text = self._text(raw, *keys)
            if field.name == "pointer" and not text.startswith(("/", "*")):
                self._wrong(f"a JSON pointer begins with a slash: {_quoted('/' + text)}", *keys)
            return text
        items = (self._text(raw, *keys),) if isinstance(raw, str) else self._list(raw, *keys)
        if field.kind == "codes":
            for item in items:
                self._rule(item, *keys)
        return items

    def _date(self, raw: Any, *keys: str | int) -> str:
        from datetime import date, datetime

        if isinstance(raw, date) and not isinstance(raw, datetime):
            return raw.isoformat()
        if isinstance(raw, str):
            with suppress(ValueError):
                return date.fromisoformat(raw).isoformat()
        return self._wrong(f"until takes a date such as 2027-01-31, not {_shown(raw)}", *keys)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _shown(raw: Any) -> str:
    return _quoted(raw) if isinstance(raw, str) else _kind(raw)


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _kind(raw: Any) -> str:
    kinds = {
        str: "an empty text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }
    return kinds.get(type(raw), "that")
