"""AL101."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from adapterlint.findings import (
    CONFIG_FILE,
    CutText,
    Effect,
    Finding,
    Fix,
    Location,
    RecodeText,
    Safety,
    SetConfig,
    Severity,
    StripBom,
    raises,
    unknown,
)
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

if TYPE_CHECKING:
    from adapterlint.reading.problems import Problem

_KINDS = frozenset({"bom", "bad-json", "not-utf8", "empty", "bad-number", "too-deep"})
_TITLES = {"bom": "take the byte order mark away", "not-utf8": "write the file as UTF-8"}
_NO_SUBSCRIPT = {type(None): "NoneType", bool: "bool", int: "int", float: "float"}


class BrokenConfig(Rule):
    """## What it does
    Reports an `adapter_config.json` that is no JSON object in UTF-8: a syntax error, a byte order mark, another
    encoding, nothing at all, or a list, a text or a number at the top.

    ## Why is this bad?
    PEFT reads the file with Python's `json` and then asks it for `peft_type`. Every release raises.

    ## Example
    `{"r": 8, "lora_alpha": 16,}`: JSON has no trailing commas.

    ## Fix
    Safe, where one text can be meant only: a byte order mark, commas before a closing bracket and comments are taken
    away, UTF-16 becomes UTF-8, an object that stands alone in a list is taken out of it. None for the rest: what is cut
    off or mistyped only the author of the file knows.

    ## References
    - PEFT `config.py`, `from_json_file`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL101"
    name = "broken-config"
    needs = ("files",)
    severity = Severity.ERROR
    damage = "config"

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("an object", lora_config(), llama_tensors()),
            Example("NaN, which Python reads", '{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "x": NaN}'),
            Example("no config at all", tensors=llama_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("byte order mark", b'\xef\xbb\xbf{"peft_type": "LORA"}'),
            Example("trailing comma", '{"peft_type": "LORA", "r": 8,}'),
            Example("cut off", '{"peft_type": "LOR'),
            Example("comment", '// made by hand\n{"peft_type": "LORA"}'),
            Example("empty", ""),
            Example("UTF-16", '{"peft_type": "LORA"}'.encode("utf-16")),
            Example("a list", '["LORA"]'),
            Example("an object in a list", '[{"peft_type": "LORA"}]'),
            Example("null", "null"),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if not adapter.has_config:
            return
        problem = next((item for item in adapter.config_problems if item.fatal), None)
        if problem is None:
            if adapter.config is None:
                yield self._no_object(subject, adapter.config_value)
        elif problem.kind in _KINDS:
            yield self._unreadable(subject, problem)
        elif problem.kind == "unreadable":
            effects = (unknown(missing=("config",)),)
            yield self.finding(problem.message, subject.at_file(CONFIG_FILE), effects=effects, damage="files")

    def _unreadable(self, subject: Subject, problem: Problem) -> Finding:
        fix = _mended([item for item in subject.adapter.config_problems if item.fatal])
        place = Location(subject.adapter.path, CONFIG_FILE, offset=problem.offset)
        return self.finding(problem.message, place, effects=(raises("peft", str(problem.detail)),), fix=fix)

    def _no_object(self, subject: Subject, value: Any) -> Finding:
        name = {list: "a list", str: "a text", type(None): "null", bool: "a truth value"}.get(type(value), "a number")
        message = f"the config holds {name} where PEFT needs an object"
        fix = None
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            fix = Fix("Take the object out of the list", Safety.SAFE, (SetConfig("", value[0]),))
        return self.finding(message, subject.at_config(), effects=tuple(_not_an_object(value)), fix=fix)


def _mended(problems: list[Problem]) -> Fix | None:
    """All that makes the file unreadable put right; None if something cannot be."""
    edits: list[StripBom | CutText | RecodeText] = []
    titles = []
    for problem in problems:
        if problem.kind != "bom" and not problem.mend:
            return None
        edits += [StripBom()] if problem.kind == "bom" else problem.mend
        titles.append(_TITLES.get(problem.kind, "take away the commas and comments that JSON has not"))
    title = " and ".join(titles)
    return Fix(title[:1].upper() + title[1:], Safety.SAFE, tuple(edits))


def _not_an_object(value: Any) -> Iterator[Effect]:
    if isinstance(value, list):
        yield raises("peft", "TypeError: list indices must be integers or slices, not str")
    elif isinstance(value, str):
        yield raises("peft", "TypeError: string indices must be integers, not 'str'")
    else:
        name = _NO_SUBSCRIPT[type(value)]
        yield raises("peft<0.12", f"TypeError: {name!r} object is not subscriptable")
        yield raises("peft>=0.12", f"TypeError: argument of type {name!r} is not iterable")
