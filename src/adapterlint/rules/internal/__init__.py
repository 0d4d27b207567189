"""Rules about internal."""
