"""Colours, the progress bar and --watch, on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapterlint.checking import ENOUGH
from adapterlint.cli.progress import Bar
from adapterlint.rules.examples import Example, llama_tensors, lora_config, write
from adapterlint.run import Request, check

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
VARIABLES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM")
SCRIPT = str(Path(sysconfig.get_path("scripts")) / "adapterlint")


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**kept, "TERM": "xterm-256color", **extra}


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """(what the terminal shows, what programs write to), two file descriptors."""
    shown, written = pty.openpty()
    try:
        yield shown, written
    finally:
        os.close(shown)
        os.close(written)


def seen(shown: int, seconds: float = 0.2) -> str:
    """What the terminal has shown, until nothing comes for a while."""
    data = b""
    while select.select([shown], [], [], seconds)[0]:
        data += os.read(shown, 65536)
    return data.decode()


def colours(stream: str, arguments: list[str], **variables: str) -> bool:
    """Whether escapes reach the standard output, a terminal or a pipe."""
    with terminal() as (shown, written):
        out = written if stream == "terminal" else subprocess.PIPE
        done = subprocess.run(
            [SCRIPT, *arguments], stdout=out, stderr=subprocess.DEVNULL, env=environment(**variables), check=False
        )
        text = seen(shown) if stream == "terminal" else done.stdout.decode()
    assert "AL207" in text
    return "\x1b[" in text


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    return write(Example("rank", lora_config(r=8), llama_tensors(4)), tmp_path / "rank")


@pytest.mark.parametrize(
    ("stream", "variables", "coloured"),
    [
        ("terminal", {}, True),
        ("pipe", {}, False),
        ("terminal", {"NO_COLOR": "1"}, False),
        ("terminal", {"NO_COLOR": ""}, True),  # https://no-color.org: when not empty
        ("terminal", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ("pipe", {"FORCE_COLOR": "1"}, True),
        ("pipe", {"FORCE_COLOR": "0"}, False),
        ("pipe", {"FORCE_COLOR": ""}, False),
        ("pipe", {"CLICOLOR_FORCE": "1"}, True),
        ("pipe", {"CLICOLOR_FORCE": "0"}, False),
        ("terminal", {"CLICOLOR": "0"}, False),
        ("terminal", {"CLICOLOR": "1"}, True),
        ("terminal", {"CLICOLOR": "0", "CLICOLOR_FORCE": "1"}, True),
        ("terminal", {"TERM": "dumb"}, False),
        ("pipe", {"CLICOLOR": "1"}, False),
    ],
)
def test_colours(stream: str, variables: dict[str, str], coloured: bool, broken: Path) -> None:
    assert colours(stream, ["check", str(broken)], **variables) is coloured


@pytest.mark.parametrize("arguments", [["rule", "AL207"], ["check", "--statistics"], ["matrix"]])
def test_other_commands_take_colours_from_the_same_place(arguments: list[str], broken: Path) -> None:
    arguments = [*arguments, *([str(broken)] if arguments[0] != "rule" else [])]
    assert colours("terminal", arguments)
    assert not colours("terminal", arguments, NO_COLOR="1")
    assert not colours("pipe", arguments)


def test_reports_for_machines_are_never_coloured(broken: Path) -> None:
    for format_ in ("json", "sarif", "junit", "html", "rdjson", "gitlab"):
        assert not colours("terminal", ["check", str(broken), "-o", format_], FORCE_COLOR="1")


# -- progress ----------------------------------------------------------------------------------------------------

_SLOWLY = """
import sys, time
from adapterlint.cli import main, progress
from adapterlint import checking
progress.PATIENCE = {patience}
one = checking._check_one
checking._check_one = lambda *arguments: (time.sleep(0.12), one(*arguments))[1]
main(sys.argv[1:])
"""


def progress_of(root: Path, patience: float, *arguments: str, **variables: str) -> tuple[str, str]:
    """(standard output, what the terminal behind the standard error stream shows) of a check of some adapters."""
    with terminal() as (shown, written):
        done = subprocess.run(
            [sys.executable, "-c", _SLOWLY.format(patience=patience), "check", str(root), *arguments],
            stdout=subprocess.PIPE,
            stderr=written,
            env=environment(**variables),
            check=False,
        )
        return done.stdout.decode(), seen(shown)


@pytest.fixture
def several(tmp_path: Path) -> Path:
    for number in range(6):
        write(Example("fine", lora_config(), llama_tensors()), tmp_path / "all" / str(number))
    return tmp_path / "all"


def test_a_bar_on_the_error_stream_where_the_work_is_long(several: Path) -> None:
    out, err = progress_of(several, 0.2)
    assert "adapters" in out and "\r" not in out
    steps = [tuple(map(int, found)) for found in re.findall(r"\[[#.]{30}\] (\d+) of (\d+) adapters\x1b\[K", err)]
    assert len(steps) >= 2 and steps == sorted(steps) and all(total == 6 for _, total in steps)
    assert err.endswith("\r\x1b[K\r")  # it wipes itself away


def test_no_bar(several: Path) -> None:
    assert progress_of(several, 60)[1] == ""  # short work
    assert progress_of(several, 0.2, TERM="dumb")[1] == ""
    assert progress_of(several, 0.2, "--quiet")[1] == ""
    done = subprocess.run(
        [sys.executable, "-c", _SLOWLY.format(patience=0), "check", str(several)], capture_output=True, check=False
    )
    assert done.stderr == b""  # no terminal


def test_several_processes_tell_how_far_they_are(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for number in range(ENOUGH):
        write(Example("fine", lora_config(), llama_tensors()), tmp_path / str(number))
    report = check(Request([str(tmp_path)], progress=lambda done, total: told.append((done, total))))
    assert len(report.adapters) == ENOUGH
    assert len(told) >= 2 and told == sorted(told) and told[-1] == (ENOUGH, ENOUGH)


def test_a_bar_draws_a_few_times_a_second(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bar = Bar()
    for done in range(1, 3001):
        now[0] += 0.001
        bar(done, 3000)
    drawn = capsys.readouterr().err
    assert 15 <= drawn.count("adapters") <= 21


# -- watch -------------------------------------------------------------------------------------------------------


def wait_for(shown: int, text: str, count: int) -> str:
    """What the terminal shows until a text has been seen so often."""
    found, end = "", time.monotonic() + 30
    while found.count(text) < count:
        assert time.monotonic() < end, found
        if select.select([shown], [], [], 0.2)[0]:
            found += os.read(shown, 65536).decode()
    return found


def test_watch(broken: Path) -> None:
    config, settings = broken / "adapter_config.json", broken.parent / "adapterlint.toml"
    with terminal() as (shown, written):
        command = [SCRIPT, "check", "rank", "--watch", "-o", "concise", "--fail-on", "never"]
        process = subprocess.Popen(
            command, cwd=broken.parent, stdin=written, stdout=written, stderr=written, env=environment(NO_COLOR="1"),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )  # fmt: skip
        try:
            first = wait_for(shown, "Ctrl-C ends it", 1)
            assert "AL207" in first
            config.write_text(config.read_text().replace('"r": 8', '"r": 4'))
            second = wait_for(shown, "Ctrl-C ends it", 1)
            assert "something changed" in second and "AL207" not in second and "No problems found" in second
            settings.write_text('targets = ["peft==0.8.2"]')
            assert "peft 0.8.2" in wait_for(shown, "Ctrl-C ends it", 1)
            settings.write_text("targets = 3")  # a mistake does not end it
            assert "adapterlint.toml:1" in wait_for(shown, "Ctrl-C ends it", 1)
            settings.unlink()
            assert "peft 0.21" in wait_for(shown, "Ctrl-C ends it", 1)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
            assert "Traceback" not in seen(shown)
        finally:
            process.kill()
            process.wait()
