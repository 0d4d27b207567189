"""The public names: which there are, what they take, that they are typed, and that a program gets what the command prints."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.cli_util import run

import adapterlint
from adapterlint.findings import Outcome, Severity
from adapterlint.rules.examples import Example, llama_base, llama_tensors, lora_config, write, write_base

NAMES = [
    "AdapterReport",
    "Effect",
    "Example",
    "Finding",
    "Fix",
    "FixReport",
    "Location",
    "Outcome",
    "Proof",
    "Report",
    "Reported",
    "Rule",
    "Safety",
    "SetExample",
    "SetReport",
    "SetRule",
    "SetSubject",
    "Severity",
    "Subject",
    "UserError",
    "Verdict",
    "check",
    "fix",
]
SIGNATURES = {
    "check": (
        "(*paths: 'str | os.PathLike[str]', targets: 'Sequence[str] | None' = None,"
        " base: 'str | os.PathLike[str] | None' = None, sets: \"Literal['auto', 'one', 'none'] | None\" = None,"
        " select: 'Sequence[str] | None' = None, ignore: 'Sequence[str] | None' = None,"
        " operations: 'Sequence[str] | None' = None, payload: \"Literal['quick', 'none', 'full'] | None\" = None,"
        " plugins: 'Sequence[str] | None' = None, config: 'str | os.PathLike[str] | None' = None) -> 'Report'"
    ),
    "fix": (
        "(*paths: 'str | os.PathLike[str]', targets: 'Sequence[str] | None' = None,"
        " base: 'str | os.PathLike[str] | None' = None, sets: \"Literal['auto', 'one', 'none'] | None\" = None,"
        " form: 'Form | None' = None, unsafe: 'bool' = False, inplace: 'bool' = False,"
        " output: 'str | os.PathLike[str] | None' = None, backup: 'bool' = False, replace_links: 'bool' = False,"
        " plugins: 'Sequence[str] | None' = None, config: 'str | os.PathLike[str] | None' = None) -> 'FixReport'"
    ),
}
FIELDS = {
    "Verdict": "outcome inert stage adapter rules exception assumes missing",
    "AdapterReport": "path name peft_type tensors modules applies verdicts",
    "SetReport": "base adapters verdicts operations loads_since explicit",
    "Reported": "finding place related replacement",
    "Location": "path file pointer on_key tensor offset label",
    "Effect": "outcome targets exception operation stage inert adapter scope missing",
    "Fix": "title safety edits form",
    "FixReport": "adapters plans proofs refusals left diff",
    "Example": "title config tensors base files fill weights beside",
    "SetExample": "title members base",
}
CONSUMER = """
from pathlib import Path

import adapterlint
from adapterlint import Example, Finding, Location, Outcome, Rule, Severity, Subject
from adapterlint.findings import raises
from adapterlint.rules.examples import llama_tensors, lora_config
from adapterlint.testing import rule_cases
from collections.abc import Iterator

def worst(directory: Path) -> Outcome:
    report: adapterlint.Report = adapterlint.check(directory, targets=["peft"], sets="none", select=("AL2",))
    found: list[Finding] = [item.finding for item in report.findings if item.finding.severity is Severity.ERROR]
    print(found[0].message, report.summary.errors)
    return max((v.outcome for a in report.adapters for v in a.verdicts.values()), key=lambda item: item.rank)

def repaired(directory: Path) -> list[Finding]:
    done: adapterlint.FixReport = adapterlint.fix(directory, targets=("peft",), form="union", output=directory / "new")
    proofs: tuple[adapterlint.Proof, ...] = done.proofs
    print([(plan.path, plan.fixes, plan.edits[0].edit) for plan in done.plans], proofs[0].copied, done.diff.splitlines())
    print([(refusal.adapters, refusal.form, refusal.reason) for refusal in done.refusals], done.written is True)
    print(max(proof.equality.error for proof in proofs if proof.equality is not None))
    return [left.finding for left in done.left if left.reason != "refused"]

class Tiny(Rule):
    code = "ACME001"
    name = "tiny-rank"
    def check(self, subject: Subject) -> Iterator[Finding]:
        yield self.finding("r is small", subject.at_config("/r"), effects=(raises("peft>=0.6", "ValueError: no"),))
    @staticmethod
    def invalid() -> list[Example | adapterlint.SetExample]:
        return [Example("r is 1", lora_config(r=1), llama_tensors(1))]

print([str(case) for case in rule_cases(Tiny)])
"""
MISTAKES = """
import adapterlint
adapterlint.check("a", sets="all")
adapterlint.check("a", target=["peft"])
adapterlint.Checked
adapterlint.check("a").adapters[0].verdict
adapterlint.fix("a", form="union-of-all")
adapterlint.fix("a", inplace="yes")
adapterlint.fix("a", select=["AL2"])
"""


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    write(Example("fine", lora_config(), llama_tensors()), tmp_path / "adapters" / "fine")
    return write(Example("rank", lora_config(r=8), llama_tensors(4)), tmp_path / "adapters" / "rank")


def test_names() -> None:
    assert sorted(adapterlint.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(adapterlint))
    for name in NAMES:
        value = getattr(adapterlint, name)
        assert value.__name__ == name and value.__doc__, name
    with pytest.raises(AttributeError, match="'adapterlint' has no attribute 'chekc'"):
        _ = adapterlint.chekc  # type: ignore[attr-defined]


def test_signatures() -> None:
    for name, signature in SIGNATURES.items():
        assert str(inspect.signature(getattr(adapterlint, name))) == signature
    for name, fields in FIELDS.items():
        assert getattr(adapterlint, name)._fields == tuple(fields.split()), name


@pytest.mark.parametrize("name", ["adapterlint", "adapterlint.findings", "adapterlint.rules.examples"])
def test_importing_imports_little(name: str) -> None:
    program = f"import sys; before = set(sys.modules); import {name}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = {item for item in done.stdout.split() if item.startswith("adapterlint")}
    assert names <= {
        "adapterlint",
        "adapterlint.findings",
        "adapterlint.releases",
        "adapterlint.rules",
        "adapterlint.rules.examples",
    }
    assert "adapterlint.findings" not in names or name != "adapterlint"


def test_check_is_what_the_command_prints(adapter: Path, tmp_path: Path) -> None:
    base = write_base(llama_base(), tmp_path / "base")
    from adapterlint.reporters.json import as_dict

    options = ["--base", str(base), "--target", "peft>=0.13", "--isolated", "-o", "json", "--ignore", "AL508"]
    printed = json.loads(run("check", str(adapter.parent), *options).output)
    report = adapterlint.check(adapter.parent, base=base, targets=["peft>=0.13"], ignore=["AL508"])
    made = json.loads(json.dumps(as_dict(report)))
    for each in (printed, made):
        each["summary"].pop("seconds")
    assert made == printed
    [found] = [item.finding for item in report.findings if item.finding.rule == "AL207"]
    assert found.severity is Severity.ERROR
    assert report.adapters[1].verdicts["peft==0.21.2"].outcome is Outcome.RAISES


def test_no_file_is_looked_for(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapterlint.toml").write_text('ignore = ["AL207"]\ntargets = ["peft==0.8.2"]\n')
    assert [item.finding.rule for item in adapterlint.check(adapter).findings] == ["AL207"]
    configured = adapterlint.check(adapter, config="adapterlint.toml")
    assert configured.findings == () and configured.targets == ("peft==0.8.2",)
    assert configured.config == "adapterlint.toml"
    both = adapterlint.check(adapter, config=Path("adapterlint.toml"), targets=["peft==0.13.2"], select=["AL2"])
    assert both.targets == ("peft==0.13.2",) and [item.finding.rule for item in both.findings] == ["AL207"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": "peft"}, "targets takes a list of texts, not 'peft'"),
        ({"select": ["AL2", 3]}, "select takes a list of texts"),
        ({"sets": "all"}, "sets is one of auto, one, none, not 'all'"),
        ({"payload": "most"}, "payload is one of quick, none, full, not 'most'"),
        ({"operations": ["merging"]}, "operations is one of merge, .*, all, not 'merging'"),
        ({"targets": ["peft==9.9"]}, "peft==9.9"),
        ({"select": ["AL998"]}, "select: 'AL998' names no rule"),
        ({"ignore": ["rank-mismach"]}, "ignore: 'rank-mismach' names no rule; did you mean rank-mismatch?"),
        ({"base": "no/such/model"}, "no/such/model"),
        ({"config": "no.toml"}, "no.toml"),
        ({"plugins": ["none-such"]}, "there is no plugin 'none-such'"),
    ],
    ids=str,
)
def test_mistakes(arguments: dict[str, Any], message: str, adapter: Path) -> None:
    with pytest.raises(adapterlint.UserError, match=message):
        adapterlint.check(adapter, **arguments)


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(adapterlint.UserError, match="check needs a path"):
        adapterlint.check()
    with pytest.raises(adapterlint.UserError, match="no-such"):
        adapterlint.check(tmp_path / "no-such")
    assert adapterlint.check(tmp_path).adapters == ()


def test_a_bad_adapter_is_no_exception(tmp_path: Path) -> None:
    broken = write(Example("broken", '{"r": ', files={"adapter_model.safetensors": b"?"}), tmp_path / "broken")
    report = adapterlint.check(str(broken))
    assert report.findings and report.adapters[0].verdicts["peft==0.21.2"].outcome is Outcome.RAISES


def _mypy(text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mypy")
    (directory / "consumer.py").write_text(text)
    root = Path(adapterlint.__file__).parents[1]
    environment = dict(os.environ) if root.name == "site-packages" else {**os.environ, "MYPYPATH": str(root)}
    options = ["--strict", "--follow-imports", "silent", "--cache-dir", str(directory / "cache")]  # as if installed
    command = [sys.executable, "-m", "mypy", *options, "consumer.py"]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


def test_types(tmp_path: Path) -> None:
    done = _mypy(CONSUMER, tmp_path)
    assert done.returncode == 0, done.stdout
    done = _mypy(MISTAKES, tmp_path)
    lines = [line.rpartition("[")[2] for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == [
        *("arg-type]", "call-arg]", "attr-defined]", "attr-defined]"),
        *("arg-type]", "arg-type]", "call-arg]"),
    ], done.stdout


def test_py_typed_is_beside_the_package() -> None:
    assert (Path(adapterlint.__file__).parent / "py.typed").exists()
    assert importlib.import_module("adapterlint.api").check is adapterlint.check
