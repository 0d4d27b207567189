"""The workflows and pre-commit configurations in README.md and docs/, under the programs that read such files."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from blocks import PAGES, ROOT, blocks

YAML = [(page, block) for page in PAGES for block in blocks(page) if block.language == "yaml"]


STEPS = "on: push\njobs:\n  one:\n    runs-on: ubuntu-latest\n    steps:\n"


def whole(text: str) -> tuple[str, str]:
    """The kind of file that a block is, or is part of, and that file."""
    if "jobs:" in text:
        return "workflow", text
    if text.startswith("- uses:"):
        return "workflow", STEPS + textwrap.indent(text, "      ")
    if "hooks:" in text:
        return "pre-commit", text if "repos:" in text else f"repos:\n{text}"
    return "gitlab", text


def test_there_are_both_kinds() -> None:
    assert {whole(block.text)[0] for _, block in YAML} >= {"workflow", "pre-commit"}


@pytest.mark.parametrize(
    ("page", "number"),
    [pytest.param(page, n, id=f"{page.relative_to(ROOT)}:{block.line}") for n, (page, block) in enumerate(YAML)],
)
def test_yaml(page: Path, number: int, tmp_path: Path) -> None:
    kind, text = whole(YAML[number][1].text)
    done = validated(kind, text, tmp_path)
    assert done.returncode == 0, f"{page}:{YAML[number][1].line}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("kind", "old", "new"), [("workflow", "runs-on:", "run-on:"), ("pre-commit", "- id:", "- di:")]
)
def test_a_mistake_is_seen(kind: str, old: str, new: str, tmp_path: Path) -> None:
    text = next(text for found, text in (whole(block.text) for _, block in YAML) if found == kind)
    assert old in text and validated(kind, text.replace(old, new), tmp_path).returncode == 1


def validated(kind: str, text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """The verdict of pre-commit about its configuration, and of check-jsonschema about other files."""
    file = directory / "block.yaml"
    file.write_text(text)
    if kind == "pre-commit":
        pytest.importorskip("pre_commit")
        command = ["pre_commit", "validate-config", str(file)]
    else:
        pytest.importorskip("check_jsonschema")
        schema = {"workflow": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}[kind]
        command = ["check_jsonschema", "--builtin-schema", schema, str(file)]
    return subprocess.run([sys.executable, "-m", *command], cwd=directory, capture_output=True, text=True, timeout=60)
