"""The pipeline of ``fix``: rules that crash never lead to writing, and passes that follow one another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixing_util import snapshot

from adapterlint.cli import main
from adapterlint.findings import Finding
from adapterlint.fixing.errors import InternalError, PlanError
from adapterlint.fixing.repair import AdapterPlan, FixReport, FixRequest, repair
from adapterlint.fixing.system import STAGE
from adapterlint.model.subject import SetSubject, Subject
from adapterlint.rules.examples import Example, llama_base, llama_tensors, lora_config, renamed, write, write_base
from adapterlint.rules.registry import all_rules
from adapterlint.rules.sets.differing_saved_modules import DifferingSavedModules
from adapterlint.rules.tensors.rank_mismatch import RankMismatch
from adapterlint.run import Request

CRASH = "the rule has crashed"
INFIX = ".default."


@pytest.fixture
def infixed(tmp_path: Path) -> Path:
    """An adapter whose names have to be changed."""
    tensors = renamed(llama_tensors(), lambda name: name.replace(".weight", ".default.weight"))
    return write(Example("infixed", lora_config(), tensors), tmp_path / "infixed")


@pytest.fixture
def two_passes(tmp_path: Path) -> Path:
    """An adapter of which one file is renamed before the other one can be planned."""
    rule = next(rule for rule in all_rules() if rule.code == "AL005")
    example = next(each for each in rule.invalid() if each.title == "safetensors named .bin")
    assert isinstance(example, Example) and isinstance(example.config, dict)
    return write(example._replace(config={**example.config, "use_dora": False}), tmp_path / "raw")


def request(*paths: Path, targets: tuple[str, ...] = ("peft==0.8.2",), base: Path | None = None) -> Request:
    return Request([str(path) for path in paths], targets, str(base) if base else None)


def crash_where(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Subject], bool]) -> None:
    def check(self: RankMismatch, subject: Subject) -> Iterator[Finding]:
        if wrong(subject):
            raise RuntimeError(CRASH)
        return iter(())

    monkeypatch.setattr(RankMismatch, "check", check)


def is_infixed(subject: Subject) -> bool:
    return any(INFIX in name for name in subject.adapter.tensors)


MOMENTS: dict[str, Callable[[Subject], bool]] = {
    "as it is": is_infixed,
    "as planned": lambda subject: not is_infixed(subject) and STAGE not in subject.adapter.path,
    "as staged": lambda subject: STAGE in subject.adapter.path,
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", ["inplace", "output"])
def test_nothing_is_written_when_a_rule_crashes(
    moment: str, way: str, infixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_where(monkeypatch, MOMENTS[moment])
    before = snapshot(tmp_path)
    wanted = FixRequest(request(infixed))
    wanted = wanted._replace(inplace=True) if way == "inplace" else wanted._replace(output=str(tmp_path / "out"))
    with pytest.raises(InternalError, match=r"^internal error in a rule; nothing was") as caught:
        repair(wanted)
    assert all(CRASH in trace for trace in caught.value.traces) and caught.value.traces
    flags = ["--inplace"] if way == "inplace" else ["--output", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["fix", str(infixed), "--target", "peft==0.8.2", *flags])
    assert done.exit_code == 2 and CRASH in done.stderr
    assert f"Error: {caught.value}\n" in done.stderr
    assert snapshot(tmp_path) == before


def test_a_set_rule_that_crashes_on_the_plan_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = renamed(llama_tensors(), lambda name: name.replace(".weight", ".default.weight"))
    paths = [write(Example(name, lora_config(), tensors), tmp_path / name) for name in "ab"]

    def check(self: DifferingSavedModules, subject: SetSubject) -> Iterator[Finding]:
        if not any(is_infixed(member) for member in subject.members):
            raise RuntimeError(CRASH)
        return iter(())

    monkeypatch.setattr(DifferingSavedModules, "check", check)
    before = snapshot(tmp_path)
    with pytest.raises(InternalError, match="nothing was written"):
        repair(FixRequest(request(*paths), inplace=True))
    assert snapshot(tmp_path) == before


def test_each_pass_is_told_of(two_passes: Path) -> None:
    passes: list[tuple[AdapterPlan, ...]] = []
    report = repair(FixRequest(request(two_passes), inplace=True), lambda plans: passes.append(tuple(plans)))
    assert [plan.fixes[0].partition(":")[0] for (plan,) in passes] == ["AL005", "AL104"]
    assert report.plans == passes[0] + passes[1]
    assert [proof.path for proof in report.proofs] == [str(two_passes)] * 2 and report.written
    assert report.left == report.refusals == () and report.diff == ""


def test_fixes_that_come_to_no_end_are_an_error(two_passes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapterlint.fixing.repair.MAX_PASSES", 1)
    with pytest.raises(InternalError, match="do not come to an end; nothing more was written"):
        repair(FixRequest(request(two_passes), inplace=True))


def test_json_is_printed_where_there_is_nothing_to_write(two_passes: Path, tmp_path: Path) -> None:
    repair(FixRequest(request(two_passes), inplace=True))
    arguments = [
        "fix",
        str(two_passes),
        "--target",
        "peft==0.8.2",
        "--output",
        str(tmp_path / "new"),
        "--format",
        "json",
    ]
    done = CliRunner().invoke(main, arguments)
    assert json.loads(done.stdout)["plans"] == [] and not (tmp_path / "new").exists()


def test_a_crash_in_the_second_pass_leaves_the_first(two_passes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash_where(monkeypatch, lambda subject: subject.adapter.readable and STAGE not in subject.adapter.path)
    done = CliRunner().invoke(main, ["fix", str(two_passes), "--target", "peft==0.8.2", "--inplace"])
    assert done.exit_code == 2 and "Error: internal error in a rule; nothing more was written\n" in done.stderr
    assert f"{two_passes}: AL005: " in done.stderr
    assert (two_passes / "adapter_model.safetensors").exists()
    assert json.loads((two_passes / "adapter_config.json").read_text())["use_dora"] is False


def test_copies_get_no_backups(two_passes: Path, tmp_path: Path) -> None:
    report = repair(FixRequest(request(two_passes), output=str(tmp_path / "out"), backup=True))
    assert len(report.proofs) == 2
    assert report.plans[1].path == report.proofs[1].path == str(tmp_path / "out" / "raw")
    assert sorted(path.name for path in (tmp_path / "out" / "raw").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """The rank is a text, so that there is no scale that the form could keep."""
    base = write_base(llama_base(), tmp_path / "base")
    path = write(Example("text", lora_config(r="4", lora_alpha=8), llama_tensors()), tmp_path / "text")
    before = snapshot(tmp_path)
    wanted = FixRequest(request(path, base=base), form="portable", inplace=True)
    with pytest.raises(PlanError, match=r"no usable scale for .*r is '4'.*: fix it without a form first"):
        repair(wanted)
    assert snapshot(tmp_path) == before
    assert repair(wanted._replace(form=None)).written and repair(wanted).written


def test_no_adapter_is_an_empty_report(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for way in (FixRequest(request(tmp_path)), FixRequest(request(tmp_path), form="lowrank", inplace=True)):
        assert repair(way) == FixReport()
