"""The action's files under the tools that know the format, and its script run by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SEED = ROOT / "fixtures" / "sets" / "seed"


def tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([str(BIN), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", "action.yml"),
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
        ("vendor.github-workflows", ".github/workflows/schemas.yml"),
    ],
)
def test_schema(schema: str, file: str) -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", schema, str(ROOT / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing() -> None:
    command = [
        tool("zizmor"),
        "--offline",
        "--no-progress",
        str(ROOT / "action.yml"),
        str(ROOT / ".github" / "workflows"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_input_is_pasted_into_a_script() -> None:
    text = (ROOT / "action.yml").read_text()
    for line in text.splitlines():
        if line.strip().startswith("run:"):
            assert "${{" not in line


def run_check(tmp_path: Path, paths: str, **more: str) -> tuple[Path, Path, str]:
    """The check step as a runner would start it; the tool is the adapterlint of this environment."""
    temp = tmp_path / "temp"
    (temp / "adapterlint" / "bin").mkdir(parents=True)
    for name in ("adapterlint", "python"):
        script = temp / "adapterlint" / "bin" / name
        module = " -m adapterlint" if name == "adapterlint" else ""
        script.write_text(f'#!/bin/sh\nexec {sys.executable}{module} "$@"\n')
        script.chmod(0o755)
    outputs, summary = tmp_path / "outputs", tmp_path / "summary"
    environment = {
        **os.environ,
        "RUNNER_TEMP": str(temp),
        "GITHUB_OUTPUT": str(outputs),
        "GITHUB_STEP_SUMMARY": str(summary),
        "ADAPTERLINT_PATHS": paths,
        "ADAPTERLINT_TARGETS": "peft>=0.6\n",
        "ADAPTERLINT_BASE": str(ROOT / "fixtures" / "base" / "seed"),
        "ADAPTERLINT_FAIL_ON": "error",
        **more,
    }
    script = ROOT / ".github" / "action" / "check.sh"
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return outputs, summary, done.stdout


def test_outputs_and_summary_of_a_set_that_breaks(tmp_path: Path) -> None:
    outputs, summary, printed = run_check(tmp_path, f"{SEED}\n")
    found = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    assert found["status"] == "1"
    assert found["errors"] == "1"
    findings = json.loads(Path(found["report"]).read_text())["findings"]
    assert [finding["rule"] for finding in findings if finding["severity"] == "error"] == ["AL501"]
    assert printed.startswith("::error ")
    assert "differing-saved-modules" in summary.read_text()
    assert summary.read_text().count("```") == 2


def test_nothing_to_check_is_no_failure(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    outputs, _, printed = run_check(tmp_path, str(empty))
    assert "status=0" in outputs.read_text().splitlines()
    assert "no adapters found" in printed


def test_usage_errors_fail(tmp_path: Path) -> None:
    outputs, summary, _ = run_check(tmp_path, str(SEED), ADAPTERLINT_TARGETS="peft==9.9")
    assert "status=2" in outputs.read_text().splitlines()
    assert "no bundled release" in summary.read_text()


@pytest.mark.parametrize("version", ["1.0; rm -rf /", "--pre", "latest", "$(id)"])
def test_versions_are_release_numbers(tmp_path: Path, version: str) -> None:
    script = ROOT / ".github" / "action" / "install.sh"
    environment = {
        **os.environ,
        "ADAPTERLINT_VERSION": version,
        "RUNNER_TEMP": str(tmp_path),
        "ADAPTERLINT_SOURCE": ".",
    }
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "version must be a release number" in done.stdout
    assert not (tmp_path / "adapterlint").exists()
