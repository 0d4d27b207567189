"""``adapterlint rule``: every rule has a page, and its examples do what the page says."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cli_util import run

from adapterlint.rules.registry import AnyRule, all_rules
from adapterlint.testing import said


def as_json(*arguments: str) -> Any:
    result = run("rule", *arguments, "--format", "json")
    assert result.exit_code == 0
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    return {item["code"]: item for item in as_json()}


def test_the_table_has_every_rule_once(everything: dict[str, Any]) -> None:
    result = run("rule")
    assert result.exit_code == 0
    head, *rows = [line.split(None, 4) for line in result.stdout.rstrip("\n").split("\n")]
    assert head == ["code", "name", "severity", "fix", "needs"]
    assert [row[:3] for row in rows] == [[rule.code, rule.name, rule.severity.value] for rule in all_rules()]
    assert [row[3] for row in rows] == ["/".join(everything[rule.code]["fixes"]) or "none" for rule in all_rules()]
    assert [row[4] for row in rows] == [", ".join(rule.needs) for rule in all_rules()]


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)
def test_page(rule: AnyRule, everything: dict[str, Any], tmp_path: Path) -> None:
    by_code, by_name = run("rule", rule.code), run("rule", rule.name)
    assert by_code.exit_code == 0
    assert by_code.stdout == by_name.stdout
    lines = by_code.stdout.split("\n")
    assert lines[0] == f"{rule.code} {rule.name}"
    for heading in ("What it does", "Why is this bad?", "Example", "Fix", "References", "Fine", "Reported"):
        assert heading in lines
    assert "##" not in by_code.stdout
    assert tempfile.gettempdir() + "/adapterlint-" not in by_code.stdout
    item = as_json(rule.code)
    assert item == everything[rule.code]
    assert [each["title"] for each in item["invalid"]] == [example.title for example in rule.invalid()]
    for number, (shown, example) in enumerate(zip(item["invalid"], rule.invalid(), strict=True)):
        told = [finding["message"] for finding in shown["findings"]]
        assert told and {finding["rule"] for finding in shown["findings"]} == {rule.code}
        assert f"  {example.title}" in lines
        assert by_code.stdout.count(f"[{rule.code}]") >= len(told)
        found, _ = said(rule, example, tmp_path / str(number))
        assert len(told) == len(found)


def test_the_fix_is_that_of_the_examples(everything: dict[str, Any]) -> None:
    order = ("safe", "unsafe", "display", None)
    for item in everything.values():
        found = {f["fix"] and f["fix"]["safety"] for shown in item["invalid"] for f in shown["findings"]} or {None}
        assert item["fix"] == next(safety for safety in order if safety in found)
        assert item["fixes"] == [safety for safety in order[:2] if safety in found]
    assert {item["fix"] for item in everything.values()} == set(order)


def test_a_rule_says_why_it_has_no_fix(everything: dict[str, Any]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "fixing.md").read_text()
    for code, item in everything.items():
        assert bool(item["fixes"]) or item["sections"]["Fix"].startswith("None"), code
    # Notes are about operations that nobody asked for, or about nothing that breaks.
    unfixed = [item for item in everything.values() if not item["fixes"] and item["severity"] != "note"]
    assert [item["code"] for item in unfixed if f"| {item['code']} {item['name']} |" not in page] == []
    for code, name in re.findall(r"^\| (AL\d+) (\S+) \|", page, re.MULTILINE):
        assert everything[code]["name"] == name


def test_nothing_names_the_temporary_directory(everything: dict[str, Any]) -> None:
    assert tempfile.gettempdir() + "/adapterlint-" not in json.dumps(everything)


def test_effects_are_folded(everything: dict[str, Any]) -> None:
    assert everything["AL207"]["effects"] == ["raises on every release"]
    assert "merge: raises on peft 0.18-0.20" in everything["AL516"]["effects"]


def test_unknown_rule() -> None:
    for text, hint in (
        ("rank-mismatches", "did you mean rank-mismatch?"),
        ("ZZ888", "`adapterlint rule` lists them"),
        ("AL298", "did you mean AL2"),
    ):
        result = run("rule", text)
        assert result.exit_code == 2 and result.stdout == ""
        assert hint in result.stderr and result.stderr.count("\n") == 1
    assert run("rule", "\x1b[31m").stderr.rstrip("\n").isprintable()
    assert run("rule", "al207").exit_code == 0
    assert run("rule", "").exit_code == 2


def test_markdown(everything: dict[str, Any]) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark")
    for code, item in everything.items():
        text = run("rule", code, "--format", "markdown").stdout
        tokens = markdown.parse(text)
        headings = [tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "heading_open"]
        sections = list(item["sections"])
        assert headings[: 1 + len(sections)] == [f"{code} {item['name']}", *sections]
        blocks = [token.content for token in tokens if token.type == "fence"]
        for shown in item["invalid"]:  # the examples were run: what is reported of them stands there
            for finding in shown["findings"]:
                assert any(f"[{code}]" in block and finding["message"][:40] in block for block in blocks), code
        assert tempfile.gettempdir() + "/adapterlint-" not in text


def test_markdown_of_all_rules(everything: dict[str, Any]) -> None:
    rows = run("rule", "--format", "markdown").stdout.splitlines()
    assert rows[0].startswith("| code | name |") and len(rows) == 2 + len(everything)
    for row, (code, item) in zip(rows[2:], everything.items(), strict=True):
        assert row.startswith(f"| {code} | [{item['name']}]({item['url']}) |")
        assert row.count("|") - row.count("\\|") == 6
