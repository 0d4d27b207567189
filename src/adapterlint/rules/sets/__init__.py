"""Rules about sets."""
