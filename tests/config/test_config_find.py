"""Which configuration file holds for a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterlint.config.errors import ConfigError
from adapterlint.config.find import find
from adapterlint.config.settings import load


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``top/repository/adapters/one``, the working directory being ``top/elsewhere``."""
    (tmp_path / "repository" / "adapters" / "one").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def found(top: Path, *paths: str) -> str | None:
    path = find([str(top / each) for each in paths])
    return None if path is None else str(Path(path).resolve().relative_to(top))


def test_the_nearest_upwards(top: Path) -> None:
    assert found(top, "repository/adapters/one") is None
    (top / "adapterlint.toml").touch()
    assert found(top, "repository/adapters/one") == "adapterlint.toml"
    (top / "repository" / "adapters" / "adapterlint.toml").touch()
    assert found(top, "repository/adapters/one") == "repository/adapters/adapterlint.toml"
    assert found(top, "repository/adapters/one/adapter_config.json") == "repository/adapters/adapterlint.toml"
    assert found(top, "repository/adapters/one", "repository") == "adapterlint.toml"  # from what they share


def test_the_own_file_comes_first(top: Path) -> None:
    (top / "pyproject.toml").write_text("[tool.adapterlint]\n")
    assert found(top, "repository") == "pyproject.toml"
    (top / "adapterlint.toml").touch()
    assert found(top, "repository") == "adapterlint.toml"


@pytest.mark.parametrize("root", [".git", ".hg", ".svn"])
def test_the_search_ends_with_the_repository(root: str, top: Path) -> None:
    (top / ".git").rmdir()
    (top / "elsewhere" / ".git").touch()  # a worktree: a file
    (top / "adapterlint.toml").touch()
    assert found(top, "repository/adapters/one") == "adapterlint.toml"
    (top / "repository" / root).mkdir()
    assert found(top, "repository/adapters/one") is None
    (top / "repository" / "adapterlint.toml").touch()
    assert found(top, "repository/adapters/one") == "repository/adapterlint.toml"


def test_the_search_ends_at_home(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "adapterlint.toml").touch()
    (top / ".git").rmdir()
    (top / "elsewhere" / ".git").mkdir()
    monkeypatch.setenv("HOME", str(top / "repository"))
    assert found(top, "repository/adapters/one") is None
    (top / "repository" / "adapterlint.toml").touch()
    assert found(top, "repository/adapters/one") == "repository/adapterlint.toml"


def test_adapters_outside_of_the_project(top: Path) -> None:
    (top / "repository" / ".git").mkdir()
    (top / "elsewhere" / "adapterlint.toml").touch()
    assert found(top, "repository/adapters/one") == "elsewhere/adapterlint.toml"
    (top / "repository" / "adapterlint.toml").touch()
    assert found(top, "repository/adapters/one") == "repository/adapterlint.toml"


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("[tool.adapterlint]\n", True),
        ('[ tool . "adapterlint" ]\n', True),
        ("[tool.adapterlint.per-path-ignores]\n", True),
        ("[tool]\nadapterlint = {}\n", True),
        ("tool.adapterlint.fail-on = 'never'\n", True),
        ("tool = { adapterlint = {} }\n", True),
        ("[project]\ndependencies = ['adapterlint>=0.1']\n", False),
        ("[tool.ruff]\n[tool]\n", False),
        ("[tool.adapter]\n", False),
        ("[project.scripts]\nadapterlint = 'x:y'\n", False),
        ("[tool.adapterlint]\nbroken", True),  # meant for us: the error is told
        ("[tool.other]\nbroken", False),  # not our business
        ("\udcff[tool.adapterlint]\n", False),
    ],
)
def test_a_pyproject_counts_if_it_has_the_table(text: str, ours: bool, top: Path) -> None:
    (top / "pyproject.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert (found(top, "repository") == "pyproject.toml") is ours


def test_paths_are_shown_as_a_user_reads_them(top: Path) -> None:
    (top / "elsewhere" / "adapterlint.toml").touch()
    assert find(["."]) == "adapterlint.toml"
    (top / "elsewhere" / "adapterlint.toml").rename(top / "adapterlint.toml")
    assert find(["."]) == str(top / "adapterlint.toml")


def test_given_and_isolated(top: Path) -> None:
    (top / "adapterlint.toml").write_text("fail-on = 'never'")
    (top / "other.toml").write_text("fail-on = 'note'")
    assert load(["."], lambda _: [])["fail-on"] == "never"
    assert load(["."], lambda _: [], config="../other.toml")["fail-on"] == "note"
    assert load(["."], lambda _: [], isolated=True)["fail-on"] == "error"
    with pytest.raises(ConfigError, match=r"no\.toml: cannot read the configuration: No such file"):
        load(["."], lambda _: [], config="no.toml")
