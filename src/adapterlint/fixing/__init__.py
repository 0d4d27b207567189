"""Fixing: from findings to edits, from edits to files, and the proof that nothing else changed."""
