"""What a user can get wrong in a configuration: one line that names file, line, key and the likely cause."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from config_util import adapters, shell

from adapterlint.cli import main


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    adapters(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(text: str, name: str = "adapterlint.toml") -> str:
    """What is said of a configuration: without "Error: ", and nothing is checked."""
    Path(name).write_text(text)
    result = run("check", "adapters")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    return result.stderr[7:-1]


MISTAKES = [
    ("ignroe = []", '1: unknown key "ignroe"; did you mean ignore?'),
    ("\n\nxyzzy = 1", '3: unknown key "xyzzy"; there are extend, select, extend-select'),
    ("fail_on = 'error'", '1: unknown key "fail_on"; did you mean fail-on?'),
    ("select = 'AL207'", '1: select takes a list: ["AL207"]'),
    ("select = 3", "1: select takes a list of texts, not a number"),
    ("select = [1]", "1: select takes a list of texts, not a list"),
    ("select = [\n 'AL207',\n 'AL777',\n]", '3: "AL777" names no rule'),
    ("ignore = ['rank-mismach']", '1: "rank-mismach" names no rule; did you mean rank-mismatch?'),
    ("[[ignore]]\nrule='AL207'", "1: ignore takes a list of rules; entries with a reason belong in [[ignores]]"),
    ("targets = ['peft>=99']", "1: no bundled release matches 'peft>=99'"),
    ("targets = ['pefft']", "1: unknown target 'pefft': this release knows peft only"),
    ("targets = [\n'peft',\n'vllm==1']", "3: unknown target 'vllm==1'"),
    ("targets = 'peft'", '1: targets takes a list: ["peft"]'),
    ("base = ['model']", "1: base takes a text, not a list"),
    ("base = ''", "1: base takes a text, not an empty text"),
    ("base = true", "1: base takes a text, not a boolean"),
    ("sets = 'al'", '1: sets takes auto, one or none, not "al"'),
    ("sets = true", "1: sets takes auto, one or none, not a boolean"),
    ("sets = ['a']", "1: sets takes auto, one or none, or a list of lists of adapter directories"),
    ("sets = []", "1: sets takes auto, one or none, or a list of lists of adapter directories"),
    ("sets = [\n ['adapters/fine', 'adapters/fin']\n]", "2: adapters/fin: no such directory"),
    ("fail-on = 'warnings'", '1: fail-on takes error, warning, note or never, not "warnings"; did you mean warning?'),
    ("payload = 2", "1: payload takes quick, none or full, not a number"),
    ("operations = ['merging']", "1: operations takes merge, mixed_batch"),
    ("per-path-ignores = ['a']", "1: per-path-ignores takes a table: a glob over paths, and its rules"),
    ("[per-path-ignores]\n'a/*' = 'AL5'", '2: a/* takes a list: ["AL5"]'),
    ("[per-path-ignores]\n'a/*' = ['AL777']", '2: "AL777" names no rule'),
    ("[ignores]\nrule = 'AL207'", "1: ignores takes tables, each headed [[ignores]]"),
    ("[[ignores]]\nrule = 'AL207'", "1: an ignore needs a reason: why is this meant to be so?"),
    ("[[ignores]]\nrule = 'AL207'\nreason = ' '", "3: reason takes a text, not an empty text"),
    ("[[ignores]]\nreason = 'so'", "1: an ignore needs a rule, a path, a pointer or a tensor"),
    ("[[ignores]]\nreason='so'\nuntil=2027-01-01", "1: an ignore needs a rule, a path, a pointer or a tensor"),
    ("[[ignores]]\nreson = 'so'", '2: unknown key "reson" in an ignore; did you mean reason?'),
    ("[[ignores]]\nreason='so'\nline=3", '3: unknown key "line" in an ignore; an ignore has reason, rule, path'),
    ("[[ignores]]\nreason='so'\npointer='r'", '3: a JSON pointer begins with a slash: "/r"'),
    ("[[ignores]]\nreason='so'\npointer='/r'\ntensor='x'", "1: an ignore has a pointer or a tensor, not both"),
    ("[[ignores]]\nreason='so'\nrule='AL777'", '3: "AL777" names no rule'),
    ("[[ignores]]\nreason='so'\nrule='AL2'\nuntil='soon'", '4: until takes a date such as 2027-01-31, not "soon"'),
    ("[[ignores]]\nreason='so'\nrule='AL2'\nuntil=2027-01-01T00:00:00", "4: until takes a date such as 2027-01-31"),
    ("[[ignores]]\nreason='a'\nrule='AL2'\n[[ignores]]\nrule='AL2'", "4: an ignore needs a reason"),
    ("baseline = 3", "1: baseline takes a text, not a number"),
    ("extend = ['a']", "1: extend takes a text, not a list"),
    ("plugins = ['no-such-plugin']", "there is no plugin 'no-such-plugin'"),
    ("select = [", " not TOML: "),
    ("a = 1\na = 2", " not TOML: "),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[text[:40] for text, _ in MISTAKES])
def test_mistakes(text: str, message: str) -> None:
    found = complaint(text)
    assert found.startswith(f"adapterlint.toml:{message}") or (message[0] not in "123456789" and message in found)


@pytest.mark.parametrize(("text", "message"), [case for case in MISTAKES if case[1][0] == "1" and "[[" not in case[0]])
def test_mistakes_in_a_pyproject(text: str, message: str) -> None:
    shared = text.replace("[per-path-ignores]", "[tool.adapterlint.per-path-ignores]")
    shared = shared.replace("[ignores]", "[tool.adapterlint.ignores]")
    head = "" if shared != text else "[tool.adapterlint]\n"
    found = complaint(f"[project]\nname = 'x'\n\n{head}{shared}", "pyproject.toml")
    number, _, words = message.partition(":")
    assert found.startswith(f"pyproject.toml:{int(number) + 3 + bool(head)}:{words}")


def test_not_a_configuration(project: Path) -> None:
    path = project / "adapterlint.toml"
    path.write_bytes(b"\xff\xfe")
    assert "adapterlint.toml: not UTF-8 at byte 0" in run("config").stderr
    path.write_bytes(b"# " + b"x" * (1 << 20))
    assert "adapterlint.toml: too large for a configuration" in run("config").stderr
    path.write_text("a = " + "[" * 5000)
    result = run("config")
    assert result.exit_code == 2 and "adapterlint.toml: not" in result.stderr
    for depth in (50, 150, 200, 250, 300, 400):
        path.write_text(f"select = {'[' * depth}1{']' * depth}")
        result = run("config")
        assert result.exit_code == 2 and "adapterlint.toml" in result.stderr, depth
    path.write_bytes("\ufeffselect = []".encode())
    assert run("config").exit_code == 0  # as editors on Windows write it
    path.unlink()
    path.mkdir()
    assert run("config").exit_code == 0  # a directory is no file, and so it is not found
    result = run("config", "--config", "adapterlint.toml")
    assert result.exit_code == 2 and "adapterlint.toml: cannot read the configuration: Is a directory" in result.stderr
    (project / "other.toml").symlink_to("nowhere")
    assert "No such file" in run("check", "adapters", "--config", "other.toml").stderr
    (project / "pyproject.toml").write_text("[project]\n")
    found = run("config", "--config", "pyproject.toml").stderr
    assert "pyproject.toml: there is no table [tool.adapterlint] in it" in found
    (project / "pyproject.toml").write_text("tool.adapterlint = 3\n")
    assert "pyproject.toml: tool.adapterlint must be a table" in run("config", "--config", "pyproject.toml").stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file(project: Path) -> None:
    path = project / "adapterlint.toml"
    path.touch(mode=0)
    assert "adapterlint.toml: cannot read the configuration: Permission denied" in run("config").stderr


def test_extending(project: Path) -> None:
    (project / "base.toml").write_text("extend = 'adapterlint.toml'\n")
    circle = complaint("extend = 'base.toml'")
    assert circle.startswith("base.toml:1: configuration files extend each other: adapterlint.toml -> base.toml -> ")
    assert complaint("\nextend = 'gone.toml'").startswith("adapterlint.toml:2: gone.toml: cannot read")
    (project / "base.toml").write_text("select = 3")
    assert complaint("extend = 'base.toml'") == "base.toml:1: select takes a list of texts, not a number"


def test_options_that_exclude_each_other() -> None:
    for options in (["--set", "--no-sets"], ["--no-payload", "--full-payload"], ["--config", "x", "--isolated"]):
        result = run("check", "adapters", *options)
        assert result.exit_code == 2 and "exclude each other" in result.stderr
    for pair in (["--write", "--prune"], ["--prune", "--check"]):
        result = run("baseline", "adapters", *pair)
        assert result.exit_code == 2 and "exclude each other" in result.stderr


def test_a_name_that_a_terminal_must_not_see(project: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("such names are not possible")
    (project / "\x1b[31m").mkdir()
    (project / "\x1b[31m" / "adapterlint.toml").write_text("bad = 1")
    done = shell("adapterlint config $'\\x1b[31m'", project)
    assert done.returncode == 2 and "\x1b" not in done.stderr and 'unknown key "bad"' in done.stderr
