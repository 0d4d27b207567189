"""What can be wrong with a configuration."""

from __future__ import annotations

from adapterlint.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot be used; the text names file, line, key and cause."""
