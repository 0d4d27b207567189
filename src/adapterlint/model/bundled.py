"""Where the bundled tables and schemas lie."""

from __future__ import annotations

import importlib
import os


def bundled_file(name: str) -> str:
    """Path of a file in ``adapterlint.schemas``, such as ``peft/index.json``.

    The package lies at the top level of the source tree and is found by import in a wheel, an sdist and an editable
    install alike; importlib.resources would do the same and cost 10 ms at every start.
    """
    package = importlib.import_module("adapterlint.schemas")
    return os.path.join(package.__path__[0], *name.split("/"))
