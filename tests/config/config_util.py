"""Adapters beside settings, and the command line in a real shell."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from adapterlint.rules.examples import Example, llama_tensors, lora_config, write

VARIABLES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "GITHUB_STEP_SUMMARY")


def adapters(root: Path) -> None:
    """Below ``root/adapters``: ``fine``; ``rank``, whose r is wrong (AL207 at /r); ``nan``, with non-finite numbers."""
    write(Example("fine", lora_config(), llama_tensors()), root / "adapters" / "fine")
    write(Example("rank", lora_config(r=8), llama_tensors(4)), root / "adapters" / "rank")
    write(Example("nan", lora_config(), llama_tensors(), fill="nan"), root / "adapters" / "nan")


def environment(**extra: str) -> dict[str, str]:
    """The environment of a user who has the program installed, and no wishes about colours."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**kept, "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{kept['PATH']}", **extra}


def shell(command: str, directory: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in a directory."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=environment(**extra),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
