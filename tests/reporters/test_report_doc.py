"""docs/reports.md: every format has a section, and its sample is what the tool writes.

``ADAPTERLINT_SNAPSHOTS=1 pytest`` writes the samples anew.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path

import pytest
from reports_util import report_of

from adapterlint.cli.reports import FORMATS
from adapterlint.report import Report
from adapterlint.rules.examples import Example, llama_tensors, lora_config
from adapterlint.suppress import Selection

DOC = Path(__file__).parents[2] / "docs" / "reports.md"
LANGUAGES = {
    "full": "text",
    "concise": "text",
    "github": "text",
    "junit": "xml",
    "markdown": "markdown",
    "html": "html",
}
SAMPLE = re.compile(r"<!-- sample: (\w+) -->\n(?:\n(`{3,})\w+\n.*?\n\2\n)?", re.DOTALL)


def report() -> Report:
    example = Example("rank", lora_config(r=8), llama_tensors(4))
    return report_of({"adapters/sst2": example}, targets=["peft==0.21.2"], selection=Selection(select=("AL207",)))


def sample(format_: str, found: Report) -> str:
    """What the page shows of a format."""
    text: str = importlib.import_module(f"adapterlint.reporters.{format_}").render(found)
    if format_ == "json":
        return json.dumps(json.loads(text)["findings"][0], indent=2)
    if format_ == "sarif":
        return json.dumps(json.loads(text)["runs"][0]["results"][0], indent=2)
    if format_ == "html":
        return "\n".join(re.findall(r"<tr.*", text))
    return re.sub(r"\b\d+ checks? needs?", "9 checks need", text)


@pytest.mark.parametrize("format_", FORMATS)
def test_samples_are_current(format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    found = report()
    if format_ == "jsonl":
        found = found._replace(skipped=())
    wanted = sample(format_, found)
    fence = "````" if "```" in wanted else "```"
    block = f"<!-- sample: {format_} -->\n\n{fence}{LANGUAGES.get(format_, 'json')}\n{wanted}\n{fence}\n"
    text = DOC.read_text()
    (old,) = [match.group() for match in SAMPLE.finditer(text) if match[1] == format_]
    if os.environ.get("ADAPTERLINT_SNAPSHOTS"):
        DOC.write_text(text.replace(old, block))
        return
    assert old == block, "ADAPTERLINT_SNAPSHOTS=1 writes the samples anew"


def test_every_format_has_a_section() -> None:
    text = DOC.read_text()
    assert re.findall(r"^## (.*)$", re.sub(r"(`{3,}).*?\n\1", "", text, flags=re.DOTALL), re.MULTILINE) == list(FORMATS)
    assert re.findall(r"^\| \[(\w+)\]\(#\1\)", text, re.MULTILINE) == list(FORMATS)
