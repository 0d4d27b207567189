"""Where findings are, as services want it: relative paths, URIs, fingerprints."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from adapterlint.findings import CONFIG_FILE, Location
from adapterlint.report import Reported, path_of


def relative(path: str) -> str:
    """The path from the workspace's root, or from the working directory, where it lies below one of them."""
    absolute = os.path.abspath(path)
    for root in (os.environ.get("GITHUB_WORKSPACE"), os.getcwd()):
        if root and os.path.commonpath([os.path.abspath(root), absolute]) == os.path.abspath(root):
            return os.path.relpath(absolute, root)
    return path


def file_of(location: Location) -> str:
    """The relative path of the file to show: a directory stands for the config in it, services showing files only."""
    return relative(path_of(location if location.file else location._replace(file=CONFIG_FILE)))


def uri(path: str) -> str:
    """A relative path as a relative URI reference, an absolute one as a file URI; the bytes of the name, quoted."""
    from urllib.parse import quote

    text = quote(os.fsencode(path.replace(os.sep, "/")), safe="/-._~!$&'()*+,;=@")
    return f"file://{text}" if os.path.isabs(path) else text


def fingerprints(items: Sequence[Reported]) -> list[str]:
    """A stable name for each finding, as services need it to tell old ones from new ones.

    It is made of rule, file and key or tensor, and of no line numbers, counts or values. Findings that share all of
    these are numbered in their order: ``0123456789abcdef:1``.
    """
    from hashlib import sha256

    seen: Counter[str] = Counter()
    found = []
    for item in items:
        finding, place = item.finding, item.finding.location
        parts = (
            finding.rule,
            file_of(place),
            place.pointer or "",
            place.tensor or "",
            *map(relative, finding.adapters),
        )
        text = "\0".join(parts).encode("utf-8", "surrogatepass")
        name = sha256(text).hexdigest()[:16]
        seen[name] += 1
        found.append(f"{name}:{seen[name]}")
    return found
