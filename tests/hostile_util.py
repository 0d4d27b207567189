"""Runs commands on bad input, with a limit on time, and says what no output may hold."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from click.testing import CliRunner, Result

from adapterlint.cli import main

PROJECT = Path(__file__).resolve().parents[1]
HOSTILE = PROJECT / "fixtures" / "hostile"
SEED_BASE = PROJECT / "fixtures" / "base" / "seed"
LIMIT = 5.0
"""Seconds that one command may take on one directory."""

MEMORY = 300 << 20
"""Bytes that one command may hold."""

# Control characters other than line breaks, bidirectional controls, line and paragraph separators, surrogates.
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class TookTooLongError(BaseException):
    """Not an Exception, so that nothing that catches crashes catches it."""


def _late(signum: int, frame: FrameType | None) -> None:
    raise TookTooLongError(f"still at it after {LIMIT} s")


@contextmanager
def time_limit(seconds: float = LIMIT) -> Iterator[None]:
    """Interrupt what takes longer, a regular expression too."""
    before = signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def invoke(*arguments: object, limit: float = LIMIT) -> Result:
    """Run a command in this process; fails when it raises or takes too long."""
    with time_limit(limit):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def assert_clean(text: str) -> None:
    """No traceback, and nothing that a terminal or a workflow runner would obey."""
    assert "Traceback" not in text
    found = _UNPRINTABLE.search(text)
    assert found is None, f"{found!r} after {text[: found.start()][-60:]!r}"


# At its end the process writes its own high-water mark: what wait4 tells may be that of the process that forked.
_RUNNER = """
import atexit, os, sys

def peak():
    with open("/proc/self/status") as status, open(os.environ["PEAK_FILE"], "w") as out:
        out.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))

if os.path.exists("/proc/self/status"):
    atexit.register(peak)
if "DATA_LIMIT" in os.environ:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (int(os.environ["DATA_LIMIT"]),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["DATA_LIMIT"]),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
from adapterlint.cli import main
main(prog_name="adapterlint")
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code, output, peak memory in bytes (0 where the system does not tell)."""

    code: int
    stdout: str
    stderr: str
    memory: int


def shell(*arguments: object, limit: float = LIMIT, env: Mapping[str, str] | None = None) -> Ended:
    """Run the command line in a process of its own; fails when it takes too long."""
    command = [sys.executable, "-c", _RUNNER, *(os.fsencode(str(argument)) for argument in arguments)]
    with tempfile.TemporaryDirectory() as scratch:
        peak = Path(scratch) / "peak"
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=limit,
                check=False,
                env={**os.environ, "PEAK_FILE": str(peak), **(env or {})},
            )
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still at it after {limit} s: {arguments}") from None
        memory = int(peak.read_text()) << 10 if peak.exists() else 0
    return Ended(
        done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"), memory
    )
