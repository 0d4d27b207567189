"""What the command line and the public functions share: settings become a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapterlint.config.settings import Settings, load
from adapterlint.findings import OPERATIONS
from adapterlint.rules.registry import activate, all_rules
from adapterlint.run import Request
from adapterlint.suppress import Selection

if TYPE_CHECKING:
    from pathlib import Path

    from adapterlint.ignores import Suppressions
    from adapterlint.rules.examples import AnyExample


def settings_of(
    paths: Sequence[str], options: Mapping[str, Any], config: str | None = None, isolated: bool = False
) -> Settings:
    """The settings that hold for the paths.

    Args:
        paths: what is checked.
        options: settings by name that were given by hand; they come before those of files.
        config: a configuration file to be used instead of the one that is found.
        isolated: use no file.

    Raises:
        ConfigError: a file cannot be read, or says what cannot be.
        PluginError: a plugin that cannot be used.
    """
    settings = load(paths, _known, config, isolated).override(options)
    activate(settings["plugins"])
    return settings


def _known(plugins: Sequence[str]) -> Iterable[tuple[str, str]]:
    activate(plugins)
    return [(rule.code, rule.name) for rule in all_rules()]


def request_of(paths: Sequence[str], settings: Settings) -> Request:
    """The request that settings describe.

    Raises:
        BaselineError: the baseline cannot be read.
    """
    sets = settings["sets"]
    operations = set(settings["operations"])
    return Request(
        paths=paths,
        targets=settings["targets"],
        base=settings["base"],
        grouping=sets if isinstance(sets, str) else "auto",  # type: ignore[arg-type]
        selection=Selection(
            settings["select"], (*settings["ignore"], *settings["extend-ignore"]), settings["extend-select"]
        ),
        payload=settings["payload"],
        operations=frozenset(OPERATIONS if "all" in operations else operations),
        sets=() if isinstance(sets, str) else sets,
        suppressions=_suppressions(settings),
        plugins=tuple(dict.fromkeys(settings["plugins"])),
        config=settings.files[0] if settings.files else None,
    )


def _suppressions(settings: Settings) -> Suppressions | None:
    if not any(settings[name] for name in ("per-path-ignores", "ignores", "baseline")):
        return None
    import time

    from adapterlint import baseline
    from adapterlint.ignores import Suppressions

    path = settings["baseline"]
    return Suppressions(
        path_ignores=settings["per-path-ignores"],
        ignores=settings["ignores"],
        baseline=baseline.read(path) if path else None,
        today=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def example_request(example: AnyExample, directory: Path) -> Request:
    """Write the example below the directory; the request that checks it, with the settings beside it."""
    from adapterlint.rules.examples import SetExample, write_any

    paths, base = write_any(example, directory)
    config = directory / "adapterlint.toml"
    options = {"sets": "one" if isinstance(example, SetExample) else "none"}
    settings = settings_of([], options, str(config) if config.exists() else None, isolated=not config.exists())
    return request_of([str(path) for path in paths], settings)._replace(base=str(base) if base else None)
