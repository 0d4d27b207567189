"""PEFT's config classes, release by release, from PEFT's own sources to the files under ``schemas/peft``.

``build`` makes the files and needs libcst; ``browse`` and ``tables`` look at them and need nothing.
"""
