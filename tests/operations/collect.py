"""Puts results of measure.py, one file or more a release, into one table.

python tests/operations/collect.py RESULT.json... > tests/operations/measured.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import battery

OPERATIONS = ("load", "merge", "mixed_batch", "delete", "hotswap", "weighted", "save", "native")
LETTERS = {"ok": ".", "wrong": "W", "raises": "R", "unknown": "?"}


def main() -> None:
    """Write the table: per set and operation one letter a release, oldest first; a blank where nothing was measured."""
    found: dict[str, dict[str, Any]] = {}
    for path in sys.argv[1:]:
        result = json.loads(Path(path).read_text())
        found.setdefault(result["peft"], {}).update(result["cases"])
    releases = sorted(found, key=lambda release: [int(part) for part in release.split(".")])
    names = [case.name for case in battery.cases() if any(case.name in cases for cases in found.values())]
    rows = []
    for name in names:
        cells = {
            operation: "".join(
                LETTERS[found[release][name][operation][0]] if name in found[release] else " " for release in releases
            )
            for operation in OPERATIONS
        }
        rows.append(f"  {json.dumps(name)}: {json.dumps(cells)}")
    print('{\n "releases": ' + json.dumps(releases) + ',\n "cases": {\n' + ",\n".join(rows) + "\n }\n}")


if __name__ == "__main__":
    main()
