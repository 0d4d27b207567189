"""Configuration files: which one holds for a path, and what it says, with the place of every value."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from adapterlint.config.errors import ConfigError
from adapterlint.config.find import SHARED
from adapterlint.findings import pointer_to

_TABLE = ("tool", "adapterlint")
_LARGEST = 1 << 20  # bytes; what is larger is no configuration


@dataclass(frozen=True, eq=False)
class File:
    """A configuration file.

    Attributes:
        path: as shown to the user: relative where it lies below the working directory, else absolute.
        table: the path of the settings in it: empty, or ``tool.adapterlint``.
        values: the settings.
        text: the whole text.
    """

    path: str
    table: tuple[str, ...]
    values: Mapping[str, Any]
    text: str = field(repr=False)

    @property
    def root(self) -> str:
        """The absolute directory that paths in it are relative to."""
        return os.path.dirname(os.path.abspath(self.path))

    @cached_property
    def _offsets(self) -> dict[tuple[str | int, ...], int]:
        from adapterlint.config.positions import positions

        try:
            return positions(self.text)
        except RecursionError:  # nested nearly as deeply as can be read; then messages name no line
            return {}

    def line(self, *keys: str | int) -> int | None:
        """The line, from 1, of a value; None if it cannot be told."""
        offset = self._offsets.get((*self.table, *keys))
        return None if offset is None else self.text.count("\n", 0, offset) + 1

    def where(self, *keys: str | int) -> str:
        """``file:line`` of a value, or the file alone."""
        line = self.line(*keys)
        return self.path if line is None else f"{self.path}:{line}"

    def pointer(self, *keys: str | int) -> str:
        """JSON pointer of a value, from the top of the document."""
        return pointer_to(*self.table, *keys)


def has_table(path: str) -> bool:
    """Whether a pyproject.toml has settings of adapterlint, or was to have some."""
    try:
        text = _text(path)
    except ConfigError:
        return False  # it belongs to another tool, whose business it is
    try:
        return isinstance(_table(parse(text), _TABLE), Mapping)
    except ValueError:
        return "[tool.adapterlint" in text  # it is meant for this tool, too, and must not be passed over


def read(path: str) -> File:
    """Read a configuration file: adapterlint.toml or any other of its form, or a pyproject.toml.

    Raises:
        ConfigError: it is not there, not TOML, or a pyproject.toml without a table [tool.adapterlint].
    """
    text = _text(path)
    try:
        document = parse(text)
    except RecursionError:
        raise ConfigError(f"{path}: not a configuration: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    table = _TABLE if os.path.basename(path) == SHARED else ()
    values = _table(document, table)
    if values is None:
        raise ConfigError(f"{path}: there is no table [tool.adapterlint] in it")
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: tool.adapterlint must be a table")
    return File(path, table, values, text)


def parse(text: str) -> dict[str, Any]:
    """A TOML document as data; a ValueError tells line and column."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    document: dict[str, Any] = tomllib.loads(text)
    return document


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise ConfigError(f"{path}: too large for a configuration (more than {_LARGEST >> 20} MiB)")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None


def _table(document: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = document
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found
