"""Which findings an ignore, a path pattern and a baseline are about; and what of them does nothing any more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from config_util import adapters
from hypothesis import given
from hypothesis import strategies as st

from adapterlint.baseline import Baseline, Entry, Fingerprint, fingerprint, known, read, render
from adapterlint.cli import main
from adapterlint.findings import Effect, Finding, Location, Outcome, Severity
from adapterlint.ignores import Ignore, PathIgnore, Pattern
from adapterlint.rules.examples import Example, llama_tensors, lora_config, write
from adapterlint.rules.registry import adapter_rules
from adapterlint.suppress import Selection


def finding(
    rule: str = "AL207",
    path: str = "adapters/x",
    pointer: str | None = None,
    tensor: str | None = None,
    members: tuple[str, ...] = (),
) -> Finding:
    place = Location(path, "adapter_config.json", pointer=pointer, tensor=tensor)
    return Finding(rule, "rank-mismatch", "text", place, (), (), None, Severity.ERROR, adapters=members)


def pattern(glob: str, root: Path) -> Pattern:
    return Pattern(glob, str(root))


# -- patterns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("a", "a", True),
        ("a", "a/b", True),  # and everything below
        ("a", "ab", False),
        ("a", "b/a", False),
        ("a/", "a/b", True),
        ("./a", "a", True),
        (".", "a/b", True),
        ("*", "a/b", True),
        ("a*", "abc", True),
        ("a*c", "a/c", False),  # within a name
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("**/c", "a/b/c", True),
        ("**/c", "c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c/below", True),
        ("a/**", "a/b/c", True),
        ("a/**", "b", False),
        ("../x", "../x/y", True),
        ("a.b", "aXb", False),
        ("[ab]", "a", False),  # no sets of characters
        ("[ab]", "[ab]", True),
        ("a\nb", "a\nb", True),
    ],
)
def test_globs_over_paths(glob: str, path: str, matches: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)
    assert pattern(glob, root).matches(path) is matches
    assert pattern(glob, root).matches(str(root / path)) is matches
    monkeypatch.chdir(tmp_path)
    assert pattern(glob, root).matches(f"root/{path}") is matches


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("base_model.model.a.weight", "base_model.model.a.weight", True),
        ("*.lora_A.weight", "base_model.model.a.lora_A.weight", True),
        ("*.lora_A.weight", "base_model.model.a.lora_B.weight", False),
        ("*.layers.?.*", "m.layers.7.q", True),
        ("*.layers.?.*", "m.layers.17.q", False),
        ("a", "aa", False),
        ("*", "any/thing.at all", True),
        ("a.b", "aXb", False),
    ],
)
def test_globs_over_tensors_and_pointers(glob: str, name: str, matches: bool) -> None:
    assert Ignore("so", "f", "/ignores/0", tensor=glob).matches(finding(tensor=name)) is matches
    assert Ignore("so", "f", "/ignores/0", key=glob).matches(finding(pointer=name)) is matches
    assert not Ignore("so", "f", "/ignores/0", tensor=glob).matches(finding(pointer=name))
    assert not Ignore("so", "f", "/ignores/0", key=glob).matches(finding(tensor=name))


def test_all_that_an_entry_says_must_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entry = Ignore("so", "f", "/ignores/0", rules=("AL2",), paths=(pattern("adapters/x", tmp_path),), key="/r")
    assert entry.matches(finding(pointer="/r"))
    assert not entry.matches(finding("AL301", pointer="/r"))
    assert not entry.matches(finding(path="adapters/y", pointer="/r"))
    assert not entry.matches(finding(pointer="/lora_alpha"))
    for rules, about in ((("rank-mismatch",), True), (("AL207",), True), (("AL20",), True), (("AL301",), False)):
        assert Ignore("so", "f", "", rules=rules).matches(finding()) is about


def test_a_finding_about_a_set_needs_all_its_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = finding(path="a/x", members=("a/x", "b/y"))
    for globs, matches in ((("a",), False), (("a", "b"), True), (("*/x", "*/y"), True), (("*",), True)):
        patterns = tuple(pattern(glob, tmp_path) for glob in globs)
        assert Ignore("so", "f", "", paths=patterns).matches(found) is matches
    assert not PathIgnore(pattern("a", tmp_path), ("AL2",)).matches(found)
    assert PathIgnore(pattern("**", tmp_path), ("AL2",)).matches(found)


def test_selectors() -> None:
    for items, wants in (
        ((), True),
        (("AL2",), True),
        (("AL3",), False),
        (("rank-mismatch",), True),
        (("rank",), False),
    ):
        assert Selection(select=items).keeps(finding()) is wants
        assert Selection(ignore=items).keeps(finding()) is (not wants or not items)


# -- baseline ------------------------------------------------------------------------------------------------------

_TEXT = st.text(st.sampled_from("ab/.,\\\t\n\r é#"), min_size=1, max_size=8)


@given(st.lists(st.tuples(_TEXT, _TEXT, st.text(max_size=3), _TEXT, st.lists(_TEXT, max_size=3)), max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[object, ...]]) -> None:
    path = tmp_path_factory.mktemp("baseline") / "b.txt"
    items = [Fingerprint(*map(str, entry[:4]), tuple(entry[4])) for entry in entries]  # type: ignore[arg-type]
    items = [item for item in items if not item.path.startswith("#")]
    counts = {item: items.count(item) for item in items}
    path.write_text(render(counts), newline="")
    found = read(str(path))
    assert found.counts == counts
    lines = [line for line in path.read_text().split("\n") if line and line[0] != "#"]
    assert lines == sorted(lines) and len(lines) == len(items)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    adapters(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: str = "adapterlint-baseline.txt") -> list[str]:
    return Path(path).read_text().splitlines()[1:]


def test_fingerprints_do_not_depend_on_the_working_directory(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("baseline", "--write", "adapters")
    first = Path("adapterlint-baseline.txt").read_bytes()
    monkeypatch.chdir(project / "adapters")
    assert run("baseline", "--check", ".", "--baseline", "../adapterlint-baseline.txt").exit_code == 0
    assert run("check", str(project / "adapters"), "--baseline", "../adapterlint-baseline.txt").exit_code == 0
    run("baseline", "--write", "fine", "rank", "nan", "--baseline", "../other.txt")
    monkeypatch.chdir(project)
    assert {line.split("\t")[1] for line in lines("other.txt")} == {line.split("\t")[1] for line in lines()}
    assert first == Path("adapterlint-baseline.txt").read_bytes()


def test_one_line_stands_for_one_finding(project: Path) -> None:
    tensors = {f"stray.{name}.weight": ("F32", (4, 4)) for name in "ab"}
    write(Example("strays", lora_config(), {**llama_tensors(), **tensors}), project / "strays")
    run("baseline", "--write", "strays")
    every = lines()
    assert every
    Path("adapterlint-baseline.txt").write_text("\n".join(["# header", *every[1:], ""]))
    left = run("check", "strays", "--baseline", "adapterlint-baseline.txt", "-o", "concise", "-q").stdout
    assert re.findall(r" (AL\d{3}) ", left) == [every[0].split("\t")[1]]


def test_a_baseline_of_part_of_the_adapters(project: Path) -> None:
    run("baseline", "--write", "adapters")
    every = lines()
    assert (
        run("baseline", "--write", "adapters/fine").stdout
        == "adapterlint-baseline.txt: 0 lines added, 0 lines removed\n"
    )
    assert run("baseline", "--prune", "adapters/fine").exit_code == 0
    assert lines() == every  # nothing is known about the others
    found = run("check", "adapters/fine", "--baseline", "adapterlint-baseline.txt", "-o", "concise").stdout
    assert "AL903" not in found
    shutil_rank = project / "adapters" / "rank"
    for path in shutil_rank.iterdir():
        path.unlink()
    shutil_rank.rmdir()
    found = run("check", "adapters", "--baseline", "adapterlint-baseline.txt", "-o", "concise").stdout
    assert "AL903" in found and "adapters/rank/adapter_config.json" in found  # it is gone
    run("baseline", "--prune", "adapters")
    assert [line for line in every if "rank" not in line] == lines()


def test_a_rule_that_could_not_look_leaves_its_lines(project: Path) -> None:
    run("baseline", "--write", "adapters")
    every = lines()
    assert {"AL301", "AL508"} <= {line.split("\t")[1] for line in every}
    assert run("baseline", "--check", "adapters", "--no-payload").exit_code == 0
    left = run("check", "adapters", "--no-payload", "--baseline", "adapterlint-baseline.txt", "-o", "concise", "-q")
    assert left.stdout == ""
    run("baseline", "--prune", "adapters", "--no-payload")
    assert lines() == every


def test_two_branches_merge(project: Path) -> None:
    run("baseline", "--write", "adapters/nan", "--no-sets")
    one = set(lines())
    Path("adapterlint-baseline.txt").unlink()
    run("baseline", "--write", "adapters/rank", "--no-sets")
    both = sorted(one | set(lines()))
    Path("adapterlint-baseline.txt").write_text("\n".join(["# merged by git", *both, ""]))
    assert run("baseline", "--check", "adapters", "--no-sets").exit_code == 0
    assert run("check", "adapters", "--no-sets", "--baseline", "adapterlint-baseline.txt").exit_code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "b.txt:1: not a line of a baseline: path, rule, place and outcome, by tabs"),
        ("# x\n<<<<<<< ours\n", "b.txt:2: not a line of a baseline (a merge conflict?)"),
        ("a\tAL207\t\t\n", "b.txt:1: not a line of a baseline"),
        ("a\tAL207\t/r\traises\tb\tc\n", "b.txt:1: not a line of a baseline"),
        (None, "b.txt: cannot read the baseline: No such file or directory; `adapterlint baseline --write` makes it"),
    ],
)
def test_baselines_that_cannot_be_read(text: str | None, message: str, project: Path) -> None:
    if text is not None:
        Path("b.txt").write_text(text)
    for command in (["check"], ["baseline", "--prune"]):
        result = run(*command, "adapters", "--baseline", "b.txt")
        assert result.exit_code == 2 and result.stdout == "" and message in result.stderr
    assert text is None or Path("b.txt").read_text() == text


def test_a_baseline_is_written_whole_or_not_at_all(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("baseline", "--write", "adapters")
    path = Path("adapterlint-baseline.txt")
    path.chmod(0o640)
    before = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", broken)
        path.write_bytes(before[: len(before) // 2].rsplit(b"\n", 1)[0] + b"\n")
        half = path.read_bytes()
        result = run("baseline", "--write", "adapters")
    assert result.exit_code == 2 and "cannot write the baseline: No space left on device" in result.stderr
    assert path.read_bytes() == half and sorted(p.name for p in project.iterdir()) == [
        ".git", "adapterlint-baseline.txt", "adapters"
    ]  # fmt: skip
    assert run("baseline", "--write", "adapters").exit_code == 0
    assert path.read_bytes() == before and path.stat().st_mode & 0o777 == 0o640
    assert "cannot write" in run("baseline", "--write", "adapters", "--baseline", "no/such/dir.txt").stderr
    linked = project / "link.txt"
    linked.symlink_to(path)
    run("baseline", "--write", "adapters", "--baseline", "link.txt")
    assert linked.is_symlink()


def test_findings_about_suppressions_are_never_written_down(project: Path) -> None:
    Path("adapterlint.toml").write_text("[[ignores]]\nrule = 'AL105'\nreason = 'nothing'\n")
    assert "AL901" in run("check", "adapters", "-o", "concise").stdout
    run("baseline", "--write", "adapters")
    assert not any("AL9" in line for line in lines())


def test_nothing_to_check(project: Path) -> None:
    (project / "empty").mkdir()
    for option in ("--write", "--prune", "--check"):
        Path("adapterlint-baseline.txt").touch()
        result = run("baseline", option, "empty")
        assert result.exit_code == 3 and "no adapter found" in result.stderr
    assert Path("adapterlint-baseline.txt").read_bytes() == b""


def test_names_that_are_not_unicode(project: Path) -> None:
    try:
        os.mkdir(b"odd\xff")
    except OSError:
        pytest.skip("the file system takes Unicode only")
    write(Example("rank", lora_config(r=8), llama_tensors(4)), project / "odd\udcff")
    assert run("baseline", "--write", "odd\udcff").exit_code == 0
    assert b"odd\xff/adapter_config.json\tAL207" in Path("adapterlint-baseline.txt").read_bytes()
    assert run("check", "odd\udcff", "--baseline", "adapterlint-baseline.txt").exit_code == 0
    assert run("baseline", "--check", "odd\udcff").exit_code == 0
    Path("adapterlint.toml").write_text("[[ignores]]\npath = 'od*'\nrule = 'AL207'\nreason = 'so'")
    assert run("check", "odd\udcff").exit_code == 0


# -- what does nothing any more -----------------------------------------------------------------------------------


def unused(text: str, *arguments: str) -> list[str]:
    Path("adapterlint.toml").write_text(text)
    out = run("check", *arguments, "-o", "concise", "-q").stdout
    return re.findall(r"^adapterlint\.toml:(\d+):1: warning AL901 ", out, re.MULTILINE)


def test_an_entry_counts_as_unused_only_where_its_rules_looked(project: Path) -> None:
    entry = "[[ignores]]\nreason = 'so'\n"
    assert unused(f"{entry}rule = 'AL207'\n", "adapters") == []
    assert unused(f"{entry}rule = 'AL207'\n", "adapters/fine") == ["1"]
    assert unused(f"{entry}rule = 'AL207'\npath = 'adapters/rank'\n", "adapters/fine") == []  # not looked at
    assert unused(f"{entry}rule = 'AL403'\n", "adapters") == []  # it needs the base
    assert unused(f"{entry}rule = 'AL301'\n", "adapters/fine", "--no-payload") == []
    assert unused(f"{entry}rule = 'AL301'\n", "adapters/fine") == ["1"]
    assert unused(f"{entry}rule = 'AL508'\n", "adapters", "--no-sets") == []  # no sets were looked for
    assert unused(f"{entry}rule = 'AL508'\n", "adapters") == []
    assert unused(f"{entry}rule = 'AL508'\n", "adapters", "--no-payload") == []
    assert unused(f"{entry}rule = 'AL510'\n", "adapters") == ["1"]
    assert unused(f"{entry}rule = 'AL207'\npointer = '/alpha'\n{entry}rule = 'AL207'\n", "adapters") == ["1"]
    assert unused(f"{entry}rule = 'AL207'\nuntil = 2999-01-01\n", "adapters/fine") == ["1"]


def test_what_is_not_selected_still_uses_its_entry(project: Path) -> None:
    Path("adapterlint.toml").write_text("[[ignores]]\nreason = 'so'\nrule = 'AL207'\n")
    assert run("check", "adapters", "-o", "concise", "--select", "AL9", "-q").stdout == ""


def test_the_last_day(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("adapterlint.toml").write_text("[[ignores]]\nreason = 'so'\nrule = 'AL207'\nuntil = 2026-05-17\n")
    for today, codes in (("2026-05-16", []), ("2026-05-17", []), ("2026-05-18", ["AL902", "AL207"])):
        monkeypatch.setattr("time.strftime", lambda *_, today=today: today)
        out = run("check", "adapters/rank", "-o", "concise", "-q").stdout
        assert sorted(re.findall(r" (AL\d{3}) ", out)) == sorted(codes)


def test_verdicts_are_those_without_suppressions(project: Path) -> None:
    def verdicts() -> list[str]:
        return [
            line for line in run("check", "adapters").stdout.splitlines() if line.startswith(("adapter ", "  raises"))
        ]

    before = verdicts()
    Path("adapterlint.toml").write_text("[per-path-ignores]\n'**' = ['ALL']\n")
    assert verdicts() == before and any("raises" in line for line in before)
    assert run("check", "adapters").exit_code == 0
    assert "3 findings not reported: ignored, or in the baseline" in run("check", "adapters").stdout


def test_fingerprints_name_the_worst_outcome() -> None:
    effects = tuple(Effect(outcome, "peft") for outcome in (Outcome.WRONG, Outcome.RAISES, Outcome.UNKNOWN))
    item = fingerprint(finding(pointer="/r")._replace(effects=effects), "/nowhere")
    assert item.kind == "raises" and item.place == "/r"
    assert fingerprint(finding(tensor="t"), "/nowhere").place == "#t"
    assert Baseline("/some/where/b.txt", ()).root == "/some/where"


def test_a_rule_that_fails_cannot_be_ignored_away(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = next(rule for rule in adapter_rules() if rule.code == "AL301")

    def fails(_: object) -> Iterator[Finding]:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setitem(vars(rule), "check", fails)
    for text in ("", "ignore = ['AL999']", "[[ignores]]\nrule = 'internal-error'\nreason = 'so'"):
        Path("adapterlint.toml").write_text(text)
        result = run("check", "adapters/fine")
        assert result.exit_code == 2 and "a mistake of ours" in result.stderr
        assert "adapter adapters/fine: unknown" in result.stdout or "cannot be told" in result.stdout
        assert ("AL999" in result.stdout) is (text == "")
        assert run("baseline", "--write", "adapters/fine").exit_code == 2
        assert not Path("adapterlint-baseline.txt").exists()


def test_one_line_hides_one_of_two_that_look_alike() -> None:
    one, two = finding(pointer="/r"), finding(pointer="/r")._replace(message="another")
    entry = Entry(fingerprint(one, "/root"), 0)
    assert fingerprint(two, "/root") == entry.fingerprint
    assert known([one, two], Baseline("/root/b.txt", (entry,))) == [True, False]
    assert known([one, two], Baseline("/root/b.txt", (entry, entry))) == [True, True]
