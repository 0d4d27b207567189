"""adapterlint: a static compatibility linter and converter for PEFT adapter directories."""

from __future__ import annotations

__version__ = "0.1.0"
