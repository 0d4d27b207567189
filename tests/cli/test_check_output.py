"""--statistics, --quiet and --timing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_util import run

from adapterlint import checking
from adapterlint.rules.examples import Example, llama_tensors, lora_config, write
from adapterlint.rules.registry import adapter_rules, set_rules


@pytest.fixture(autouse=True)
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".git").mkdir()
    write(Example("fine", lora_config(), llama_tensors()), Path("fine"))
    for name in ("one", "two"):
        write(Example("rank", lora_config(r=8, use_dora=False), llama_tensors(4)), Path("all") / name)


def test_statistics() -> None:
    result = run("check", "all", "--no-sets", "--statistics", "--target", "peft==0.8.2")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[:3] for row in rows] == [["2", "AL104", "key-outside-target"], ["2", "AL207", "rank-mismatch"]]
    assert rows[0][3:] == ["2", "error,", "2", "fixable"] and rows[1][3:] == ["2", "error"]
    assert result.exit_code == 1
    assert run("check", "all", "--no-sets", "--statistics", "--fail-on", "never").exit_code == 0
    nothing = run("check", "fine", "--statistics")
    assert (nothing.stdout, nothing.exit_code) == ("No findings\n", 0)
    assert run("check", "fine", "--statistics", "--quiet").stdout == ""


def test_statistics_count_what_is_reported() -> None:
    counted = json.loads(run("check", "all", "--statistics", "-o", "json").stdout)
    report = json.loads(run("check", "all", "-o", "json").stdout)
    shown = run("check", "all", "-o", "concise").stdout
    assert [entry["rule"] for entry in counted] == sorted(
        {entry["rule"] for entry in counted}, key=lambda rule: (-shown.count(f" {rule} "), rule)
    )
    for entry in counted:
        assert entry["count"] == shown.count(f" {entry['rule']} ")
        assert entry["count"] == entry["error"] + entry["warning"] + entry["note"]
    summary = report["summary"]
    assert sum(entry["error"] for entry in counted) == summary["errors"]
    fewer = json.loads(run("check", "all", "--statistics", "-o", "json", "--ignore", "AL207").stdout)
    assert [entry for entry in counted if entry["rule"] != "AL207"] == fewer


def test_statistics_stand_for_the_report_on_the_standard_output_only() -> None:
    result = run("check", "all", "--statistics", "-o", "sarif=out.sarif")
    assert "rank-mismatch" in result.stdout and "-->" not in result.stdout
    assert json.loads(Path("out.sarif").read_text())["runs"][0]["results"]
    refused = run("check", "all", "--statistics", "-o", "junit")
    assert refused.exit_code == 2 and "not as junit" in refused.stderr


@pytest.mark.parametrize("format_", ["full", "concise", "github"])
def test_quiet(format_: str) -> None:
    loud = run("check", "all", "-o", format_).stdout
    quiet = run("check", "all", "-o", format_, "--quiet").stdout
    assert quiet.rstrip("\n") and loud.startswith(quiet.rstrip("\n")) and len(quiet) < len(loud)
    assert "AL207" in quiet and "Found" in loud and "Found" not in quiet
    assert ("raises on" in loud) is (format_ != "concise")
    silent = run("check", "fine", "-o", format_, "-q")
    assert (silent.output, silent.exit_code) == ("", 0)


def test_quiet_changes_no_report_for_machines() -> None:
    for format_ in ("json", "sarif", "junit"):
        texts = [run("check", "all", "-o", format_, *quiet).stdout for quiet in ((), ("-q",))]
        loud, quiet = (re.sub(r'"seconds": [\d.]+|time="[\d.]+"', "", text) for text in texts)
        assert loud == quiet


def test_timing() -> None:
    result = run("check", "all", "--timing")
    assert "AL207" in result.stdout and "rule" not in result.stdout.split("\n", 1)[0].split()
    rows = re.findall(r"^ +(\d+\.\d\d) +(\d+)  (AL\d{3}) (\S+)$", result.stderr, re.MULTILINE)
    times = [float(row[0]) for row in rows]
    assert times == sorted(times, reverse=True)
    runs = {code: int(count) for _, count, code, _ in rows}
    assert runs["AL207"] == 2  # once an adapter
    names = {rule.code: rule.name for rule in (*adapter_rules(), *set_rules())}
    assert all(names[code] == name for _, _, code, name in rows)
    assert runs.keys() >= {rule.code for rule in adapter_rules() if not {"base", "payload"} & {*rule.needs}}
    total = float(re.findall(r"^ +(\d+\.\d\d) +all rules$", result.stderr, re.MULTILINE)[0])
    assert total == pytest.approx(sum(times), abs=0.01 * len(times))
    assert "the rest: reading, verdicts, places" in result.stderr


def test_timing_leaves_nothing_behind() -> None:
    enough = checking.ENOUGH
    plain = run("check", "all").stdout
    run("check", "all", "--timing")
    assert enough == checking.ENOUGH
    assert not any("check" in vars(rule) for rule in (*adapter_rules(), *set_rules()))
    again = run("check", "all")
    assert again.stderr == ""
    assert re.sub(r"\d\.\d\d s", "", again.stdout) == re.sub(r"\d\.\d\d s", "", plain)
