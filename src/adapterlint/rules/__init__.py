"""Rules about adapters and sets: one file each."""
