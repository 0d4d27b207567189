"""``adapterlint new-rule``."""

from __future__ import annotations

from pathlib import Path

import click

from adapterlint.cli.grouped import WRITTEN, Command, option
from adapterlint.cli.output import echo, fail, guarded
from adapterlint.rules.plugins import GROUP, refusal
from adapterlint.rules.registry import all_rules

EXAMPLES = [
    ("new-rule ACME001 dropout-left", "a package acme-rules with one rule"),
    ("new-rule ACME001 dropout-left --package rules/acme", "the same, below another directory"),
]

_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{prefix}-rules"
version = "0.1.0"
requires-python = ">=3.10"
dependencies = ["adapterlint"]

# Left the name that `plugins` in adapterlint.toml takes, right the module that defines the rules.
[project.entry-points."{group}"]
{prefix} = "{prefix}_rules"

[tool.setuptools]
py-modules = ["{prefix}_rules"]
"""

_RULE = '''\
"""Rules for adapterlint: each is a class that says what it means, shows examples, and checks."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint import Example, Finding, Fix, Rule, Safety, SetExample, Severity, Subject
from adapterlint.findings import SetConfig
from adapterlint.rules.examples import llama_tensors, lora_config


class {title}(Rule):
    """TODO: what is wrong, in one sentence.

    ## What it does
    TODO: what it reports, and what it does not.

    ## Why is this bad?
    TODO: who does what with such an adapter.

    ## Example
    TODO: the part of a config or the tensor that is wrong.

    ## Fix
    TODO: what ends the finding.

    ## References
    TODO: the source or the measurement that shows it.
    """

    code = "{code}"
    name = "{name}"
    severity = Severity.WARNING
    # If it claims effects on loading, `damage` says which operations beyond loading they decide:
    # https://adapterlint.readthedocs.io/howto/new-rule/#operations-beyond-loading

    @staticmethod
    def valid() -> list[Example | SetExample]:
        return [Example("no dropout", lora_config(lora_dropout=0.0), llama_tensors())]

    @staticmethod
    def invalid() -> list[Example | SetExample]:
        return [Example("dropout is left", lora_config(lora_dropout=0.5), llama_tensors())]

    def check(self, subject: Subject) -> Iterator[Finding]:
        config = subject.adapter.config
        if config is not None and config.get("lora_dropout"):  # a sample: replace it, and the examples with it
            fix = Fix("Set lora_dropout to 0", Safety.SAFE, (SetConfig("/lora_dropout", 0.0),))
            yield self.finding("lora_dropout is not 0", subject.at_config("/lora_dropout"), fix=fix)
'''

_TEST = """\
import {prefix}_rules
import pytest

from adapterlint.testing import rule_cases


@pytest.mark.parametrize("case", rule_cases({prefix}_rules.{title}), ids=str)
def test_rule(case, tmp_path):
    case.run(tmp_path)
"""


@click.command("new-rule", cls=Command, examples=EXAMPLES)
@click.argument("code")
@click.argument("name")
@option(
    "--package",
    type=click.Path(),
    metavar="DIR",
    group=WRITTEN,
    help="Where the package is written; by default it is called after the code's letters.",
)
@guarded
def command(code: str, name: str, package: str | None) -> None:
    """Write a package with a rule of your own, and its tests.

    CODE is such as ACME001, NAME kebab-case. No file is overwritten. The words are left to you: until they are there,
    one of the tests fails and says so.
    """
    problem = refusal(code, name, {rule.code: rule.name for rule in all_rules()})
    if problem:
        raise fail(problem)
    prefix = code.rstrip("0123456789").lower()
    words = {
        "code": code,
        "name": name,
        "prefix": prefix,
        "title": "".join(part.capitalize() for part in (f"rule-{name}" if name[0].isdigit() else name).split("-")),
        "group": GROUP,
    }
    root = Path(package or f"{prefix}-rules")
    _write(
        root,
        {
            "pyproject.toml": _PROJECT.format(**words),
            f"{prefix}_rules.py": _RULE.format(**words),
            f"tests/test_{prefix}_rules.py": _TEST.format(**words),
        },
    )
    echo(f'wrote {root}; now: pip install -e {root} && pytest {root}, and plugins = ["{prefix}"] in adapterlint.toml')


def _write(root: Path, files: dict[str, str]) -> None:
    """Write all files, or none where one is there already."""
    for name in files:
        if (root / name).exists() or (root / name).is_symlink():
            raise fail(f"{root / name} exists; nothing was written. Further rules go into the module that is there")
    written: list[Path] = []
    try:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with open(root / name, "x", encoding="utf-8") as file:
                written.append(root / name)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        raise fail(f"{error.filename or root}: cannot be written: {error.strerror}; nothing is left of it") from None
