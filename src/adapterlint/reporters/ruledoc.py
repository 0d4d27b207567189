"""The documentation of a rule, taken apart and written for machines that show it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Headings of a rule's docstring with their texts."""
    for part in inspect.cleandoc(text).split("## ")[1:]:
        heading, _, body = part.partition("\n")
        yield heading.strip(), body.strip()


def first_sentence(text: str) -> str:
    """The first sentence of the first section, on one line and without marks: what the rule does."""
    body = next((body for _, body in sections(text)), "")
    plain = " ".join(body.split()).replace("`", "")
    return re.split(r"(?<=[.:]) (?=[A-Z])", plain, maxsplit=1)[0]


def as_markdown(text: str) -> str:
    """The whole page as Markdown."""
    return "\n\n".join(f"## {heading}\n\n{body}" for heading, body in sections(text))


def as_text(text: str) -> str:
    """The whole page as plain text."""
    return "\n\n".join(f"{heading}: {body.replace('`', '')}" for heading, body in sections(text))
