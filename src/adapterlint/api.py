"""The public ``check`` and ``fix``, and what they share with the command line: settings become a request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from adapterlint import run
from adapterlint.config.keys import BY_NAME
from adapterlint.config.settings import Settings, load
from adapterlint.errors import UserError, no_rule
from adapterlint.findings import OPERATIONS
from adapterlint.report import Report
from adapterlint.rules.registry import activate, all_rules
from adapterlint.run import Request
from adapterlint.suppress import Selection, names_rule

if TYPE_CHECKING:
    from pathlib import Path

    from adapterlint.fixing.forms import Form
    from adapterlint.fixing.repair import FixReport
    from adapterlint.ignores import Suppressions
    from adapterlint.rules.examples import AnyExample


def check(
    *paths: str | os.PathLike[str],
    targets: Sequence[str] | None = None,
    base: str | os.PathLike[str] | None = None,
    sets: Literal["auto", "one", "none"] | None = None,
    select: Sequence[str] | None = None,
    ignore: Sequence[str] | None = None,
    operations: Sequence[str] | None = None,
    payload: Literal["quick", "none", "full"] | None = None,
    plugins: Sequence[str] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> Report:
    """What PEFT will do with the adapters at and below the paths.

    No configuration file is looked for: the same call has the same answer in every directory. What is None has the
    value that ``config`` gives it, and its default without that.

    Args:
        paths: adapter directories, or directories above them; several adapters are one set, loaded in this order.
        targets: such as ``peft==0.13.2`` or ``peft>=0.6,<0.14``; by default the newest release that is known.
        base: directory of the base model; by default it is looked for where the adapters say.
        sets: ``auto`` finds what is loaded together, ``one`` takes all adapters as one set, ``none`` takes each alone.
        select: report only these rules: codes, beginnings of codes, names.
        ignore: do not report these. Neither changes a verdict.
        operations: also report what breaks in these, such as ``merge``; or ``all``.
        payload: how much tensor data is read.
        plugins: entry points whose rules are run as well.
        config: a configuration file that is used.

    Raises:
        UserError: something in the arguments or in the configuration cannot be; the text says what, and why.
    """
    values = {
        "targets": targets,
        "base": base,
        "sets": sets,
        "select": select,
        "ignore": ignore,
        "operations": operations,
        "payload": payload,
        "plugins": plugins,
    }
    return run.check(_request("check", paths, values, config))


def fix(
    *paths: str | os.PathLike[str],
    targets: Sequence[str] | None = None,
    base: str | os.PathLike[str] | None = None,
    sets: Literal["auto", "one", "none"] | None = None,
    form: Form | None = None,
    unsafe: bool = False,
    inplace: bool = False,
    output: str | os.PathLike[str] | None = None,
    backup: bool = False,
    replace_links: bool = False,
    plugins: Sequence[str] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> FixReport:
    """Plan the repairs of the adapters at and below the paths, and make them where ``inplace`` or ``output`` says so.

    All adapters are repaired or none, and what was written is proved before an old file goes. Where files must be read
    again before the rest can be planned, as after a rename, this is done in passes: a plan alone is that of the first;
    what goes wrong in a later one leaves what those before it have made, each of them whole.

    Args:
        paths: as :func:`check` takes them, like ``targets``, ``base``, ``sets``, ``plugins`` and ``config``.
        form: bring sets (``portable``: adapters) to this normal form: ``union``, ``lowrank`` or ``portable``.
        unsafe: also make fixes that round, drop or choose.
        inplace: write into the adapters.
        output: write repaired copies of the adapters that change below this directory instead.
        backup: keep each file that is changed in place as ``NAME.bak``.
        replace_links: replace links, in place, by files of their own; otherwise they are refused.

    Returns:
        What was planned or done, and what is left. It is empty where there is no adapter.

    Raises:
        UserError: something in the arguments or in the configuration cannot be; or the repair is refused or fails, and
            the pass has changed no file. With a form, it is refused where one set, or adapter, cannot have it.
        RuntimeError: a rule crashes, or fixes undo one another: a defect, and the pass has changed no file.
    """
    from adapterlint.fixing.repair import FixRequest, repair  # not for a check

    target = None if output is None else os.fspath(output)
    flags = {"unsafe": unsafe, "inplace": inplace, "backup": backup, "replace_links": replace_links}
    _refuse_ways(form, target, flags)
    request = _request("fix", paths, {"targets": targets, "base": base, "sets": sets, "plugins": plugins}, config)
    report = repair(FixRequest(request, unsafe, form, inplace, target, backup, replace_links))
    if form is not None and report.refusals:
        raise UserError("\n".join(map(str, report.refusals)))
    return report


def _request(
    function: str,
    paths: Sequence[str | os.PathLike[str]],
    values: Mapping[str, Any],
    config: str | os.PathLike[str] | None,
) -> Request:
    """The request that arguments describe; those that are None are not given."""
    given = {name: value for name, value in values.items() if value is not None}
    _refuse(function, paths, given)
    given = {name: tuple(value) if _is_list(name) else value for name, value in given.items()}
    if "base" in given:
        given["base"] = os.fspath(given["base"])
    names = [os.fspath(path) for path in paths]
    settings = settings_of(names, given, None if config is None else os.fspath(config), isolated=config is None)
    for name in given.keys() & {"select", "ignore"}:
        problem = unknown_rule(given[name])
        if problem:
            raise UserError(f"{name}: {problem}")
    return request_of(names, settings)


def _is_list(name: str) -> bool:
    return isinstance(BY_NAME[name].default, tuple)


def _refuse(function: str, paths: Sequence[object], given: Mapping[str, Any]) -> None:
    """Raise for what the types do not allow: a text is a sequence of texts to Python, and never what was meant."""
    if not paths:
        raise UserError(f"{function} needs a path")
    for name, value in given.items():
        if _is_list(name) and (isinstance(value, str) or not all(isinstance(item, str) for item in value)):
            raise UserError(f"{name} takes a list of texts, not {value!r}")
        choices = BY_NAME[name].choices
        for item in (value if _is_list(name) else (value,)) if choices else ():
            if item not in choices:
                raise UserError(f"{name} is one of {', '.join(choices)}, not {item!r}")


def _refuse_ways(form: object, output: str | None, flags: Mapping[str, object]) -> None:
    """Raise for what the types of ``fix`` do not allow: to Python a text is true, and might not mean "write here"."""
    from adapterlint.fixing.forms import FORMS

    for name, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(f"{name} is True or False, not {value!r}")
    if form is not None and form not in [*FORMS]:
        raise UserError(f"form is one of {', '.join(FORMS)}, not {form!r}")
    if output == "":
        raise UserError("output is an empty text, not the name of a directory")
    if output is not None and flags["inplace"]:
        raise UserError("inplace and output exclude each other")


def unknown_rule(selectors: Iterable[str]) -> str | None:
    """What is wrong with selectors, if one of them names no rule; the plugins have to be active."""
    rules = [(rule.code, rule.name) for rule in all_rules()]
    wrong = next((item for item in selectors if not any(names_rule(item, *rule) for rule in rules)), None)
    return None if wrong is None else f"{wrong!r} {no_rule(wrong, rules)}"


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
