"""What a user can get wrong, and what was probably meant: the command line turns it into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(ValueError):
    """Something that a user can get wrong; the text is one line that names it and the likely cause."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` with the known word that is most like this one, or nothing."""
    from difflib import get_close_matches  # only where something is wrong

    lower = {item.lower(): item for item in known}
    close = get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]}?" if close else ""


def no_rule(word: str, rules: Iterable[tuple[str, str]]) -> str:
    """What is wrong with a word that means none of the rules, given as (code, name), to stand behind the word."""
    hint = nearest(word, [known for rule in rules for known in rule])
    return f"names no rule{hint or '; `adapterlint rule` lists them'}"
