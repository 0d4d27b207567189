"""The JSON report against its schema, and its positions against the text of the files."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterlint.report import Report
from adapterlint.reporters import concise, full, github
from adapterlint.reporters import json as reporter
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    SetExample,
    llama_base,
    llama_tensors,
    lora_config,
    write_any,
)
from adapterlint.rules.registry import AnyRule, all_rules
from adapterlint.run import Request, check

SCHEMA = json.loads(files("adapterlint.schemas").joinpath("report-v1.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
EVERY = "peft>=0"


def report_on(example: AnyExample, root: Path, *targets: str) -> Report:
    paths, base = write_any(example, root)
    grouping = "one" if isinstance(example, SetExample) else "none"
    return check(Request([str(path) for path in paths], targets, str(base) if base else None, grouping))  # type: ignore[arg-type]


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(_PLAIN)
def test_it_is_laid_out_as_json_does_it(value: Any) -> None:
    assert reporter.pretty(value) == json.dumps(value, indent=2)


def test_the_schema_is_one_and_closed() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node.get("additionalProperties") is False, node
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(SCHEMA)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)
def test_every_example_gives_a_valid_report(rule: AnyRule, tmp_path: Path) -> None:
    for kind in ("valid", "invalid"):
        for number, example in enumerate(getattr(rule, kind)()):
            for targets in ((), (EVERY,)):
                report = report_on(example, tmp_path / f"{kind}{number}", *targets)
                data = json.loads(reporter.render(report))
                VALIDATOR.validate(data)
                _check_positions(data)
                for other in (full, concise, github):
                    other.render(report)


def _check_positions(data: dict[str, Any]) -> None:
    """A range that a pointer belongs to must cut the value, or its key, out of the file's text."""
    for finding in data["findings"]:
        for place in (finding, *finding["related"]):
            if place["range"] is None or not place["pointer"]:
                continue
            text = Path(place["path"]).read_bytes().decode("utf-8")
            found = json.loads(_cut(text, place["range"]))
            steps = [step.replace("~1", "/").replace("~0", "~") for step in place["pointer"].split("/")[1:]]
            value = json.loads(text)
            for step in steps:
                value = value[int(step)] if isinstance(value, list) else value[step]
            assert found in (value, steps[-1]) or found != found


def _cut(text: str, span: dict[str, Any]) -> str:
    starts = [0, *(match.end() for match in re.finditer("\r\n|\r|\n", text))]
    first, last = (starts[span[end]["line"] - 1] + span[end]["column"] - 1 for end in ("start", "end"))
    return text[first:last]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"extra": 1},
        {"targets": ["peft"]},
        {"summary": {}},
        {"base": {}},
        {"skipped": [{"rule": "AL401", "path": "x", "needs": "luck"}]},
    ],
)
def test_the_schema_refuses(change: dict[str, Any], tmp_path: Path) -> None:
    example = next(rule for rule in all_rules() if rule.code == "AL207").invalid()[0]
    data = json.loads(reporter.render(report_on(example, tmp_path)))
    VALIDATOR.validate(data)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({**data, **change})


def test_the_schema_refuses_contradictory_verdicts(tmp_path: Path) -> None:
    example = next(rule for rule in all_rules() if rule.code == "AL207").invalid()[0]
    data = json.loads(reporter.render(report_on(example, tmp_path)))
    verdict = data["adapters"][0]["verdicts"]["peft==0.21.2"]
    for change in ({"exception": None}, {"outcome": "loads"}, {"assumes": ["base"]}, {"rules": []}, {"new": 1}):
        broken = json.loads(json.dumps(data))
        broken["adapters"][0]["verdicts"]["peft==0.21.2"] = {**verdict, **change}
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(broken)


def test_json_has_the_findings_that_nobody_asked_for(tmp_path: Path) -> None:
    plain = Example("plain", lora_config(), llama_tensors())
    report = report_on(
        SetExample("one name starts the other", {"sum": plain, "summary": plain}, llama_base()), tmp_path
    )
    about = [f for f in reporter.as_dict(report)["findings"] if {e["operation"] for e in f["effects"]} == {"save"}]
    assert len(about) == 1
    for other in (full, concise, github):
        assert about[0]["message"] not in other.render(report)
        assert about[0]["message"] in other.render(report._replace(operations=frozenset({"save"})))
