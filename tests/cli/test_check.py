"""``adapterlint check``: exit codes, usage errors, input that makes no sense."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_util import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterlint.cli.reports import FORMATS
from adapterlint.findings import Finding
from adapterlint.model.subject import Subject
from adapterlint.rules.examples import (
    Example,
    SetExample,
    llama_base,
    llama_tensors,
    lora_config,
    safetensors_bytes,
    write,
    write_any,
)
from adapterlint.rules.registry import all_rules

FINE = Example("fine", lora_config(), llama_tensors())
RANK = Example("rank", lora_config(r=8), llama_tensors(4))


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def warned() -> str:
    """An adapter with a warning and nothing worse."""
    config = '{"r": 8, ' + json.dumps(lora_config())[1:]
    write(Example("duplicate key", config, llama_tensors()), Path("warned"))
    data = json.loads(run("check", "warned", "--format", "json").stdout)
    assert (data["summary"]["errors"], data["summary"]["warnings"]) == (0, 1)
    return "warned"


def noted() -> str:
    """An adapter with a note and nothing worse."""
    from adapterlint.rules.registry import all_rules

    rule = next(rule for rule in all_rules() if rule.code == "AL007")
    example = rule.invalid()[0]
    assert isinstance(example, Example)
    write(example, Path("noted"))
    data = json.loads(run("check", "noted", "--format", "json").stdout)
    assert (data["summary"]["errors"], data["summary"]["warnings"]) == (0, 0)
    assert data["summary"]["notes"] > 0
    return "noted"


@pytest.mark.parametrize("format_", FORMATS)
def test_exit_codes_do_not_depend_on_the_format(format_: str) -> None:
    write(FINE, Path("fine"))
    write(RANK, Path("rank"))
    Path("empty").mkdir()
    codes = {path: run("check", path, "--format", format_).exit_code for path in ("fine", "rank", "empty")}
    assert codes == {"fine": 0, "rank": 1, "empty": 3}
    assert run("check", "rank", "--exit-zero", "--format", format_).exit_code == 0
    assert run("check", "empty", "--exit-zero", "--format", format_).exit_code == 0
    assert run("check", "missing", "--format", format_).exit_code == 2


def test_thresholds() -> None:
    write(RANK, Path("rank"))
    expected = {
        "rank": {"error": 1, "warning": 1, "note": 1, "never": 0},
        warned(): {"error": 0, "warning": 1, "note": 1, "never": 0},
        noted(): {"error": 0, "warning": 0, "note": 1, "never": 0},
    }
    for path, codes in expected.items():
        assert {level: run("check", path, "--fail-on", level).exit_code for level in codes} == codes
    assert run("check", "warned").exit_code == 0


def test_what_nobody_asked_about_does_not_fail() -> None:
    write_any(SetExample("names", {"sum": FINE, "summary": FINE}, llama_base()), Path("."))
    arguments = ("check", "sum", "summary", "--base", "base", "--fail-on", "note", "--select", "AL517")
    assert run(*arguments).exit_code == 0
    assert run(*arguments, "--operation", "merge").exit_code == 0
    asked = run(*arguments, "--operation", "save")
    assert asked.exit_code == 1 and "AL517" in asked.stdout
    assert run(*arguments, "--operation", "all").exit_code == 1
    data = json.loads(run(*arguments, "--format", "json").stdout)
    assert [finding["rule"] for finding in data["findings"]] == ["AL517"]


def one_line(*arguments: str) -> str:
    """The error of a command that must not run: one line on the error stream, nothing on the other."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.rstrip("\n").split("\n")
    assert line.isprintable()
    return line


def test_missing_path() -> None:
    assert one_line("check", "no/such") == "Error: no/such: no such file or directory"
    assert one_line("check", "no\n\x1b[31m") == "Error: no\\n\\x1b[31m: no such file or directory"
    assert "no such" in one_line("check", "x" * 5000)
    assert "no such" in one_line("check", "")


def test_missing_base() -> None:
    write(FINE, Path("fine"))
    assert "--base" in one_line("check", "fine", "--base", "nowhere")
    Path("empty").mkdir()
    assert "not a base model" in one_line("check", "fine", "--base", "empty")


def test_unknown_target_names_the_known_ones() -> None:
    write(FINE, Path("fine"))
    line = one_line("check", "fine", "--target", "peft==0.99")
    assert "'peft==0.99'" in line and "0.6.2, 0.7.0" in line and "0.21.2" in line
    assert "0.3.0 to 0.21.2" in one_line("check", "fine", "--target", "vllm==0.33.0")


@pytest.mark.parametrize(
    "text", ["", ",", "peft==", "peft<", "peft>", "peft=>1", "peft>=x", "\x1b", "peft>=0.6,<", "==1", "é"]
)
def test_targets_that_make_no_sense(text: str) -> None:
    write(FINE, Path("fine"))
    assert one_line("check", "fine", "--target", text).startswith("Error: ")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("peft", "0.21.2", "0.21.2"),
        ("peft>=0.6,<0.14", "0.6.0", "0.13.2"),
        ("peft <= 0.13.1", "0.3.0", "0.13.1"),
        ("peft==0.13.*", "0.13.0", "0.13.2"),
        ("peft>=0.13,", "0.13.0", "0.21.2"),
        ("peft~=0.20", "0.20.0", "0.21.2"),
    ],
)
def test_target_ranges(text: str, first: str, last: str) -> None:
    write(FINE, Path("fine"))
    targets = json.loads(run("check", "fine", "--format", "json", "--target", text).stdout)["targets"]
    assert (targets[0], targets[-1]) == (f"peft=={first}", f"peft=={last}")


@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_bad_selection(option: str) -> None:
    write(FINE, Path("fine"))
    for text in ("AL8", "al207", "nonsense", "AL207,zzz"):
        result = run("check", "fine", option, text)
        assert result.exit_code == 2 and "names no rule" in result.stderr and result.stdout == ""


def test_usage_errors() -> None:
    write(FINE, Path("fine"))
    for arguments in (
        (),
        ("fine", "--format", "xml"),
        ("fine", "--fail-on", "sometimes"),
        ("fine", "--operation", "dance"),
        ("fine", "--set", "--no-sets"),
        ("fine", "--nonsense"),
    ):
        result = run("check", *arguments)
        assert result.exit_code == 2 and result.stdout == ""


def test_selection() -> None:
    write(RANK, Path("rank"))
    assert run("check", "rank", "--select", "AL2").exit_code == 1
    assert run("check", "rank", "--select", "rank-mismatch").exit_code == 1
    ignored = run("check", "rank", "--ignore", "AL207")
    assert ignored.exit_code == 0
    assert "Nothing reported in 1 adapter" in ignored.stdout and "adapter rank: raises" in ignored.stdout


def test_a_rule_that_crashes_exits_2_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: object, subject: Subject) -> Iterator[Finding]:
        raise ZeroDivisionError("a crash")
        yield

    write(FINE, Path("fine"))
    rule = next(rule for rule in all_rules() if rule.code == "AL207")
    monkeypatch.setattr(type(rule), "check", crash)
    from click.testing import CliRunner

    from adapterlint.cli import main

    for extra in ((), ("--exit-zero",)):
        result = CliRunner().invoke(main, ["check", "fine", *extra])
        assert result.exit_code == 2
        assert "ZeroDivisionError: a crash" in result.stderr
        assert "[AL999] internal-error: rule AL207" in result.stdout


# -- input that makes no sense -----------------------------------------------------------------------------------

CONFIGS: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "number": b"7",
    "text": b'"LORA"',
    "list": b"[1, 2]",
    "no type": b"{}",
    "cut": b'{"peft_type": "LO',
    "control": b'{"a": "b\nc"}',
    "zeros": bytes(100),
    "utf-16": '{"peft_type": "LORA"}'.encode("utf-16"),
    "latin-1": b'{"peft_type": "LORA", "x": "\xe9"}',
    "surrogate": b'{"peft_type": "LORA", "base_model_name_or_path": "\\ud800", "\\udfff": 1}',
    "deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "fairly deep": b'{"peft_type": "LORA", "x": ' + b"[" * 900 + b"]" * 900 + b"}",
    "long number": b'{"peft_type": "LORA", "r": ' + b"9" * 5000 + b"}",
    "large number": b'{"peft_type": "LORA", "lora_alpha": 1e308, "r": 1' + b"0" * 400 + b"}",
    "not a number": b'{"peft_type": "LORA", "r": NaN, "lora_alpha": Infinity}',
    "wrong kinds": json.dumps({key: {"a": [None, True]} for key in lora_config()}).encode(),
    "lists": json.dumps({key: [[], {}, 1.5, "x", None] for key in lora_config()}).encode(),
    "typed lists": json.dumps({**{key: [] for key in lora_config()}, "peft_type": "LORA"}).encode(),
    "patterns": json.dumps(lora_config(rank_pattern={"(": 1, "": 2}, target_modules="((", alpha_pattern=[])).encode(),
    "duplicates": b'{"r": 1, "r": 2, "peft_type": "LORA", "peft_type": "IA3"}',
    "bom": b"\xef\xbb\xbf" + json.dumps(lora_config()).encode(),
}
WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(64),
    "large header": b"\xff" * 64,
    "not json": (8).to_bytes(8, "little") + b"nonsense",
    "html": b"<!DOCTYPE html><html></html>",
    "cut": safetensors_bytes(llama_tensors())[:200],
    "no tensors": safetensors_bytes({}),
    "odd names": safetensors_bytes(dict.fromkeys(("", ".", "a" * 3000, "\n", "lora_A", "#.1", "#.#"), ("F32", (2, 2)))),
    "odd shapes": safetensors_bytes(
        {name: ("F32", shape) for name, shape in zip(llama_tensors(layers=1), [(), (0,), (1,), (2, 0)], strict=True)}
    ),
}
NONSENSE = (*(("config", name) for name in CONFIGS), *(("weights", name) for name in WEIGHTS))


@pytest.mark.parametrize(("kind", "name"), NONSENSE)
def test_nonsense_is_reported_not_raised(kind: str, name: str) -> None:
    config = CONFIGS[name] if kind == "config" else lora_config()
    files = {"adapter_model.safetensors": WEIGHTS[name]} if kind == "weights" else {}
    write(Example(name, config, None if files else llama_tensors(), files=files), Path("odd"))
    write(FINE, Path("fine"))
    for format_ in FORMATS:
        assert run("check", "odd", "fine", "--format", format_, "--operation", "all").exit_code in (0, 1)
    for format_ in ("text", "json"):
        assert run("show", "odd", "--format", format_).exit_code == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=st.binary(max_size=60), weights=st.binary(max_size=60))
def test_random_bytes(config: bytes, weights: bytes) -> None:
    write(Example("random", config, files={"adapter_model.safetensors": weights}), Path("random"))
    for format_ in FORMATS:
        assert run("check", "random", "--format", format_).exit_code in (0, 1)
    assert run("show", "random").exit_code == 0
    assert run("show", "random", "--format", "json").exit_code == 0


def test_odd_file_systems() -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        Path("directories", name).mkdir(parents=True)
    write(FINE, Path("loop"))
    Path("loop/loop").symlink_to("..", target_is_directory=True)
    Path("dangling").mkdir()
    Path("dangling/adapter_config.json").symlink_to("nowhere")
    raw = os.fsencode(os.getcwd()) + b"/bad\xff\xfename"
    os.mkdir(raw)
    (Path(os.fsdecode(raw)) / "adapter_config.json").write_text("{}")
    for format_ in FORMATS:
        result = run("check", ".", "--format", format_)
        assert result.exit_code in (0, 1)
    assert run("show", ".").exit_code == 0
    assert run("show", ".", "--format", "json").exit_code == 0


def test_a_file_stands_for_its_directory() -> None:
    write(RANK, Path("rank"))
    assert run("check", "rank/adapter_config.json").exit_code == 1


# -- the terminal ------------------------------------------------------------------------------------------------


def on_terminal(*arguments: str, **environment: str) -> bytes:
    """What a command prints to a terminal."""
    ours, theirs = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    command = [sys.executable, "-m", "adapterlint", *arguments]
    done = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**clean, "TERM": "xterm", **environment})
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how a terminal ends on Linux
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(ours)
    done.wait(timeout=60)
    return b"".join(chunks)


def test_colours_are_for_terminals() -> None:
    write(RANK, Path("rank"))
    assert b"\x1b[31m" in on_terminal("check", "rank")
    assert b"\x1b[" in on_terminal("check", "rank", "--format", "concise")
    for format_ in ("json", "github"):
        assert b"\x1b" not in on_terminal("check", "rank", "--format", format_)
    assert b"\x1b" not in on_terminal("check", "rank", NO_COLOR="1")
    assert b"\x1b" not in on_terminal("check", "rank", TERM="dumb")
    piped = subprocess.run([sys.executable, "-m", "adapterlint", "check", "rank"], capture_output=True, timeout=60)
    assert piped.returncode == 1 and b"\x1b" not in piped.stdout


def test_streams_that_cannot_say_everything() -> None:
    write(Example("wide", lora_config(r=8, base_model_name_or_path="日本"), llama_tensors()), Path("モデル"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "adapterlint", "check", "モデル"]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    assert done.returncode == 1
    assert done.stdout.isascii() and b"\\u30e2" in done.stdout and done.stderr == b""
