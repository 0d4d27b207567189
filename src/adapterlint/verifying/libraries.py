"""The one door to torch, transformers and peft, so that nothing else of the tool needs them."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any


class MissingExtra(Exception):  # noqa: N818 (named for what a user can do about it)
    """A command needs libraries that are installed with an extra.

    Attributes:
        extra: name of the extra, such as ``verify``.
    """

    def __init__(self, extra: str) -> None:
        super().__init__(extra)
        self.extra = extra

    def __str__(self) -> str:
        return f"this needs further libraries: pip install 'adapterlint[{self.extra}]'"


class VerifyError(Exception):
    """The base cannot be loaded or run, or the installed libraries do not fit together: nothing can be verified."""


@dataclass(frozen=True, slots=True)
class Libraries:
    """The imported modules."""

    torch: Any
    transformers: Any
    peft: Any
    load_safetensors: Any

    def versions(self) -> dict[str, str]:
        """Release by package name."""
        return {name: str(getattr(self, name).__version__) for name in ("peft", "transformers", "torch")}


def load_libraries() -> Libraries:
    """Import what is needed.

    Raises:
        MissingExtra: one of them is not installed.
        VerifyError: they are installed, but cannot be imported together.
    """
    packages = ("torch", "transformers", "peft")
    if any(importlib.util.find_spec(name) is None for name in packages):
        raise MissingExtra("verify")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch, transformers, peft = map(importlib.import_module, packages)
            safetensors = importlib.import_module("safetensors.torch")
    except Exception as error:  # releases that do not fit together fail in many ways while they are imported
        raise VerifyError(f"the installed peft cannot be imported: {error}") from error
    return Libraries(torch, transformers, peft, safetensors.load_file)
