"""Repairs every measured case and loads the results in real PEFT releases: ``tox -e fixproof``.

    python tests/fixing/fixproof.py [--cases DIR] [--envs DIR] [--only GLOB] [--release V ...] [--work DIR]

Each case is copied twice and fixed in place, once as it is and once with ``--unsafe-fixes``; then the copies are loaded
in each release, as a user would, and compared with the outputs that the adapters were trained to give. The releases
are environments as ``setup_envs.sh`` beside the cases makes them.

It fails where a healthy case came out worse, and where a defect that the table below calls repaired was not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve()
ORACLE = HERE.parents[3] / "shared" / "oracle"
RELEASES = {"0.8.2": "t436", "0.14.0": "t448", "0.17.1": "t457", "0.21.2": "t457"}
MODES = {"safe": [], "unsafe": ["--unsafe-fixes"]}

# Run by the environment's own Python: one process loads every directory for one release.
_DRIVER = """
import json, sys, logging, pathlib
sys.path.insert(0, sys.argv[1])
import run, torch, transformers, numpy as np
torch.set_num_threads(1)
logging.disable(logging.WARNING)
transformers.logging.set_verbosity_error()
jobs = json.load(sys.stdin)
out = {}
for job in jobs:
    case_dir = pathlib.Path(job["case"])
    case = json.loads((case_dir / "case.json").read_text())
    dirs = [pathlib.Path(job["root"]) / name for name in case["order"]]
    out[job["key"]] = run.observe(case, (case_dir / case["base"]).resolve(), dirs, np.load(case_dir / "reference.npz"))
json.dump(out, open(sys.argv[2], "w"))
"""


class Case(NamedTuple):
    """A measured case."""

    path: Path
    about: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def defects(self) -> list[str]:
        return list(self.about["defects"])
