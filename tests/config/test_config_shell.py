"""Configuration, ignores and the baseline, in a real shell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from config_util import adapters, shell


@pytest.fixture
def project(tmp_path: Path) -> Path:
    adapters(tmp_path)
    (tmp_path / ".git").mkdir()
    return tmp_path


def rules(project: Path, arguments: str = "adapters") -> list[str]:
    """Codes of what check reports, sorted, each once."""
    done = shell(f"adapterlint check {arguments} -o concise --quiet", project)
    assert done.returncode in (0, 1), done.stderr
    return sorted({*re.findall(r" (AL\d{3}) ", done.stdout)} - {"AL508"})


@pytest.mark.parametrize(("name", "head"), [("adapterlint.toml", ""), ("pyproject.toml", "[tool.adapterlint]\n")])
def test_a_file_is_found_and_used(name: str, head: str, project: Path) -> None:
    assert rules(project) == ["AL207", "AL301"]
    (project / name).write_text(head + 'ignore = ["AL207"]\ntargets = ["peft==0.8.2"]\n')
    assert rules(project) == ["AL301"]
    report = json.loads(shell("adapterlint check rank -o json", project / "adapters").stdout)
    assert report["targets"] == ["peft==0.8.2"]
    assert report["findings"] == []
    assert report["adapters"][0]["verdicts"]["peft==0.8.2"]["outcome"] == "raises"  # whatever is ignored
    assert rules(project, "adapters --isolated") == ["AL207", "AL301"]
    assert rules(project, "adapters --select AL207") == ["AL207"]
    shown = shell("adapterlint config adapters", project)
    assert f'ignore = ["AL207"]  # {name}:{1 + bool(head)}' in shown.stdout.splitlines()
    assert f'targets = ["peft==0.8.2"]  # {name}:{2 + bool(head)}' in shown.stdout.splitlines()
    assert 'fail-on = "error"  # default' in shown.stdout.splitlines()


def test_what_is_wrong_with_a_file_is_said_in_one_line(project: Path) -> None:
    (project / "adapterlint.toml").write_text('targets = ["peft"]\nignroe = ["AL207"]\n')
    for command in ("check adapters", "fix adapters", "matrix adapters", "baseline adapters", "config", "rule AL207"):
        done = shell(f"adapterlint {command}", project)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr == 'Error: adapterlint.toml:2: unknown key "ignroe"; did you mean ignore?\n'


def test_exit_codes(project: Path) -> None:
    assert shell("adapterlint check adapters/fine", project).returncode == 0
    assert shell("adapterlint check adapters", project).returncode == 1
    (project / "adapterlint.toml").write_text('fail-on = "never"\n')
    assert shell("adapterlint check adapters", project).returncode == 0
    assert shell("adapterlint check adapters --fail-on error", project).returncode == 1
    (project / "adapterlint.toml").write_text("fail-on = never\n")
    assert shell("adapterlint check adapters", project).returncode == 2
    (project / "empty").mkdir()
    assert shell("adapterlint check empty --isolated", project).returncode == 3


def test_ignores(project: Path) -> None:
    before = {path: path.read_bytes() for path in (project / "adapters").rglob("*") if path.is_file()}
    (project / "adapterlint.toml").write_text("""
[[ignores]]
pointer = "/r"
path = "adapters/ra*"
reason = "r is right, the tensors are cut"

[[ignores]]
rule = "AL301"
tensor = "*.q_proj.lora_A.weight"
reason = "NaN is what this one is for"
until = 2999-12-31

[[ignores]]
rule = "rank-mismatch"
path = "adapters/fine"
reason = "was wrong once"

[[ignores]]
rule = "rank-mismatch"
reason = "until somebody has looked"
until = 2020-01-01
""")
    done = shell("adapterlint check adapters -o concise --select AL --ignore AL508", project)
    lines = [line for line in done.stdout.splitlines() if line.startswith("adapterlint.toml:")]
    assert [line.split(": ")[0] for line in lines] == ["adapterlint.toml:13:1", "adapterlint.toml:18:1"]
    assert "AL901" in lines[0] and "was wrong once" in lines[0]
    assert "AL902" in lines[1] and "2020-01-01" in lines[1]
    assert "AL207" not in done.stdout and "AL301" not in done.stdout
    assert done.returncode == 0
    assert shell("adapterlint check adapters --fail-on warning", project).returncode == 1
    assert before == {path: path.read_bytes() for path in (project / "adapters").rglob("*") if path.is_file()}


def test_baseline(project: Path) -> None:
    def run(arguments: str) -> tuple[int, str]:
        done = shell(f"adapterlint {arguments}", project)
        return done.returncode, done.stdout

    before = {path: path.read_bytes() for path in (project / "adapters").rglob("*") if path.is_file()}
    assert run("baseline --check adapters")[0] == 1
    assert not (project / "adapterlint-baseline.txt").exists()
    assert run("baseline --write adapters")[0] == 0
    text = (project / "adapterlint-baseline.txt").read_text()
    assert text.splitlines()[1:] == sorted(text.splitlines()[1:])
    assert "adapters/rank/adapter_config.json\tAL207\t/r\traises" in text.splitlines()
    assert run("baseline --check adapters")[0] == 0
    assert run("check adapters --baseline adapterlint-baseline.txt --fail-on note")[0] == 0
    (project / "adapterlint.toml").write_text('baseline = "adapterlint-baseline.txt"\n')
    assert run("check adapters --fail-on note")[0] == 0
    assert before == {path: path.read_bytes() for path in (project / "adapters").rglob("*") if path.is_file()}

    config = project / "adapters" / "rank" / "adapter_config.json"
    config.write_text("\n\n\n" + config.read_text())  # lines move, the finding is the same
    assert run("check adapters --fail-on note")[0] == 0
    config.write_text(config.read_text().replace('"r": 8', '"r": 4'))
    other = project / "adapters" / "fine" / "adapter_config.json"
    other.write_text(other.read_text().replace('"r": ', '"r": 1'))
    code, out = run("check adapters -o concise")
    assert code == 1 and "AL207" in out and "AL903" in out and "adapterlint-baseline.txt:" in out
    code, out = run("baseline --check adapters")
    assert code == 1
    assert "-adapters/rank/adapter_config.json\tAL207\t/r\traises" in out.splitlines()
    assert "+adapters/fine/adapter_config.json\tAL207\t/r\traises" in out.splitlines()
    assert run("baseline --prune adapters")[0] == 0
    assert "adapters/rank/adapter_config.json\tAL207" not in (project / "adapterlint-baseline.txt").read_text()
    assert "adapters/fine/adapter_config.json\tAL207" not in (project / "adapterlint-baseline.txt").read_text()
    assert run("baseline --write adapters")[0] == 0
    assert run("check adapters --fail-on note")[0] == 0


def test_two_runs_write_the_same(project: Path) -> None:
    (project / "adapterlint.toml").write_text('[[ignores]]\nrule = "AL105"\nreason = "nothing"\n')
    command = "adapterlint check adapters -o sarif=a.sarif -o concise=a.txt --quiet --exit-zero"
    shell(command, project)
    shell(command.replace("=a.", "=b."), project)
    for ending in ("sarif", "txt"):
        first, second = ((project / f"{name}.{ending}").read_text() for name in "ab")
        assert first == second and "AL901" in first


def test_every_report_tells_of_the_configuration(project: Path) -> None:
    (project / "adapterlint.toml").write_text("\n[[ignores]]\nrule = 'AL105'\nreason = 'nothing & <nobody>'\n")
    formats = ("full", "concise", "json", "jsonl", "sarif", "github", "gitlab", "junit", "markdown", "html", "rdjson")
    files = " ".join(f"-o {name}=out.{name}" for name in formats)
    assert shell(f"adapterlint check adapters {files} --quiet", project).returncode == 1
    for name in formats:
        text = (project / f"out.{name}").read_text()
        assert "AL901" in text and "adapterlint.toml" in text, name
    junit = ElementTree.parse(project / "out.junit").getroot()
    cases = [case for case in junit.iter("testcase") if case.get("classname") == "adapterlint.settings"]
    assert [case.get("name") for case in cases] == ["configuration"] and int(junit.get("tests", 0)) == 5
    assert "nothing & <nobody>" in (cases[0].findtext("system-out") or "")
    results = json.loads((project / "out.sarif").read_text())["runs"][0]["results"]
    result = next(item for item in results if item["ruleId"] == "AL901")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "adapterlint.toml" and place["region"]["startLine"] == 2
