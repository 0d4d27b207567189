"""What each setting does, and which of several values holds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from config_util import adapters, shell

from adapterlint.cli import main
from adapterlint.config.keys import EXTEND, KEYS
from adapterlint.findings import OPERATIONS
from adapterlint.rules.examples import Example, write
from adapterlint.rules.registry import all_rules

FIXTURES = Path(__file__).parents[2] / "fixtures"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def report(*arguments: str) -> Any:
    return json.loads(run("check", *arguments, "-o", "json").stdout)


def codes(*arguments: str) -> set[str]:
    return set(re.findall(r" (AL\d{3}) ", run("check", *arguments, "-o", "concise", "-q").stdout))


def configure(text: str, name: str = "adapterlint.toml") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def setting(name: str, *arguments: str) -> tuple[Any, list[str]]:
    """(value, origins) as ``adapterlint config`` tells them."""
    found = json.loads(run("config", *arguments, "--format", "json").stdout)["settings"][name]
    return found["value"], found["origins"]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    adapters(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- rules -------------------------------------------------------------------------------------------------------


def test_the_closest_selector_decides() -> None:
    assert codes("adapters") == {"AL207", "AL301", "AL508"}
    for text, expected in (
        ("select = ['AL2']", {"AL207"}),
        ("select = ['rank-mismatch', 'AL5']", {"AL207", "AL508"}),
        ("ignore = ['AL2']", {"AL301", "AL508"}),
        ("ignore = ['AL2', 'non-finite-value']", {"AL508"}),
        ("ignore = ['AL2']\nextend-select = ['AL207']", {"AL207", "AL301", "AL508"}),
        ("select = ['AL207']\nignore = ['AL2']", {"AL207"}),
        ("select = ['AL2']\nignore = ['AL2']", set()),
        ("select = ['AL2']\nignore = ['AL207']", set()),
        ("select = ['AL2']\nextend-select = ['AL301']", {"AL207", "AL301"}),
        ("ignore = ['ALL']\nextend-select = ['AL301']", {"AL301"}),
        ("ignore = ['AL2']\nextend-ignore = ['AL508']", {"AL301"}),
    ):
        configure(text)
        assert codes("adapters") == expected, text


def test_the_command_line_comes_first() -> None:
    configure("select = ['AL2']\nignore = ['AL301']\ntargets = ['peft==0.8.2']\nfail-on = 'never'")
    assert codes("adapters", "--select", "AL3") == {"AL301"}  # what is asked for is not left out
    assert codes("adapters", "--extend-select", "AL508") == {"AL207", "AL508"}
    assert report("adapters", "--target", "peft==0.9.0")["targets"] == ["peft==0.9.0"]
    assert run("check", "adapters").exit_code == 0
    assert run("check", "adapters", "--fail-on", "error").exit_code == 1
    assert codes("adapters", "--isolated") == {"AL207", "AL301", "AL508"}
    configure("ignore = ['AL301']")
    assert codes("adapters", "--ignore", "AL207") == {"AL508"}  # beside what the file ignores
    assert setting("ignore", "--ignore", "AL207") == (["AL301", "AL207"], ["adapterlint.toml:1", "command line"])


# -- files -------------------------------------------------------------------------------------------------------


def test_a_file_extends_another() -> None:
    configure("select = ['AL2']\nextend-ignore = ['AL301']\nbase = 'model'\nfail-on = 'never'", "shared/base.toml")
    configure("extend = 'shared/base.toml'\nextend-ignore = ['AL508']\nfail-on = 'note'")
    assert setting("select") == (["AL2"], ["shared/base.toml:1"])
    assert setting("extend-ignore") == (["AL301", "AL508"], ["shared/base.toml:2", "adapterlint.toml:2"])
    assert setting("base") == ("shared/model", ["shared/base.toml:3"])
    assert setting("fail-on") == ("note", ["adapterlint.toml:3"])
    assert setting("payload") == ("quick", ["default"])
    assert setting("fail-on", "--fail-on", "error") == ("error", ["command line"])
    text = run("config").stdout.splitlines()
    assert text[0] == "adapterlint.toml, which extends shared/base.toml"


def test_a_pyproject_can_be_extended() -> None:
    configure("[tool.adapterlint]\nfail-on = 'note'", "pyproject.toml")
    configure("extend = 'pyproject.toml'")
    assert setting("fail-on") == ("note", ["pyproject.toml:2"])


def test_every_setting_is_shown_with_its_origin() -> None:
    for text in ("", "targets = ['peft']"):
        configure(text)
        lines = run("config").stdout.splitlines()[2:]
        assert [line.split(" = ")[0] for line in lines] == [key.name for key in KEYS if key.name != EXTEND]
        assert all(re.search(r"  # (default|adapterlint\.toml:1)$", line) for line in lines)
    assert run("config", "--isolated").stdout.splitlines()[0] == "no configuration file"


def test_what_is_shown_can_be_written_into_a_file() -> None:
    configure("""
select = ["AL2"]
targets = ["peft>=0.13"]
base = "model"
fail-on = "note"
payload = "none"
operations = ["merge"]
[per-path-ignores]
"old/*" = ["AL5"]
[[ignores]]
rule = "AL207"
path = ["adapters/rank"]
pointer = "/r"
until = 2999-01-01
reason = "so"
""")
    first = json.loads(run("config", "--format", "json").stdout)["settings"]
    values = {name: item["value"] for name, item in first.items() if item["origins"] != ["default"]}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if isinstance(value, (str, list))]
    lines = [line for line in lines if not line.startswith("ignores")]
    entries = [f"{name} = {json.dumps(value)}" for name, value in values["ignores"][0].items()]
    globs = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in values["per-path-ignores"].items()]
    configure("\n".join([*lines, "[per-path-ignores]", *globs, "[[ignores]]", *entries]))
    second = json.loads(run("config", "--format", "json").stdout)["settings"]
    assert values == {name: item["value"] for name, item in second.items() if item["origins"] != ["default"]}


# -- the other settings --------------------------------------------------------------------------------------------


def test_targets_and_base_hold_for_every_command(project: Path) -> None:
    shutil.copytree(FIXTURES / "sets" / "seed", project / "seed")
    configure(f"targets = ['peft==0.17.1']\nbase = '{FIXTURES / 'base' / 'seed'}'")
    said = report("seed")
    assert said["targets"] == ["peft==0.17.1"] and said["base"]["path"].endswith("base/seed")
    matrix = json.loads(run("matrix", "seed", "--format", "json").stdout)
    assert matrix["targets"] == ["peft==0.17.1"]
    assert run("fix", "seed").exit_code == 1  # the union form needs the base
    assert run("fix", "seed", "--inplace").exit_code == 0
    assert run("check", "seed").exit_code == 0


def test_verify_takes_the_base(project: Path) -> None:
    result = run("verify", "adapters")
    assert result.exit_code == 2 and "the base is missing: --base DIR, or the setting base" in result.stderr
    configure("base = 'no-model'")
    assert "no-model: no such directory" in run("verify", "adapters").stderr


def test_paths_are_relative_to_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("base = 'model'\n[per-path-ignores]\n'adapters/rank' = ['AL207']")
    monkeypatch.chdir(project / "adapters")
    assert setting("base") == (str(project / "model"), [f"{project}/adapterlint.toml:1"])
    configure("[per-path-ignores]\n'adapters/rank' = ['AL207']", str(project / "adapterlint.toml"))
    assert codes("rank", "nan") == {"AL301", "AL508"} or codes("rank", "nan") == {"AL301"}
    monkeypatch.setenv("HOME", str(project))
    configure("base = '~/model'", str(project / "adapterlint.toml"))
    assert setting("base")[0] == str(project / "model")


def test_sets() -> None:
    def sets(*arguments: str) -> list[list[str]]:
        return [item["adapters"] for item in report("adapters", *arguments)["sets"]]

    fine, nan, rank = (f"adapters/{name}" for name in ("fine", "nan", "rank"))
    assert sets() == [[fine, nan, rank]]
    configure("sets = 'none'")
    assert sets() == [] and sets("--set") == [[fine, nan, rank]]
    configure("sets = 'one'")
    assert sets() == [[fine, nan, rank]] and sets("--no-sets") == []
    configure("sets = [['adapters/rank', 'adapters/fine']]")
    assert sets() == [[rank, fine]]  # in this order; the one that is left is alone
    configure("sets = [['adapters/n*', 'adapters/*']]")
    assert sets() == [[nan, fine, rank]]
    configure("sets = [['adapters/rank', 'adapters/fine'], ['adapters/nan', 'adapters/rank']]")
    assert sets() == [[rank, fine], [nan, rank]]
    assert sets("--no-sets") == []


def test_operations_and_payload() -> None:
    assert "AL503" not in codes("adapters")
    configure("operations = ['all']")
    found = codes("adapters")
    assert found > {"AL207", "AL301"} and "AL503" in found
    assert report("adapters")["findings"]
    configure(f"operations = {list(OPERATIONS)}")
    assert codes("adapters") == found
    configure("payload = 'none'")
    assert "AL301" not in codes("adapters") and "AL301" in codes("adapters", "--full-payload")


def test_ignores_hold_for_fix_and_not_for_verdicts(project: Path) -> None:
    shutil.copytree(FIXTURES / "sets" / "seed" / "a", project / "a")
    config = project / "a" / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": ', '"use_dora": false,\n  "r": '))
    configure("targets = ['peft==0.8.2']")
    before = config.read_text()
    assert run("fix", "a").exit_code == 1
    assert json.loads(run("matrix", "a", "--format", "json").stdout)
    raising = run("matrix", "a").stdout
    configure("targets = ['peft==0.8.2']\n[[ignores]]\npointer = '/use_dora'\nreason = 'needed elsewhere'")
    assert run("check", "a").exit_code == 0
    assert run("fix", "a", "--inplace").exit_code == 0 and config.read_text() == before
    assert run("matrix", "a").exit_code == 1 and run("matrix", "a").stdout == raising
    assert run("fix", "a", "--inplace", "--isolated", "--target", "peft==0.8.2").exit_code == 0
    assert config.read_text() != before


def test_ignores_hold_in_the_copies_of_fix(project: Path) -> None:
    """A file is renamed in a first pass; in the second, what is ignored in the original is left in the copy."""
    rule = next(rule for rule in all_rules() if rule.code == "AL005")
    example = next(example for example in rule.invalid() if example.title == "safetensors named .bin")
    assert isinstance(example, Example) and isinstance(example.config, dict)
    write(example._replace(config={**example.config, "use_dora": False}), project / "raw")
    configure("targets = ['peft==0.8.2']\n[[ignores]]\npath = 'raw'\npointer = '/use_dora'\nreason = 'needed'")
    result = run("fix", "raw", "--output", "fixed")
    assert result.exit_code == 0, result.output
    assert "use_dora" in (project / "fixed" / "raw" / "adapter_config.json").read_text(), result.output
    configure("targets = ['peft==0.8.2']")
    run("fix", "raw", "--output", "other")
    assert "use_dora" not in (project / "other" / "raw" / "adapter_config.json").read_text()


def test_configured_sets_say_nothing_of_joining() -> None:
    configure("sets = [['adapters/rank', 'adapters/fine']]")
    sets = report("adapters/nan", "adapters/fine", "--against", "adapters/rank")["sets"]
    assert [item["adapters"] for item in sets] == [["adapters/rank", "adapters/nan", "adapters/fine"]]
    sets = report("adapters/rank", "adapters/fine", "--against", "adapters/nan")["sets"]
    assert [item["adapters"] for item in sets] == [["adapters/nan", "adapters/rank", "adapters/fine"]]


def test_python_3_10_reads_it_too(project: Path) -> None:
    """tomllib is of 3.11; before, tomli is read instead, which the package asks for."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert "tomli>=2; python_version < '3.11'" in text
    if subprocess.run([sys.executable, "-c", "import tomli"], capture_output=True, check=False).returncode:
        pytest.skip("tomli is not installed")
    configure("fail-on = 'never'")
    code = "import sys; sys.version_info = (3, 10, 0); import adapterlint.cli as c; c.main(['config'])"
    done = shell(f'python -c "{code}"', project)
    assert 'fail-on = "never"  # adapterlint.toml:1' in done.stdout, done.stderr
