"""Which reports a run writes, and where to: ``-o FORMAT[=FILE]``."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import click

from adapterlint.cli.output import echo, fail, use_color
from adapterlint.report import Report
from adapterlint.writing import replace_file

FORMATS = (
    "full",
    "concise",
    "json",
    "jsonl",
    "sarif",
    "github",
    "gitlab",
    "junit",
    "markdown",
    "html",
    "rdjson",
)
"""Every format; each is a module of :mod:`adapterlint.reporters`, imported when it is chosen."""

_SUMMARY_LIMIT = 1_000_000  # GitHub throws a step summary of more than 1 MiB away


class Destination(NamedTuple):
    """One report of a run: its format, and the file that it goes to; None for the standard output."""

    format: str
    file: str | None = None


def destinations(specs: Sequence[str], format_: str | None) -> list[Destination]:
    """The reports that ``-o`` and ``--format`` ask for; the full one to the standard output if they ask for none.

    Raises:
        click.UsageError: no such format, two reports for one place, a place that cannot hold a file.
    """
    found = [Destination(format_)] if format_ else []
    found += [_parse(spec) for spec in specs]
    printed = [item.format for item in found if item.file is None]
    if len(printed) > 1:
        raise click.UsageError(
            f"only one report can go to the standard output, not {' and '.join(printed)}; "
            f"give the others a file: -o {printed[1]}=FILE"
        )
    files = [os.path.realpath(item.file) for item in found if item.file is not None]
    for path in files:
        if files.count(path) > 1:
            raise click.UsageError(f"two reports cannot go to one file: {path}")
    return found or [Destination("full")]


def _parse(spec: str) -> Destination:
    name, equals, file = spec.partition("=")
    if name not in FORMATS:
        raise click.UsageError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    if not equals or file == "-":
        return Destination(name)
    if not file:
        raise click.UsageError(f"-o {spec}: the name of the file is missing")
    folder = os.path.dirname(os.path.realpath(file))
    if _special(file):
        return Destination(name, file)
    if os.path.isdir(file) or not os.path.isdir(folder):
        what = "is a directory" if os.path.isdir(file) else f"there is no directory {folder}"
        raise click.UsageError(f"-o {spec}: {what}")
    return Destination(name, file)


def _special(path: str) -> bool:
    """Whether something other than a file or a directory is there: a pipe, a terminal, another device."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def write(report: Report, wanted: Sequence[Destination]) -> None:
    """Write files, then what goes to the standard output; tracebacks of crashed rules go to the standard error.

    Raises:
        CommandError: a file cannot be written.
    """
    reporters = {item.format: importlib.import_module(f"adapterlint.reporters.{item.format}") for item in wanted}
    if any(getattr(reporter, "NEEDS_REPLACEMENTS", False) for reporter in reporters.values()):
        from adapterlint.locate import with_replacements

        report = with_replacements(report)
    for item in wanted:
        if item.file is not None:
            _save(item.file, reporters[item.format].render(report) + "\n")
    for item in wanted:
        if item.file is None:
            _print(report, item.format, reporters[item.format])
    for trace in report.internal_errors:
        click.echo(f"internal error:\n{trace}", file=sys.stderr)


def _print(report: Report, format_: str, reporter: ModuleType) -> None:
    text = reporter.render(report, color=use_color())
    if text or not report.quiet:
        echo(text)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if format_ == "github" and summary:
        _summarise(report, summary)


def _summarise(report: Report, path: str) -> None:
    """Append the report to the job's summary, as far as GitHub takes it; without the file, there is nothing to do."""
    from adapterlint.reporters import markdown

    with contextlib.suppress(OSError), open(path, "ab") as file:
        room = _SUMMARY_LIMIT - file.tell()
        if room > 2_000:
            file.write(f"{markdown.render(report, limit=room)}\n".encode("utf-8", "backslashreplace"))


def _save(path: str, text: str) -> None:
    """Write a file whole or not at all; what is no regular file, such as a pipe, is written to."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        if _special(path):
            with open(path, "wb") as stream:
                stream.write(data)
        else:
            replace_file(path, data)
    except OSError as error:
        raise fail(f"{path}: cannot write the report: {error.strerror or error}") from None
