"""``adapterlint.fix``: what it plans, writes, refuses and says, and that the command says the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from cli.cli_util import run

import adapterlint
from adapterlint.findings import CopyTensor, SetConfig
from adapterlint.rules.examples import (
    Example,
    llama_base,
    llama_tensors,
    lora_config,
    renamed,
    write,
    write_any,
    write_base,
)
from adapterlint.rules.registry import all_rules
from adapterlint.rules.tensors.rank_mismatch import RankMismatch

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
BASE = FIXTURES / "base" / "seed"
OLD = ["peft>=0.6"]


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """A copy of the seed set, which needs the union form on older releases."""
    return Path(shutil.copytree(FIXTURES / "sets" / "seed", tmp_path / "seed"))


@pytest.fixture
def rank(tmp_path: Path) -> Path:
    """An adapter with one safe fix, and one that is not."""
    infixed = renamed(llama_tensors(4), lambda name: name.replace(".weight", ".default.weight"))
    return write(Example("rank", lora_config(r=8), infixed), tmp_path / "rank")


def hashes(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def as_printed(report: adapterlint.FixReport) -> dict[str, Any]:
    """A report as ``fix --format json`` has it."""
    printed: dict[str, Any] = json.loads(
        json.dumps(
            {
                "version": 1,
                "plans": [
                    {"path": plan.path, "fixes": plan.fixes, "edits": [edit._asdict() for edit in plan.edits]}
                    for plan in report.plans
                ],
                "proofs": [asdict(proof) for proof in report.proofs],
                "refusals": [asdict(refusal) for refusal in report.refusals],
                "left": [{"rule": left.finding.rule, "message": left.finding.message} for left in report.left],
            }
        )
    )
    return printed


# -- the plan, in place, copies ------------------------------------------------------------------------------------


def test_a_plan_writes_nothing(seed: Path, tmp_path: Path) -> None:
    before = hashes(tmp_path)
    report = adapterlint.fix(seed, base=BASE, targets=OLD)
    assert hashes(tmp_path) == before
    assert report.adapters == tuple(str(seed / name) for name in "abcd")
    assert [plan.path for plan in report.plans] == list(report.adapters)
    assert all(fix.startswith("union: ") for plan in report.plans for fix in plan.fixes)
    first = report.plans[0].edits
    assert SetConfig("/modules_to_save", ["bert.pooler.dense", "classifier"]) in first
    assert {type(edit) for edit in first} == {SetConfig, CopyTensor}
    assert report.diff == run("fix", str(seed), "--base", str(BASE), "--target", *OLD).stdout
    assert report.proofs == report.left == report.refusals == () and not report.written


def test_in_place_and_once_more(seed: Path) -> None:
    before = hashes(seed)
    report = adapterlint.fix(str(seed), base=str(BASE), targets=OLD, inplace=True)
    after = hashes(seed)
    assert report.written and report.diff == "" and report.left == report.refusals == ()
    assert [proof.path for proof in report.proofs] == [plan.path for plan in report.plans] == list(report.adapters)
    assert [proof.copied for proof in report.proofs] == [2, 2, 2, 4] and all(p.untouched for p in report.proofs)
    changed = {f"{name}/{file}" for name in "abcd" for file in ("adapter_config.json", "adapter_model.safetensors")}
    assert {name for name in before if after[name] != before[name]} == changed and after.keys() == before.keys()
    (checked,) = adapterlint.check(seed, base=BASE, targets=OLD).sets
    assert {verdict.outcome for verdict in checked.verdicts.values()} == {adapterlint.Outcome.LOADS}
    again = adapterlint.fix(seed, base=BASE, targets=OLD, inplace=True)
    assert again == adapterlint.FixReport(report.adapters) and hashes(seed) == after


def test_copies(seed: Path, tmp_path: Path) -> None:
    before, output = hashes(seed), tmp_path / "new" / "place"
    report = adapterlint.fix(seed, base=BASE, targets=OLD, output=output)
    assert report.written and hashes(seed) == before
    adapterlint.fix(seed, base=BASE, targets=OLD, inplace=True)
    assert hashes(output) == hashes(seed) and hashes(output) != before
    with pytest.raises(adapterlint.UserError, match="a: it exists, and would be overwritten"):
        adapterlint.fix(FIXTURES / "sets" / "seed", base=BASE, targets=OLD, output=output)
    assert hashes(output) == hashes(seed)


def test_backups_are_kept_in_place(rank: Path) -> None:
    before = hashes(rank)
    report = adapterlint.fix(rank, inplace=True, backup=True)
    after = hashes(rank)
    assert after["adapter_model.safetensors.bak"] == before["adapter_model.safetensors"]
    assert report.proofs[0].renamed == len(llama_tensors(4))


def test_what_is_left_has_a_reason(rank: Path) -> None:
    report = adapterlint.fix(rank, inplace=True)
    assert [(left.finding.rule, left.reason) for left in report.left] == [("AL207", "needs --unsafe-fixes")]
    assert adapterlint.fix(rank, inplace=True, unsafe=True).left == ()
    assert json.loads((rank / "adapter_config.json").read_text())["r"] == 4


def test_a_configuration_is_used_where_it_is_named(rank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("adapterlint.toml").write_text("ignore = ['AL202']\n")
    assert adapterlint.fix("rank").plans
    report = adapterlint.fix("rank", config="adapterlint.toml", inplace=True)
    assert report.plans == () and [left.finding.rule for left in report.left] == ["AL207"]


def test_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert adapterlint.fix(tmp_path, inplace=True, form="lowrank") == adapterlint.FixReport()


# -- forms ---------------------------------------------------------------------------------------------------------


def test_the_lowrank_form(seed: Path) -> None:
    report = adapterlint.fix(seed, base=BASE, form="lowrank", inplace=True)
    assert len(report.proofs) == 4 and report.refusals == ()
    for proof in report.proofs:
        assert proof.equality is not None and proof.equality.modules > 4
        assert proof.equality.error <= proof.equality.tolerance < 1e-5 and proof.equality.complaints == ()
    configs = [json.loads((seed / name / "adapter_config.json").read_text()) for name in "abcd"]
    assert {config["modules_to_save"] for config in configs} == {None}
    assert adapterlint.fix(seed, base=BASE, form="lowrank", inplace=True).plans == ()


@pytest.mark.parametrize("way", [{}, {"inplace": True}, {"output": "new"}], ids=str)
def test_a_refused_form_is_an_error(way: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = write_base(llama_base(), tmp_path / "base")
    write(Example("a", lora_config(), llama_tensors()), tmp_path / "a")
    for name in "bc":
        write(Example(name, lora_config(alora_invocation_tokens=[1]), llama_tensors()), tmp_path / name)
    before = hashes(tmp_path)
    with pytest.raises(adapterlint.UserError) as caught:
        adapterlint.fix("a", "b", "c", base=base, form="portable", **way)
    said = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in said] == [f"refused the portable form of {name}" for name in "bc"]
    done = run("fix", "a", "b", "c", "--base", str(base), "--form", "portable")
    assert done.exit_code == 2 and done.stderr.splitlines() == [*said, "nothing was written"]
    assert hashes(tmp_path) == before


def test_a_form_that_only_a_rule_asks_for_is_refused_in_the_report(tmp_path: Path) -> None:
    """The rest of the plan does not depend on it."""
    example = next(rule for rule in all_rules() if rule.code == "AL520").invalid()[0]
    paths, base = write_any(example, tmp_path)
    names = tuple(map(str, paths))
    report = adapterlint.fix(*paths, base=base, targets=OLD, inplace=True)
    assert [(item.form, item.adapters) for item in report.refusals] == [("union", names)]
    assert "refused" in {left.reason for left in report.left} and not report.written


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": "peft"}, "targets takes a list of texts, not 'peft'"),
        ({"targets": ["peft==9.9"]}, r"no bundled release matches 'peft==9\.9'"),
        ({"sets": "all"}, "sets is one of auto, one, none, not 'all'"),
        ({"base": "no/such/model"}, "no/such/model"),
        ({"form": "small"}, "form is one of union, lowrank, portable, not 'small'"),
        ({"inplace": True, "output": "new"}, "inplace and output exclude each other"),
        ({"inplace": "new"}, "inplace is True or False, not 'new'"),
        ({"unsafe": 1}, "unsafe is True or False, not 1"),
        ({"output": ""}, "output is an empty text"),
        ({"config": "no.toml"}, "no.toml"),
        ({"plugins": ["none-such"]}, "there is no plugin 'none-such'"),
    ],
    ids=str,
)
def test_mistakes(arguments: dict[str, Any], message: str, rank: Path, tmp_path: Path) -> None:
    before = hashes(tmp_path)
    with pytest.raises(adapterlint.UserError, match=message):
        adapterlint.fix(rank, **{"inplace": "output" not in arguments, **arguments})
    assert hashes(tmp_path) == before


def test_paths() -> None:
    with pytest.raises(adapterlint.UserError, match="fix needs a path"):
        adapterlint.fix(inplace=True)
    with pytest.raises(adapterlint.UserError, match="no-such"):
        adapterlint.fix("no-such", inplace=True)


def test_links_are_refused_with_the_text_of_the_command(rank: Path, tmp_path: Path) -> None:
    file, blob = rank / "adapter_model.safetensors", tmp_path / "blob"
    file.rename(blob)
    file.symlink_to(blob)
    before = hashes(tmp_path)
    with pytest.raises(adapterlint.UserError, match=r"it is a symbolic link to .*blob") as caught:
        adapterlint.fix(rank, inplace=True)
    done = run("fix", str(rank), "--inplace")
    assert (done.exit_code, done.stderr) == (2, f"Error: {caught.value}\n")
    assert hashes(tmp_path) == before and file.is_symlink()
    assert adapterlint.fix(rank, inplace=True, replace_links=True).written
    assert not file.is_symlink() and hashes(tmp_path)["blob"] == before["blob"]


def test_what_the_system_refuses(rank: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = hashes(tmp_path)
    with pytest.raises(adapterlint.UserError, match="file: ") as caught:
        adapterlint.fix(rank, output=tmp_path / "file")
    done = run("fix", str(rank), "--output", str(tmp_path / "file"))
    assert (done.exit_code, done.stderr) == (2, f"Error: {caught.value}\n")
    assert hashes(tmp_path) == before


def test_a_defect_of_the_rules_is_no_mistake_of_the_caller(rank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(rank)

    def check(self: RankMismatch, subject: object) -> None:
        raise RuntimeError("the rule has crashed")

    monkeypatch.setattr(RankMismatch, "check", check)
    with pytest.raises(RuntimeError, match="internal error in a rule; nothing was written") as caught:
        adapterlint.fix(rank, inplace=True)
    assert not isinstance(caught.value, adapterlint.UserError) and hashes(rank) == before


# -- the command, and PEFT -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        (("--target", *OLD), {"targets": OLD}),
        (("--target", *OLD, "--inplace"), {"targets": OLD, "inplace": True}),
        (("--target", *OLD, "--output", "new"), {"targets": OLD, "output": "new"}),
        (("--form", "lowrank", "--inplace"), {"form": "lowrank", "inplace": True}),
        (("--unsafe-fixes", "--no-sets"), {"unsafe": True, "sets": "none"}),
    ],
    ids=str,
)
def test_the_command_says_the_same(
    flags: tuple[str, ...], arguments: dict[str, Any], seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = seed / "a" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_dropout": 0.0', '"lora_dropout": "0.0"'))
    for name in ("one", "two"):
        shutil.copytree(seed, tmp_path / name / "seed")
    monkeypatch.chdir(tmp_path / "one")
    printed = json.loads(run("fix", "seed", "--base", str(BASE), "--format", "json", *flags).stdout)
    monkeypatch.chdir(tmp_path / "two")
    report = adapterlint.fix("seed", base=BASE, **arguments)
    assert as_printed(report) == printed and report.plans
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


@pytest.mark.peft
@pytest.mark.parametrize(("form", "tolerance"), [(None, 0.0), ("lowrank", 1e-5)])
def test_peft_answers_as_before(form: Any, tolerance: float, tmp_path: Path) -> None:
    """In the installed PEFT: each repaired adapter, loaded beside the others, against the old one alone."""
    for library in ("torch", "transformers", "peft"):
        pytest.importorskip(library)
    from forms.forms_util import alone, together, worst

    old = [FIXTURES / "sets" / "seed" / name for name in "abcd"]
    targets = None if form else OLD  # lowrank needs lora_bias here, which the oldest do not have
    report = adapterlint.fix(*old, base=BASE, targets=targets, form=form, output=tmp_path / "new")
    assert len(report.proofs) == 4 and not report.left
    new = [tmp_path / "new" / name for name in "abcd"]
    wanted = {path.name: alone(BASE, path) for path in old}
    assert worst(together(BASE, new, "abcddcba"), wanted) <= tolerance
