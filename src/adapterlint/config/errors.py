"""What can be wrong with a configuration."""

from __future__ import annotations

from collections.abc import Iterable

from adapterlint.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot be used; the text names file, line, key and cause."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` with the known word that is most like this one, or nothing."""
    from difflib import get_close_matches  # only where something is wrong

    lower = {item.lower(): item for item in known}
    close = get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]}?" if close else ""
