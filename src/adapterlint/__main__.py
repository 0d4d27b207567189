"""``python -m adapterlint``."""

from __future__ import annotations

from adapterlint.cli import script

if __name__ == "__main__":
    script()
