"""Rules about payload."""
