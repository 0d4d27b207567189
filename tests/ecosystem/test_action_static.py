"""The action's files under the tools that know the format, and its script run by itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
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
        *(("vendor.github-workflows", f".github/workflows/{path.name}") for path in WORKFLOWS),
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
    assert "sarif" not in found and "stop-commands" not in printed


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


def test_sarif_file_and_fix(tmp_path: Path) -> None:
    """A file below a directory that is made; the diff in the log, where no name is a command, and in the summary."""
    sarif = tmp_path / "new" / "a b.sarif"
    outputs, summary, printed = run_check(
        tmp_path, f"{SEED}\n", ADAPTERLINT_SARIF_FILE=str(sarif), ADAPTERLINT_FIX="true"
    )
    found = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    assert found["sarif"] == str(sarif)
    assert [result["ruleId"] for result in json.loads(sarif.read_text())["runs"][0]["results"]][:1] == ["AL501"]
    stop = re.search(r"^::stop-commands::(adapterlint-[0-9a-f]{32})\n(.*?)^::\1::$", printed, re.MULTILINE | re.DOTALL)
    assert stop and "adapter_config.json" in stop[2]
    assert "### adapterlint fix\n\n```diff\n" in summary.read_text()
    assert summary.read_text().count("```") == 2


def test_fix_fails_where_only_it_finds_something(tmp_path: Path) -> None:
    shutil.copytree(SEED / "a", tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": ', '"no_such_key": 1,\n  "r": '))
    for number, (fix, fail_on, status) in enumerate(
        [("false", "error", "0"), ("true", "error", "1"), ("true", "never", "0")]
    ):
        (tmp_path / str(number)).mkdir()
        more = {"ADAPTERLINT_FIX": fix, "ADAPTERLINT_FAIL_ON": fail_on, "ADAPTERLINT_TARGETS": ""}
        outputs, _, printed = run_check(tmp_path / str(number), str(tmp_path / "adapter"), **more)
        found = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
        assert found["status"] == status, printed


def test_a_matcher_for_the_concise_format(tmp_path: Path) -> None:
    """GitHub's problem matchers: JavaScript's expressions, of which these mean the same in Python."""
    matchers = json.loads((ROOT / ".github" / "adapterlint-matcher.json").read_text())["problemMatcher"]
    patterns = {item["owner"]: item["pattern"][0] for item in matchers}
    command = [sys.executable, "-m", "adapterlint", "check", "fixtures/hostile", "fixtures/sets", "--format", "concise"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.splitlines()
    seen = dict.fromkeys(patterns, 0)
    for line in lines:
        found = {owner: match for owner, item in patterns.items() if (match := re.search(item["regexp"], line))}
        severe = re.search(r": (error|warning) AL\d{3} ", line)
        assert len(found) == bool(severe), line  # one annotation a finding, none for notes and the summary
        for owner, match in found.items():
            item = patterns[owner]
            seen[owner] += 1
            assert (ROOT / match[item["file"]]).exists() or "\\" in line or "..." in line, line
            assert match[item["code"]].startswith("AL") and match[item["severity"]] in ("error", "warning")
            assert not match[item["message"]].startswith("[*]")
    assert all(count > 5 for count in seen.values()), seen


def test_the_workflow_of_the_readme(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (workflow,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "\njobs:" in block]
    assert len(workflow.splitlines()) <= 10
    file = tmp_path / "lint.yml"
    file.write_text(workflow)
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs = (ROOT / "action.yml").read_text().partition("\noutputs:")[0]
    used = workflow.rpartition("with: {")[2].partition("}")[0]
    assert used
    for name in re.findall(r"([a-z-]+):", used):
        assert f"\n  {name}:\n" in inputs


def test_the_configured_severity_decides_where_the_input_is_empty(tmp_path: Path) -> None:
    shutil.copytree(SEED / "a", tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 8'))
    for number, (configured, given, status) in enumerate(
        [("error", "", "1"), ("never", "", "0"), ("never", "error", "1"), ("error", "never", "0")]
    ):
        (tmp_path / "adapterlint.toml").write_text(f"fail-on = '{configured}'\n")
        (tmp_path / str(number)).mkdir()
        more = {"ADAPTERLINT_FAIL_ON": given, "ADAPTERLINT_TARGETS": ""}
        outputs, _, printed = run_check(tmp_path / str(number), str(tmp_path / "adapter"), **more)
        assert dict(line.split("=", 1) for line in outputs.read_text().splitlines())["status"] == status, printed
