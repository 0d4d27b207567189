"""AL113."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterlint.findings import Effect, Finding, Severity, inert, raises, wrong
from adapterlint.model.adapter import Adapter
from adapterlint.model.subject import Subject
from adapterlint.releases import version_key
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example

_UPDATED = (
    "ValueError: OFT has been updated since PEFT 0.14.0. Your trained adapter weights are incompatible with the latest "
    "version of OFT. Please retrain your adapter weights with newer PEFT versions. Alternatively, downgrade PEFT to "
    "version 0.13.0 to use the old adapter weights."
)
_OLD_CHECKPOINT = (
    "ValueError: Trying to load old OFT checkpoint, which is no longer supported. "
    "Please install PEFT <= v0.15.2 to load it or train a new OFT adapter."
)
_CAYLEY = "0.18.0"  # the release that changed the Cayley-Neumann series, and that began to write peft_version


_EPS, _TINY = 6e-5, 1e-3  # OFTConfig's default, and a turn whose square is below any rounding


class OftFormatChange(Rule):
    """## What it does
    Tells which generation of PEFT an OFT adapter is of: up to 0.13 (no `oft_block_size`), 0.14 and 0.15 (tensors
    `oft_r`), 0.16 and 0.17 (`oft_R`), 0.18 and newer (the same, with another Cayley-Neumann series).

    ## Why is this bad?
    No generation reads the files of another: PEFT raises, leaves all tensors out without a word, or computes slightly
    other weights.

    ## Example
    `{"peft_type": "OFT", "r": 8}` for a target of PEFT 0.14.

    ## Fix
    None: use a release of the generation that wrote the file, or train again.

    ## References
    - PEFT `tuners/oft/config.py`, `check_kwargs`; measured with adapters of 0.8.2 to 0.21.2 on 0.4.0 to 0.21.2.
    """

    code = "AL113"
    name = "oft-format-change"
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("another type", {"peft_type": "BOFT", "boft_block_size": 4}),
            Example("nothing stored yet", {"peft_type": "OFT", "oft_block_size": 32, "r": 0}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        new = {"peft_type": "OFT", "r": 0, "oft_block_size": 4}
        return [
            Example("of 0.13", {"peft_type": "OFT", "r": 4, "target_modules": ["q_proj"]}, _tensors("oft_r")),
            Example("of 0.15", {"peft_type": "OFT", "r": 4, "oft_block_size": 0}, _tensors("oft_r")),
            Example("of 0.17", {**new, "use_cayley_neumann": True}, _tensors("oft_R.weight")),
            Example("of 0.18", {**new, "use_cayley_neumann": True, "peft_version": "0.18.1"}, _tensors("oft_R.weight")),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if adapter.peft_type != "OFT" or adapter.config is None:
            return
        if "oft_block_size" not in adapter.config:
            message = "an OFT adapter of PEFT 0.13 or older (no oft_block_size), which newer releases refuse"
            yield self.finding(message, subject.at_field("peft_type"), effects=(raises("peft>=0.14", _UPDATED),))
            return
        old, new = _stored(adapter, "oft_r"), _stored(adapter, "oft_R")
        if old:
            effects: tuple[Effect, ...] = (raises("peft>=0.16,<0.21", _OLD_CHECKPOINT), inert("peft>=0.21"))
            message = "an OFT adapter of PEFT 0.14 or 0.15 (tensors named oft_r), which newer releases do not read"
            yield self.finding(message, subject.at_tensor(old[0]), effects=effects)
        elif new:
            series = adapter.get("use_cayley_neumann", True) and not _barely_turns(adapter)
            late = _written_since_018(adapter)
            message = f"an OFT adapter of PEFT {'0.18 or newer' if late else '0.16 or 0.17'} (tensors oft_R)"
            other = (wrong("peft>=0.16,<0.18" if late else "peft>=0.18"),) if series else ()
            yield self.finding(message, subject.at_tensor(new[0]), effects=(inert("peft>=0.14,<0.16"), *other))


def _barely_turns(adapter: Adapter) -> bool:
    """Whether COFT keeps the rotation so small that the last terms of a series do not count."""
    limit = adapter.get("eps", _EPS)
    return adapter.get("coft") is True and isinstance(limit, (int, float)) and limit <= _TINY


def _written_since_018(adapter: Adapter) -> bool:
    version = adapter.get("peft_version")
    return isinstance(version, str) and version_key(version) >= version_key(_CAYLEY)


def _stored(adapter: Adapter, part: str) -> list[str]:
    return [name for name in adapter.tensors if part in name.split(".")]


def _tensors(suffix: str) -> dict[str, Any]:
    return {f"base_model.model.model.layers.0.self_attn.q_proj.{suffix}": ("F32", (4, 6))}
