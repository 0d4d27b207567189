"""The settings of a run, and the origin of each: default, a line of a file, the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapterlint.config.find import find, shown
from adapterlint.config.keys import BY_NAME, EXTEND, KEYS

if TYPE_CHECKING:
    from adapterlint.config.files import File

DEFAULT = "default"
COMMAND_LINE = "command line"
_RULE_KEYS = ("ignore", "extend-select", "extend-ignore")

Rules = Callable[[Sequence[str]], Iterable[tuple[str, str]]]
"""Given the plugins that are configured: code and name of every rule."""


class Setting:
    """A value and where it comes from; a value that adds up has several origins.

    This and the next are plain classes, since every check makes them: a named tuple or a dataclass costs half a
    millisecond to define.
    """

    def __init__(self, value: Any, origins: tuple[str, ...] = (DEFAULT,)) -> None:
        self.value = value
        self.origins = origins


class Settings:
    """All settings.

    Args:
        values: by name; what is not there has its default.
        files: the files that were read, as shown to the user; the one that was found or given first.
    """

    def __init__(self, values: Mapping[str, Setting] | None = None, files: tuple[str, ...] = ()) -> None:
        self.values: Mapping[str, Setting] = values or {}
        self.files = files

    def __getitem__(self, name: str) -> Any:
        return self.setting(name).value

    def setting(self, name: str) -> Setting:
        """The value of a key with its origin."""
        return self.values.get(name) or Setting(BY_NAME[name].default)

    def given(self, name: str) -> bool:
        """Whether a file or the command line says something about it."""
        return name in self.values

    def override(self, options: Mapping[str, Any]) -> Settings:
        """The settings with those of a command line: it replaces what files say.

        Two things are otherwise. ``ignore`` adds to what files ignore; and ``select`` means these rules whatever files
        select and ignore, so that nothing asked for is silently left out.
        """
        values = dict(self.values)
        if "select" in options:
            values |= {name: Setting((), (f"{COMMAND_LINE} (--select)",)) for name in _RULE_KEYS if name in values}
        for name, value in options.items():
            before = values.get(name)
            if name == "ignore" and before and before.value:
                values[name] = Setting((*before.value, *value), (*before.origins, COMMAND_LINE))
            else:
                values[name] = Setting(value, (COMMAND_LINE,))
        return Settings(values, self.files)


def load(paths: Sequence[str], rules: Rules, config: str | None = None, isolated: bool = False) -> Settings:
    """The settings of the configuration file that holds for the paths.

    Args:
        paths: what is checked; the file is looked for from there upwards.
        rules: tells which rules there are.
        config: a configuration file to be used instead.
        isolated: use none.

    Raises:
        ConfigError: a file cannot be read, or says what cannot be.
    """
    if isolated:
        return Settings()
    start = config or find(paths)
    return _read(_chain(start), rules) if start else Settings()


def _chain(start: str) -> list[File]:
    """The file and those that it extends, each after the one that extends it."""
    from adapterlint.config import files
    from adapterlint.config.errors import ConfigError
    from adapterlint.config.values import convert

    chain: list[File] = []
    following: str | None = start
    while following is not None:
        if any(shown(following) == shown(file.path) for file in chain):
            circle = " -> ".join([*(file.path for file in chain), following])
            raise ConfigError(f"{chain[-1].where(EXTEND)}: configuration files extend each other: {circle}")
        try:
            file = files.read(following)
        except ConfigError as error:
            if chain:
                raise ConfigError(f"{chain[-1].where(EXTEND)}: {error}") from None
            raise
        _refuse_unknown(file)
        chain.append(file)
        following = convert(file, BY_NAME[EXTEND], tuple) if EXTEND in file.values else None
    return chain


def _refuse_unknown(file: File) -> None:
    from adapterlint.config.errors import ConfigError
    from adapterlint.errors import nearest

    for name in file.values:
        if name not in BY_NAME:
            hint = nearest(name, BY_NAME) or f"; there are {', '.join(BY_NAME)}"
            raise ConfigError(f'{file.where(name)}: unknown key "{name}"{hint}')


def _read(chain: Sequence[File], rules: Rules) -> Settings:
    from adapterlint.config.values import convert

    plugins: list[str] = []

    def known() -> Iterable[tuple[str, str]]:
        return rules(plugins)

    values: dict[str, Setting] = {}
    for key in sorted(KEYS, key=lambda key: key.name != "plugins"):  # which rules there are depends on the plugins
        for file in reversed(chain):
            if key.name not in file.values:
                continue
            value = convert(file, key, known)
            origins: tuple[str, ...] = (file.where(key.name),)
            before = values.get(key.name)
            if key.adds and before:
                value, origins = (*before.value, *value), (*before.origins, *origins)
            values[key.name] = Setting(value, origins)
        if key.name == "plugins" and key.name in values:
            plugins.extend(dict.fromkeys(values[key.name].value))
    return Settings(values, tuple(file.path for file in chain))
