"""Repairs every measured case and loads the results in real PEFT releases: ``tox -e fixproof``.

    python tests/fixing/fixproof.py [--cases DIR] [--envs DIR] [--only GLOB] [--release V ...] [--work DIR]

Each case is loaded as it is, fixed by ``fix --inplace``, and fixed with ``--unsafe-fixes``; every outcome is compared
with the outputs that the adapters were trained to give. ``--envs`` (or ``ADAPTERLINT_ORACLE_ENVS``) is a directory as
``setup_envs.sh`` beside the cases makes it; the script is run there if it is empty.

It fails where

- a case that loaded does not load any more;
- ``fix`` says that nothing is left (exit code 0), and the case still raises or is wrong;
- every finding that breaks a case on a release has a fix, and the case is not repaired by it: a safe one without the
  flag, an unsafe one with it; unless the release is too old for what the adapter then says plainly (AL105);
- a rule whose findings have a fix in these cases repairs none of them;
- a rule that is left with a broken case has no row in the table of docs/fixing.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from adapterlint.cli import main as adapterlint
from adapterlint.findings import Effect, Outcome, Safety
from adapterlint.model.target import resolve
from adapterlint.releases import version_key
from adapterlint.run import Request, check

ROOT = Path(__file__).resolve().parents[2]
ORACLE = ROOT.parent / "shared" / "oracle"
PAGE = ROOT / "docs" / "fixing.md"
RELEASES = ("0.8.2", "0.14.0", "0.17.1")  # and the newest there is
TARGET = "peft>=0.6"
MODES = {"as it is": None, "safe": [], "unsafe": ["--unsafe-fixes"]}
BROKEN = ("raises", "wrong")

# Run by the environment's own Python: one process loads every directory for one release.
_DRIVER = """
import json, logging, pathlib, sys
sys.path.insert(0, sys.argv[1])
import numpy, run, torch, transformers
torch.set_num_threads(1)
logging.disable(logging.WARNING)
transformers.logging.set_verbosity_error()
found = {}
for job in json.load(sys.stdin):
    path = pathlib.Path(job["case"])
    case = json.loads((path / "case.json").read_text())
    dirs = [pathlib.Path(job["root"]) / name for name in case["order"]]
    result = run.observe(case, (path / case["base"]).resolve(), dirs, numpy.load(path / "reference.npz"))
    if case.get("undefined") and result["outcome"] != "raises":
        result = {"outcome": "undefined"}
    found[job["key"]] = result
json.dump(found, open(sys.argv[2], "w"))
"""


class Case(NamedTuple):
    """A measured case: its directory and its ``case.json``."""

    path: Path
    about: dict[str, Any]

    @property
    def label(self) -> str:
        """The defect, with a star if the files do not tell the meaning; without one, the family that it is judged in."""
        name = ", ".join(self.about["defects"]) or f"no defect: {self.about['families'][0]}"
        return f"{name} *" if self.about["undefined"] else name

    @property
    def base(self) -> str:
        return str((self.path / self.about["base"]).resolve())

    def dirs(self, root: Path) -> list[Path]:
        return [root / name for name in self.about["order"]]


class Claim(NamedTuple):
    """What the findings on a case promise for a release: the flag that repairs it, and the rules that break it."""

    safety: Safety | None
    rules: frozenset[str]


Results = dict[str, dict[str, str]]
"""Outcomes by case name and mode."""


def read_cases(root: Path, only: str) -> list[Case]:
    paths = sorted(path.parent for path in (root / "cases").glob("*/case.json"))
    return [
        Case(path, json.loads((path / "case.json").read_text())) for path in paths if fnmatch.fnmatch(path.name, only)
    ]


# -- fixing ------------------------------------------------------------------------------------------------------


def repair(case: Case, work: Path, done: dict[tuple[str, str], bool]) -> Iterator[str]:
    """Copies and fixes a case in every mode below ``work``; yields complaints about the command itself.

    ``done`` learns where the command said that nothing is left.
    """
    for mode, flags in MODES.items():
        root = work / mode / case.path.name
        for source, target in zip(case.dirs(case.path), case.dirs(root), strict=True):
            shutil.copytree(source, target)
            for path in (target, *target.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
        if flags is None:
            continue
        paths = [str(path) for path in case.dirs(root)]
        options = ["--base", case.base, "--target", TARGET, "--inplace", *flags]
        result = CliRunner().invoke(adapterlint, ["fix", *paths, *options])
        if result.exit_code not in (0, 1, 3):
            yield f"{case.path.name} ({mode}): fix exits {result.exit_code}: {result.output.strip()[-300:]}"
        done[case.path.name, mode] = result.exit_code == 0
        before = _bytes(root)
        again = CliRunner().invoke(adapterlint, ["fix", *paths, *options])
        if again.exit_code not in (0, 1, 3) or _bytes(root) != before:
            yield f"{case.path.name} ({mode}): a second fix is not idle"


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# -- what is promised --------------------------------------------------------------------------------------------


def claims(case: Case, root: Path, releases: Iterable[str]) -> dict[str, Claim]:
    """For each release, what the findings about the case, as it is in this directory, promise."""
    paths = [str(path) for path in case.dirs(root)]
    report = check(Request(paths=paths, targets=(TARGET,), base=case.base))
    alone = case.about["kind"] == "single"
    found = {}
    for release in releases:
        breaking = [
            item.finding for item in report.findings if any(_hits(e, release, alone) for e in item.finding.effects)
        ]
        levels = {finding.fix.safety if finding.fix else None for finding in breaking}
        safety = None
        if breaking and levels <= {Safety.SAFE, Safety.UNSAFE}:
            safety = Safety.UNSAFE if Safety.UNSAFE in levels else Safety.SAFE
        found[release] = Claim(safety, frozenset(finding.rule for finding in breaking))
    return found


def _hits(effect: Effect, release: str, alone: bool) -> bool:
    elsewhere = "set" if alone else "alone"
    return (
        effect.operation == "load"
        and effect.scope != elsewhere
        and effect.outcome in (Outcome.RAISES, Outcome.WRONG)
        and resolve((f"peft=={release}",))[0].within(effect.targets)
    )


# -- loading -----------------------------------------------------------------------------------------------------


def measure(cases: list[Case], work: Path, oracle: Path, envs: Path, release: str) -> Results:
    """Loads every directory in one release; directories with the same content are loaded once."""
    keys: dict[tuple[str, str], str] = {}
    jobs: dict[str, dict[str, str]] = {}
    for case in cases:
        for mode in MODES:
            root = work / mode / case.path.name
            key = hashlib.sha256(repr((case.path.name, _bytes(root))).encode()).hexdigest()
            keys[case.path.name, mode] = key
            jobs.setdefault(key, {"key": key, "case": str(case.path), "root": str(root)})
    out = work / f"{release}.json"
    libraries = [envs / "peft" / release, envs / "stacks" / _stack(oracle, envs, release)]
    subprocess.run(
        [str(envs / "base" / "bin" / "python"), "-c", _DRIVER, str(oracle), str(out)],
        input=json.dumps(list(jobs.values())),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, libraries)), "PYTHONWARNINGS": "ignore"},
        text=True,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    found = json.loads(out.read_text())
    return {case.path.name: {mode: found[keys[case.path.name, mode]]["outcome"] for mode in MODES} for case in cases}


def _stack(oracle: Path, envs: Path, release: str) -> str:
    """The folder with the transformers release that the truth was measured with."""
    wanted = json.loads((oracle / "dev" / "releases.json").read_text())[release]["transformers"]
    return next(path.parent.name for path in (envs / "stacks").glob(f"*/transformers-{wanted}.dist-info"))


# -- judging -----------------------------------------------------------------------------------------------------


def judge(
    case: Case, outcomes: dict[str, str], claim: Claim, release: str, work: Path, done: dict[tuple[str, str], bool]
) -> Iterator[str]:
    """Complaints about one case on one release."""
    before = outcomes["as it is"]
    for mode in ("safe", "unsafe"):
        after = outcomes[mode]
        if before == "loads" and after != "loads":
            yield f"{release} {case.path.name} ({mode}): {before} before, {after} after"
        if done[case.path.name, mode] and after in BROKEN:
            yield f"{release} {case.path.name} ({mode}): nothing is said to be left, and it {after}"
    allowed = {Safety.SAFE: ("safe", "unsafe"), Safety.UNSAFE: ("unsafe",), None: ()}[claim.safety]
    for mode in allowed:
        if before in BROKEN and outcomes[mode] in BROKEN:
            if claims(case, work / mode / case.path.name, [release])[release].rules == {"AL105"}:
                continue
            rules = ", ".join(sorted(claim.rules))
            yield f"{release} {case.path.name} ({mode}): {rules} promised a fix, and it {outcomes[mode]}"


def show(cases: list[Case], results: Results, promised: dict[str, dict[str, Claim]], release: str) -> None:
    """The table of one release: every case stands in one row."""
    rows: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for case in cases:
        group = results[case.path.name]["as it is"]
        kind = "broken" if group in BROKEN else group
        rows[kind, case.label].append(results[case.path.name])
    print(f"\nPEFT {release}")
    for kind, title in (("broken", "repaired of the broken ones"), ("undefined", "that do not raise of those")):
        own = {label: found for (group, label), found in sorted(rows.items()) if group == kind}
        every = [outcomes for found in own.values() for outcomes in found]
        print(f"  {title}: {_count(every, kind)}{' (whose meaning no file tells)' if kind == 'undefined' else ''}")
        for label, found in own.items() if kind == "broken" else ():
            own_cases = [c for c in cases if c.label == label and results[c.path.name]["as it is"] in BROKEN]
            rules = {rule for each in own_cases for rule in promised[each.path.name][release].rules}
            print(f"    {label:<42} {_count(found, kind)}  {', '.join(sorted(rules))}")
    healthy = [outcomes for (group, _), found in rows.items() if group == "loads" for outcomes in found]
    worse = sum(outcomes["safe"] != "loads" or outcomes["unsafe"] != "loads" for outcomes in healthy)
    print("  * no file tells what the adapter means: repaired is what does not raise any more")
    print(f"  made worse of those that load: {worse} of {len(healthy)}")
    print(f"  cases: {sum(map(len, rows.values()))}")


def _count(found: list[dict[str, str]], kind: str) -> str:
    good = ("loads",) if kind == "broken" else ("loads", "undefined")
    safe, unsafe = (sum(outcomes[mode] in (*good, "undefined") for outcomes in found) for mode in ("safe", "unsafe"))
    return f"{safe} safe, {unsafe} with --unsafe-fixes, of {len(found)}"


def unkept(cases: list[Case], results: dict[str, Results], promised: dict[str, dict[str, Claim]]) -> Iterator[str]:
    """Complaints about rules: their fixes never repair, or docs/fixing.md does not say why there is none."""
    page = PAGE.read_text() if PAGE.is_file() else ""
    table = set(re.findall(r"^\| (AL\d{3})", page, re.MULTILINE))
    fixed: dict[str, list[bool]] = defaultdict(list)
    left: dict[str, str] = {}
    for release, found in results.items():
        for case in cases:
            outcomes, claim = found[case.path.name], promised[case.path.name][release]
            if outcomes["as it is"] not in BROKEN:
                continue
            repaired = outcomes["unsafe"] not in BROKEN
            for rule in claim.rules:
                if claim.safety is not None:
                    fixed[rule].append(repaired)
                if not repaired:
                    left.setdefault(rule, f"{release} {case.path.name}")
            if not claim.rules:
                yield f"{release} {case.path.name}: broken, and no rule says so"
    yield from (f"{rule}: has fixes, and none repairs" for rule, each in sorted(fixed.items()) if not any(each))
    for rule, example in sorted(left.items()):
        if rule not in table:
            yield f"{rule}: {example} is not repaired, and docs/fixing.md does not say why"


# -- the command -------------------------------------------------------------------------------------------------


def environments(path: Path, oracle: Path) -> Path:
    """The directory, set up first if nothing is there."""
    path = path.resolve()
    if not (path / "base" / "bin" / "python").exists():
        path.mkdir(parents=True, exist_ok=True)
        print(f"setting up the environments in {path}", flush=True)
        subprocess.run(["bash", str((oracle / "setup_envs.sh").resolve())], cwd=path, check=True)
    return path


def releases_in(envs: Path, wanted: list[str]) -> list[str]:
    if wanted:
        return wanted
    newest = max((path.name for path in (envs / "peft").iterdir()), key=version_key)
    return [*RELEASES, *([newest] if newest not in RELEASES else [])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=ORACLE / "dev")
    parser.add_argument("--envs", type=Path, default=os.environ.get("ADAPTERLINT_ORACLE_ENVS") or ROOT / ".oracle")
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--release", action="append", default=[], metavar="V")
    parser.add_argument("--work", type=Path, help="keep the repaired directories here")
    args = parser.parse_args()
    if not (args.cases / "cases").is_dir():
        print(f"skipped: there are no measured cases in {args.cases}")
        return 0
    oracle = args.cases.resolve().parent
    cases = read_cases(args.cases.resolve(), args.only)
    envs = environments(args.envs, oracle)
    releases = releases_in(envs, args.release)
    with tempfile.TemporaryDirectory(prefix="fixproof-") as own:
        work = args.work.resolve() if args.work else Path(own)
        done: dict[tuple[str, str], bool] = {}
        complaints = [complaint for case in cases for complaint in repair(case, work, done)]
        promised = {case.path.name: claims(case, case.path, releases) for case in cases}
        results = {}
        for release in releases:
            results[release] = measure(cases, work, oracle, envs, release)
            show(cases, results[release], promised, release)
            for case in cases:
                name = case.path.name
                complaints += judge(case, results[release][name], promised[name][release], release, work, done)
    complaints += unkept(cases, results, promised)
    print()
    print("\n".join(complaints) or f"every fix did what it promised, in {len(cases)} cases on {', '.join(releases)}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
