"""The one table of settings: the reader, the schema, ``adapterlint config`` and the documentation follow from it."""

from __future__ import annotations

from typing import Any, Literal

from adapterlint.findings import OPERATIONS

Kind = Literal["text", "texts", "codes", "path", "choice", "choices", "sets", "path-ignores", "ignores"]

FAIL_ON = ("error", "warning", "note", "never")
PAYLOAD = ("quick", "none", "full")
GROUPINGS = ("auto", "one", "none")


class Key:
    """A setting. (A plain class: every check imports this table.)

    Args:
        name: as it is written in a file.
        kind: what its value is.
        default: its value where nothing is said.
        about: one sentence.
        options: command line options that set it.
        choices: the values that it may have, for a choice.
        adds: values of extended files are kept, this one's come after them.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        default: Any,
        about: str,
        options: str = "",
        choices: tuple[str, ...] = (),
        adds: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.about = about
        self.options = options
        self.choices = choices
        self.adds = adds


EXTEND = "extend"

KEYS = (
    Key(EXTEND, "path", None, "Another configuration file, whose settings hold where this one has none."),
    Key("select", "codes", (), "Report only these rules: codes, beginnings of codes, names; ALL.", "--select"),
    Key("extend-select", "codes", (), "Report these rules as well.", "--extend-select", adds=True),
    Key("ignore", "codes", (), "Do not report these rules.", "--ignore"),
    Key("extend-ignore", "codes", (), "Do not report these rules either.", adds=True),
    Key("per-path-ignores", "path-ignores", (), "Rules that are not reported below a path: glob -> rules.", adds=True),
    Key("ignores", "ignores", (), "Single findings that are meant to be so, each with a reason.", adds=True),
    Key("baseline", "path", None, "A file of known findings; only others are reported.", "--baseline"),
    Key("targets", "texts", (), "Releases to answer for, such as 'peft>=0.13,<0.18'.", "--target"),
    Key("base", "path", None, "The base model's directory.", "--base"),
    Key("sets", "sets", "auto", "Adapters that are loaded together.", "--set, --no-sets", GROUPINGS),
    Key("operations", "choices", (), "Also report what breaks in these.", "--operation", (*OPERATIONS, "all")),
    Key("payload", "choice", "quick", "How much tensor data is read.", "--no-payload, --full-payload", PAYLOAD),
    Key("fail-on", "choice", "error", "The severity from which on check exits 1.", "--fail-on", FAIL_ON),
    Key("plugins", "texts", (), "Packages whose rules are run as well, by the names of their entry points.", adds=True),
)

BY_NAME = {key.name: key for key in KEYS}


class Field:
    """A field of an entry of ``ignores``."""

    def __init__(self, name: str, about: str, kind: Kind | Literal["date"] = "text") -> None:
        self.name = name
        self.about = about
        self.kind = kind


IGNORE_FIELDS = (
    Field("reason", "Why this is meant to be so. Required."),
    Field("rule", "The rule, or a list of rules; any rule where it is left out.", "codes"),
    Field("path", "Glob over adapter directories, from this file's directory, or a list.", "texts"),
    Field("pointer", "JSON pointer of the value in adapter_config.json; * is any run of characters."),
    Field("tensor", "Name of the tensor; * is any run of characters."),
    Field("until", "The last day on which it holds, YYYY-MM-DD.", "date"),
)
