"""Hooks of mkdocs: the reference pages are made from the code at build time, and so is the navigation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from adapterlint.cli import rule_markdown
from adapterlint.cli.app import main
from adapterlint.cli.rule import page
from adapterlint.rules.registry import all_rules

SCHEMAS = Path(__file__).parents[1] / "schemas"
_MANY = 20  # values that are not all shown in a table
SCHEMA_PAGES = {"report-v1.json": "reference/report.md", "config.json": "reference/configuration.md"}

# Pages that are not there (yet) are left out; pages that no section names come under "More".
SECTIONS = {
    "Start": ["index.md", "tutorial.md"],
    "How to": [
        "howto/ci.md", "howto/pre-commit.md", "howto/fix-a-set.md", "configuration.md", "suppressing.md",
        "shell-completion.md", "howto/new-release.md", "howto/new-rule.md",
    ],
    "Reference": [
        "reference/cli.md", "reports.md", "reference/report.md", "reference/configuration.md", "formats.md", "forms.md",
        "operations.md", "api.md",
    ],
    "Explanation": ["explanation/saved-modules.md", "explanation/verdicts.md", "explanation/safety.md", "fixing.md",
                    "conformance.md"],
}  # fmt: skip


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Builds the navigation of the pages that exist."""
    docs = Path(config.docs_dir)
    found = {str(path.relative_to(docs)) for path in docs.rglob("*.md")} | {path for path, _ in _reference()}
    nav: list[dict[str, Any]] = [
        {title: [path for path in paths if path in found]} for title, paths in SECTIONS.items()
    ]
    named = {path for paths in SECTIONS.values() for path in paths}
    more = sorted(path for path in found - named if not path.startswith("rules/"))
    if more:
        nav.append({"More": more})
    nav.append({"Rules": ["rules/index.md", *({f"{rule.code} {rule.name}": _rule_path(rule)} for rule in all_rules())]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the code, and the schemas at the addresses that they name."""
    pages = [page(rule) for rule in all_rules()]
    index = f"# Rules\n\n{rule_markdown.table(pages, lambda item: f'{item.rule.name}.md')}\n"
    made = [*_reference(), ("rules/index.md", index)]
    made += [(_rule_path(item.rule), f"{rule_markdown.page(item)}\n") for item in pages]
    made += [(f"schemas/{path.name}", path.read_text()) for path in sorted(SCHEMAS.glob("*.json"))]
    for path, text in made:
        files.append(File.generated(config, path, content=text))
    return files


def _reference() -> Iterator[tuple[str, str]]:
    yield "reference/cli.md", cli_page()
    for name, path in SCHEMA_PAGES.items():
        if (SCHEMAS / name).exists():
            yield path, schema_page(json.loads((SCHEMAS / name).read_text()), name)


# -- rules -------------------------------------------------------------------------------------------------------


def _rule_path(rule: Any) -> str:
    return f"rules/{rule.name}.md"


# -- the command line --------------------------------------------------------------------------------------------


def cli_page() -> str:
    """The help of every command."""
    lines = ["# Commands", "What `--help` prints, for every command."]
    for name, command in _commands("adapterlint", main):
        context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
        lines += [f"## {name}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(lines) + "\n"


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            if below is not None:
                yield from _commands(f"{name} {child}", below)


# -- schemas -----------------------------------------------------------------------------------------------------


def schema_page(schema: Mapping[str, Any], file: str) -> str:
    """The properties of a schema and of its definitions, as tables."""
    lines = [f"# {schema['title']}", schema.get("description", ""), f"The schema itself: [{file}](../schemas/{file})."]
    lines += _table(schema)
    for name, part in schema.get("$defs", {}).items():
        lines += [f"## {name}", part.get("description", ""), *(_table(part) or [f"{_type(part)}"])]
    return "\n\n".join(line for line in lines if line) + "\n"


def _table(part: Mapping[str, Any]) -> list[str]:
    required = part.get("required", [])
    rows = [
        f"| `{key}` | {_type(value)} | {'yes' if key in required else ''} | {_cell(value.get('description', ''))} |"
        for key, value in part.get("properties", {}).items()
    ]
    return ["\n".join(["| key | value | always there | meaning |", "|---|---|---|---|", *rows])] if rows else []


def _type(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "const" in value or "enum" in value:
        known = [f"`{json.dumps(item)}`" for item in value.get("enum", [value.get("const")])]
        return ", ".join(known if len(known) <= _MANY else [*known[:2], f"... ({len(known)} texts)"])
    for key in ("anyOf", "oneOf"):
        if key in value:
            return " or ".join(_type(item) for item in value[key])
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    kind = value.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
