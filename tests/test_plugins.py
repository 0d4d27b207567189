"""A package of rules, built and installed by pip into an environment of its own, and what is said of broken ones."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from adapterlint.rules.examples import Example, llama_tensors, lora_config, write

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("pip", "setuptools")), reason="pip and setuptools build it"
)

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "acme-rules"
version = "1.0"
[project.entry-points."adapterlint.rules"]
acme = "acme_rules"
broken = "acme_broken.raises"
leaving = "acme_broken.leaves"
taken = "acme_broken.taken"
reserved = "acme_broken.reserved"
nothing = "acme_broken.nothing:RULE"
unmakeable = "acme_broken.unmakeable"
unnamed = "acme_broken.unnamed"
missing = "acme_broken.no_such_module"
[tool.setuptools]
packages = ["acme_rules", "acme_broken"]
"""
RULE = '''
from adapterlint import Example, Fix, Rule, Safety, Severity
from adapterlint.findings import SetConfig
from adapterlint.rules.examples import llama_tensors, lora_config


class DropoutLeft(Rule):
    """Dropout is left in the config.

    ## What it does
    Reports lora_dropout that is not 0.

    ## Why is this bad?
    Our server refuses it.

    ## Example
    "lora_dropout": 0.5

    ## Fix
    Set it to 0.

    ## References
    The handbook of Acme.
    """

    code = "ACME001"
    name = "dropout-left"
    severity = Severity.WARNING

    @staticmethod
    def valid():
        return [Example("no dropout", lora_config(), llama_tensors())]

    @staticmethod
    def invalid():
        return [Example("half of it", lora_config(lora_dropout=0.5), llama_tensors())]

    def check(self, subject):
        if subject.adapter.config.get("lora_dropout"):
            fix = Fix("Set lora_dropout to 0", Safety.SAFE, (SetConfig("/lora_dropout", 0.0),))
            yield self.finding("lora_dropout is not 0", subject.at_config("/lora_dropout"), fix=fix)
'''
TESTS = """
import pytest
from acme_rules import DropoutLeft
from adapterlint.testing import rule_cases

@pytest.mark.parametrize("case", rule_cases(DropoutLeft), ids=str)
def test_rule(case, tmp_path):
    case.run(tmp_path)
"""
_HEAD = "from adapterlint import Rule\nclass Bad(Rule):\n"
BROKEN = {
    "raises": "import no_such_library_at_all\n",
    "leaves": "import sys\nsys.exit(3)\n",
    "taken": f"{_HEAD}    code, name = 'ACME007', 'rank-mismatch'\n",
    "reserved": f"{_HEAD}    code, name = 'AL207', 'of-my-own'\n",
    "nothing": "RULE = 3\n",
    "unmakeable": f"{_HEAD}    code, name = 'ACME008', 'no'\n    def __init__(self):\n        raise KeyError('key')\n",
    "unnamed": f"{_HEAD}    code, name = 7, None\n",
}
MESSAGES = {
    "broken": "cannot be imported: ModuleNotFoundError: No module named 'no_such_library_at_all'",
    "missing": "cannot be imported: ModuleNotFoundError: No module named 'acme_broken.no_such_module'",
    "leaving": "cannot be imported: SystemExit: 3",
    "taken": "rule Bad: there is a rule ACME007 or rank-mismatch already",
    "reserved": "rule Bad: codes that begin with AL are reserved",
    "nothing": "has no rules: it must be a rule, a list of rules or a module that defines them",
    "unmakeable": "a rule cannot be made: KeyError: 'key'",
    "unnamed": "rule Bad: it needs a code such as ACME001 and a kebab-case name, not 7 and None",
}


def install(python: Path, source: Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-build-isolation"]
    done = subprocess.run([*command, "--no-deps", "--no-index", str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of an environment in which the package is installed, beside what this one has."""
    root = tmp_path_factory.mktemp("plugin")
    venv.create(root / "env", symlinks=True)
    python = root / "env" / "bin" / "python"
    [site] = (root / "env" / "lib").glob("python*/site-packages")
    (site / "below.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    files = {"pyproject.toml": PROJECT, "acme_rules/__init__.py": RULE, "acme_broken/__init__.py": ""}
    files |= {f"acme_broken/{name}.py": text for name, text in BROKEN.items()}
    for name, text in files.items():
        (root / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "source" / name).write_text(text)
    (root / "test_acme.py").write_text(TESTS)
    install(python, root / "source")
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(Example("half", lora_config(lora_dropout=0.5), llama_tensors()), tmp_path / "adapter")
    (tmp_path / "adapterlint.toml").write_text('plugins = ["acme"]\n')
    return tmp_path


def lint(python: Path, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "adapterlint", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def codes(python: Path, project: Path, *arguments: str) -> list[str]:
    report = json.loads(lint(python, project, "check", "adapter", "-o", "json", *arguments).stdout)
    return [item["rule"] for item in report["findings"]]


def test_a_rule_of_a_package_is_a_rule_like_others(installed: Path, project: Path) -> None:
    assert codes(installed, project) == ["ACME001"]
    assert codes(installed, project, "--isolated") == []
    assert codes(installed, project, "--ignore", "dropout-left") == []
    assert codes(installed, project, "--select", "ACME") == ["ACME001"]
    page = lint(installed, project, "rule", "ACME001").stdout
    assert "Our server refuses it." in page and "lora_dropout is not 0" in page
    assert "ACME001  dropout-left" in lint(installed, project, "rule").stdout
    (project / "adapterlint.toml").write_text('plugins = ["acme"]\nignore = ["ACME001"]\n')
    assert codes(installed, project) == []
    shown = lint(installed, project, "config", "adapter").stdout
    assert 'plugins = ["acme"]  # adapterlint.toml:1' in shown and 'ignore = ["ACME001"]' in shown
    (project / "adapterlint.toml").write_text('plugins = ["acme"]\n')
    assert lint(installed, project, "fix", "adapter", "--inplace").returncode == 0
    assert json.loads((project / "adapter" / "adapter_config.json").read_text())["lora_dropout"] == 0


def test_its_tests_are_those_of_a_rule(installed: Path) -> None:
    command = [str(installed), "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_acme.py"]
    done = subprocess.run(command, cwd=installed.parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("name", MESSAGES)
def test_a_broken_plugin_is_an_error_of_one_line(name: str, installed: Path, project: Path) -> None:
    (project / "adapterlint.toml").write_text(f'plugins = ["acme", "{name}"]\n')
    done = lint(installed, project, "check", "adapter")
    assert done.returncode == 2 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"Error: plugin {name!r} (acme_broken.") and ", of acme-rules)" in line
    assert MESSAGES[name] in line


def test_what_new_rule_writes_can_be_installed(installed: Path, project: Path) -> None:
    assert lint(installed, project, "new-rule", "MINE01", "dropout-of-mine", "--package", "package").returncode == 0
    install(installed, project / "package")
    (project / "adapterlint.toml").write_text('plugins = ["mine"]\n')
    assert codes(installed, project) == ["MINE01"]


def test_two_plugins_of_one_name(installed: Path, project: Path) -> None:
    for number in ("one", "two"):
        module = f"twice_{number}"
        metadata = project / f"{module}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: twice-{number}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[adapterlint.rules]\ntwice = {module}\n")
    (project / "adapterlint.toml").write_text('plugins = ["twice"]\n')
    done = lint(installed, project, "check", "adapter")  # python -m looks for distributions in the directory, too
    assert done.returncode == 2 and "two distributions have a plugin of one name" in done.stderr
    assert "of twice-one" in done.stderr and "of twice-two" in done.stderr
