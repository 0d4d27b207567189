"""Regular expressions of a config: compiled once, and kept from taking for ever."""

from __future__ import annotations

import importlib
import re
import sys
from functools import lru_cache
from typing import Any

# The parser moved in 3.11; both know what a pattern repeats, which the compiled pattern does not tell.
_PARSER: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_UNBOUNDED = 64  # a repeat up to this often counts as bounded
_MOST_IN_A_ROW = 6  # matching may take (length of a module path) ** this many steps


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str] | None:
    """The pattern, or None when it is no regular expression or could take longer than anyone waits."""
    try:
        found = re.compile(pattern)
        return None if _depth(_PARSER.parse(pattern)) > _MOST_IN_A_ROW else found
    except (re.error, RecursionError, OverflowError):
        return None


def error_in(pattern: str) -> str | None:
    """What compiling a pattern raises, kind and text, as ``re`` of Python 3.11 says it; None if nothing."""
    try:
        re.compile(pattern)
    except re.error as error:
        return f"error: {error}"
    except (RecursionError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@lru_cache(maxsize=1024)
def explosive(pattern: str) -> bool:
    """Whether the pattern is a regular expression whose matching could take longer than anyone waits.

    It repeats what itself repeats without bound, such as ``(a+)+``, or repeats so more than six times in a row.
    """
    try:
        re.compile(pattern)
        return _depth(_PARSER.parse(pattern)) > _MOST_IN_A_ROW
    except (re.error, RecursionError, OverflowError):
        return False


def _depth(parsed: Any) -> int:
    """Unbounded repeats on one way through the pattern; a repeat inside a repeat counts as too many."""
    total = 0
    for operator, argument in parsed:
        name = str(operator)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            _, most, inner = argument
            within = _depth(inner)
            if most > _UNBOUNDED:
                total += 1 if within == 0 else _MOST_IN_A_ROW + 1
            else:
                total += within * max(most, 1)
        elif name == "BRANCH":
            total += max((_depth(branch) for branch in argument[1]), default=0)
        elif name in ("SUBPATTERN", "ATOMIC_GROUP"):
            total += _depth(argument[-1] if name == "SUBPATTERN" else argument)
        elif name in ("ASSERT", "ASSERT_NOT"):
            total += _depth(argument[1])
    return total
