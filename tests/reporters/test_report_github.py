"""Workflow commands, taken apart again by the decoding that the runner uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from reports_util import report_of

from adapterlint.findings import CONFIG_FILE, Finding, Location, Severity, raises
from adapterlint.locate import Locator
from adapterlint.report import Report
from adapterlint.reporters import concise, github
from adapterlint.rules.examples import Example, llama_tensors, lora_config


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)


def decode(line: str) -> tuple[str, dict[str, str], str]:
    """A command as the runner reads it: kind, properties, message."""
    match = re.fullmatch(r"::(\w+) (.*?)::(.*)", line)
    assert match, line
    properties = {}
    for part in match[2].split(","):
        name, _, value = part.partition("=")
        properties[name] = unescape(value, {"%3A": ":", "%2C": ","})
    return match[1], properties, unescape(match[3], {})


def unescape(text: str, more: dict[str, str]) -> str:
    table = {"%0D": "\r", "%0A": "\n", "%25": "%", **more}
    return re.sub("|".join(table), lambda found: table[found.group()], text)


def report_with(*findings: Finding, path: str = "x") -> Report:
    report = report_of({path: Example("x", lora_config(), llama_tensors())})
    locator = Locator()
    return report._replace(findings=tuple(map(locator.report, findings)))


def finding_at(location: Location, severity: Severity = Severity.ERROR, **more: Any) -> Finding:
    return Finding("AL999", "some-name", more.pop("message", "a message"), location, severity=severity, **more)


def commands(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith("::")]


def test_everything_that_has_a_meaning_is_escaped() -> None:
    path = "a,b:c%25"
    message = "100% of: a,b::error::\r\nend"
    (line,) = commands(github.render(report_with(finding_at(Location(path), message=message), path=path)))
    kind, properties, text = decode(line)
    assert kind == "error"
    assert properties == {"file": path, "title": "AL999 some-name"}
    assert text == "100% of: a,b::error::\\r\\nend"
    assert "%0D" not in line and "::error::" in text


def test_spans() -> None:
    places = [
        Location("x", CONFIG_FILE, pointer="/r"),
        Location("x", CONFIG_FILE, pointer="/target_modules"),
        Location("x", "adapter_model.safetensors", tensor="t\n1"),
        Location("x"),
    ]
    decoded = [decode(line) for line in commands(github.render(report_with(*map(finding_at, places))))]
    plain = [{key: value for key, value in each[1].items() if key != "title"} for each in decoded]
    assert plain == [
        {"file": "x/adapter_config.json", "line": "10", "col": "8", "endLine": "10", "endColumn": "9"},
        {"file": "x/adapter_config.json", "line": "11", "endLine": "14"},
        {"file": "x/adapter_model.safetensors"},
        {"file": "x"},
    ]
    assert decoded[2][2] == "a message\ntensor: t\\n1"


def test_ten_of_a_kind_errors_first() -> None:
    levels = [Severity.NOTE] * 12 + [Severity.WARNING] * 3 + [Severity.ERROR] * 11
    found = [finding_at(Location("x"), level, message=f"m{n}") for n, level in enumerate(levels)]
    text = github.render(report_with(*found))
    kinds = [decode(line)[0] for line in commands(text)]
    assert kinds == ["error"] * 10 + ["warning"] * 3 + ["notice"] * 10
    assert "left out: 1 more error, 2 more notices (GitHub shows 10 of a kind)" in text
    assert "left out" not in github.render(report_with(*found[12:24]))


def test_paths_are_relative_to_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def file_of(path: str) -> str:
        report = report_with()._replace(findings=(Locator().report(finding_at(Location(path))),))
        (line,) = commands(github.render(report))
        return decode(line)[1]["file"]

    inside = tmp_path / "sub" / "dir"
    assert file_of(str(inside)) == "sub/dir"
    assert file_of("./sub/../other") == "other"
    assert file_of("/somewhere/else") == "/somewhere/else"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "sub"))
    assert file_of(str(inside)) == "dir"
    assert file_of("sub/dir") == "dir"
    assert file_of("other") == "other"


def test_effects_and_fix_are_in_the_message() -> None:
    finding = finding_at(Location("x"), effects=(raises("peft<0.6", "KeyError: 'a'"),))
    (line,) = commands(github.render(report_with(finding)))
    assert decode(line)[2] == "a message\nraises on peft <=0.5: KeyError: 'a'"


@pytest.mark.parametrize("path", ["::error::x", "##[error]x", "x##[add-mask]y"])
def test_no_line_of_the_log_is_a_command_by_accident(path: str) -> None:
    """The runner looks for ``::`` at the start of a line, and for ``##[`` anywhere in other lines."""
    report = report_of({path: Example("x", lora_config(r=8), llama_tensors())})
    for line in github.render(report).split("\n"):
        assert line.startswith("::error file=") or not (line.startswith("::") or "##[" in line)
    assert not concise.render(report).startswith("::")


def test_concise_lines() -> None:
    report = report_of({"x": Example("x", lora_config(r=8), llama_tensors())})
    first, *_ = concise.render(report).split("\n")
    assert first.startswith("x/adapter_config.json:10:8: error AL207 r is 8 but 4 modules store rank 4: ")
    assert first.endswith(" (rank-mismatch)")
    tensor = finding_at(Location("x", "f.safetensors", tensor="a\nb"), Severity.NOTE)
    assert concise.render(report_with(tensor)).startswith("x/f.safetensors#a\\nb: note AL999 a message (some-name)\n")
