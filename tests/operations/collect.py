"""Puts results of measure.py, one file a release, into one table: python collect.py RESULT.json... > measured.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OPERATIONS = ("load", "merge", "mixed_batch", "delete", "hotswap", "weighted", "save", "native")
LETTERS = {"ok": ".", "wrong": "W", "raises": "R", "unknown": "?"}


def main() -> None:
    """Write the table: per set and operation one letter a release, oldest first; a blank where nothing was measured."""
    found: dict[str, dict[str, Any]] = {}
    for path in sys.argv[1:]:
        result = json.loads(Path(path).read_text())
        found.setdefault(result["peft"], {}).update(result["cases"])
    releases = sorted(found, key=lambda release: [int(part) for part in release.split(".")])
    names = list(dict.fromkeys(name for release in reversed(releases) for name in found[release]))
    rows = []
    for name in names:
        cells = {
            operation: "".join(
                LETTERS[found[release][name][operation][0]] if name in found[release] else " " for release in releases
            )
            for operation in OPERATIONS
        }
        rows.append(f'  {json.dumps(name)}: {json.dumps(cells)}')
    print('{\n "releases": ' + json.dumps(releases) + ',\n "cases": {\n' + ",\n".join(rows) + "\n }\n}")


if __name__ == "__main__":
    main()
