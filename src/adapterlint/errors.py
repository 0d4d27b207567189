"""What a user can get wrong: the command line turns it into one line and exit code 2."""

from __future__ import annotations


class UserError(ValueError):
    """Something that a user can get wrong; the text is one line that names it and the likely cause."""
