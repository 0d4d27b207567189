"""Readers: files to plain data and problem records; nothing here raises on bad content."""
