"""Normal forms of a set: one file each."""
