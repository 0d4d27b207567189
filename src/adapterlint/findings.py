"""The vocabulary that every other module speaks: findings, where they are, what they claim, and how to mend them."""

from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal, NamedTuple, TypeAlias

from adapterlint.releases import BESIDE, covers, parts_of

CONFIG_FILE = "adapter_config.json"
SAFETENSORS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
OPERATIONS = ("merge", "mixed_batch", "delete", "hotswap", "weighted", "save", "native")
"""What is done with adapters beyond loading them."""
PREFIX = "AL"
"""What the codes of the own rules begin with; no plugin may use it."""
INTERNAL_ERROR = "AL999"
"""Code of the finding that stands for a rule that crashed; its severity is an error, whatever is requested."""
Damage: TypeAlias = Literal["model", "files", "config", "tensors", "base", "peft_model", "active"]
"""Where lies what goes wrong at loading; :class:`adapterlint.rules.base.Rule` says what each word means."""
DOC_URL = "https://adapterlint.readthedocs.io/rules/"


class _Ranked(str, Enum):
    """Words that have an order, worst last."""

    @property
    def rank(self) -> int:
        """0 for the mildest, and one more for every worse one."""
        return _ORDER[self.value]


_ORDER = {"loads": 0, "unknown": 1, "wrong": 2, "raises": 3, "note": 0, "warning": 1, "error": 2}


class Outcome(_Ranked):
    """What happens when a target loads an adapter or a set. Ordered by ``rank``, worst last."""

    LOADS = "loads"
    UNKNOWN = "unknown"
    WRONG = "wrong"
    RAISES = "raises"


class Severity(_Ranked):
    """How much a finding matters for the requested targets. Ordered by ``rank``, worst last."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Safety(str, Enum):
    """How far a fix can be trusted (safe: the effective weights stay bit for bit what they were meant to be)."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    DISPLAY = "display"


class Effect(NamedTuple):
    """A claim: targets in this range do this with the adapter or set.

    Attributes:
        outcome: what happens.
        targets: the range, such as ``"peft>=0.6,<0.14"``, or ``"peft<0.21,transformers>=5.18"`` where the release of
            transformers decides.
        exception: the exact text that the target raises, for ``raises``.
        operation: ``load``, or one of merge, mixed_batch, delete, hotswap, weighted, save, native.
        stage: when it shows: ``load``, ``switch``, ``after_load`` or ``after_switch``.
        inert: for ``wrong``: the base answers alone.
        adapter: for a set: the name of the adapter that fails first.
        scope: ``alone`` holds only when the adapter is loaded alone as ``default``; ``set`` only under another name.
        missing: for ``unknown``: what would settle it (``base``, ``weights``, ``config``, ``transformers``).
    """

    outcome: Outcome
    targets: str
    exception: str | None = None
    operation: str = "load"
    stage: str | None = None
    inert: bool = False
    adapter: str | None = None
    scope: Literal["any", "alone", "set"] = "any"
    missing: tuple[str, ...] = ()


def holding(effects: Iterable[Effect], name: str, version: str, transformers: str, named: bool) -> list[Effect]:
    """The effects that hold for a release.

    Args:
        effects: of one finding.
        name: ``peft``.
        version: its release.
        transformers: the release of transformers beside it.
        named: whether the target names that. If not, it is that of PEFT's time, and what depends on it is left out
            where the finding says that it cannot be told from that.
    """
    held = [
        effect
        for effect in effects
        if covers(effect.targets, name, version, transformers) and not (named and BESIDE in effect.missing)
    ]
    if not named and any(BESIDE in effect.missing for effect in held):
        return [effect for effect in held if not parts_of(effect.targets)[1]]
    return held


def raises(targets: str, exception: str, stage: str = "load", **more: Any) -> Effect:
    """An effect: these targets raise ``exception``."""
    return Effect(Outcome.RAISES, targets, exception, stage=stage, **more)


def wrong(targets: str = "peft", stage: str = "after_load", **more: Any) -> Effect:
    """An effect: these targets load it without an exception and answer wrongly."""
    return Effect(Outcome.WRONG, targets, stage=stage, **more)


def inert(targets: str = "peft", stage: str = "after_load", **more: Any) -> Effect:
    """An effect: these targets load it without an exception and answer with the base model alone."""
    return Effect(Outcome.WRONG, targets, stage=stage, inert=True, **more)


def unknown(targets: str = "peft", **more: Any) -> Effect:
    """An effect: what these targets do cannot be told."""
    return Effect(Outcome.UNKNOWN, targets, **more)


class Location(NamedTuple):
    """A place in an adapter directory, symbolically: rows and columns are worked out for the report only.

    Attributes:
        path: the adapter directory, as given; empty for the working directory.
        file: the file in it; empty for the directory itself.
        pointer: JSON pointer of a config value (RFC 6901), ``""`` for the whole document.
        on_key: mark the key of that pointer instead of its value.
        tensor: tensor name in a weights file.
        offset: code-point offset in a text (for syntax errors, which have no pointer).
        label: what this place has to do with the finding; for related places.
    """

    path: str
    file: str = ""
    pointer: str | None = None
    on_key: bool = False
    tensor: str | None = None
    offset: int | None = None
    label: str | None = None


def pointer_to(*parts: str | int) -> str:
    """JSON pointer (RFC 6901) of nested keys."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


class SetConfig(NamedTuple):
    """Set the value at a JSON pointer of adapter_config.json; a missing last key is added to its object."""

    pointer: str
    value: Any
    edit: str = "set-config"


class RemoveConfig(NamedTuple):
    """Remove the key at a JSON pointer of adapter_config.json; ``occurrence`` counts duplicates from 0, None = all."""

    pointer: str
    occurrence: int | None = None
    edit: str = "remove-config"


class StripBom(NamedTuple):
    """Remove the byte order mark at the start of adapter_config.json."""

    edit: str = "strip-bom"


class CutText(NamedTuple):
    """Remove what is too much in an adapter_config.json that is not JSON: a comma before a bracket, a comment.

    Attributes:
        begin: offset of the first character, in code points, a byte order mark not counted.
        end: offset behind the last one.
    """

    begin: int
    end: int
    edit: str = "cut-text"


class RecodeText(NamedTuple):
    """Write adapter_config.json as UTF-8; every character stays.

    Attributes:
        encoding: the encoding that it has, such as ``utf-16``.
    """

    encoding: str
    edit: str = "recode-text"


class RenameTensor(NamedTuple):
    """Give a stored tensor another name; its bytes stay."""

    old: str
    new: str
    edit: str = "rename-tensor"


class DropTensor(NamedTuple):
    """Remove a stored tensor."""

    name: str
    edit: str = "drop-tensor"


class CopyTensor(NamedTuple):
    """Add a tensor with the bytes of one in the base checkpoint, dtype kept.

    Attributes:
        name: name in the adapter file.
        base_name: name in the base checkpoint.
    """

    name: str
    base_name: str
    edit: str = "copy-tensor"


class ZeroTensor(NamedTuple):
    """Add a tensor of zeros."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    edit: str = "zero-tensor"


class Term(NamedTuple):
    """A tensor as it follows from others: an operation and its arguments, terms among them.

    The operations, and how their rows are worked out, are those of :mod:`adapterlint.fixing.terms`.
    """

    operation: str
    arguments: tuple[Any, ...]


class MakeTensor(NamedTuple):
    """Add a tensor that is computed, block by block, when it is written, and rounded once: to its dtype.

    Attributes:
        name: name in the adapter file; a tensor that has it must be dropped, and can still be a part of the term.
        dtype: safetensors dtype, one of the floating-point ones.
        shape: dimensions, those of the term.
        term: its values, from stored tensors (by the names in the file) and the base's.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    term: Term
    edit: str = "make-tensor"


class RenameFile(NamedTuple):
    """Rename a file within the adapter directory."""

    old: str
    new: str
    edit: str = "rename-file"


class ConvertWeights(NamedTuple):
    """Write adapter_model.safetensors from the tensors of other files of the directory, which are then removed.

    Attributes:
        files: the files, torch or safetensors ones, each with other tensors; plain names, or the only one in a folder
            of the directory, ``folder/name``.
        under: key of the dictionary that holds the tensors, in a torch file that has none at its top level.
        salvage: pass over the objects in a torch file that ``weights_only`` loading refuses.
        remove: further files that go, such as the index of the shards.
    """

    files: tuple[str, ...]
    under: str | None = None
    salvage: bool = False
    remove: tuple[str, ...] = ()
    edit: str = "convert-weights"


class RemoveFile(NamedTuple):
    """Remove a weights file that holds the very tensors of another one, which stays.

    Attributes:
        name: the file that goes.
        twin: the file that stays.
    """

    name: str
    twin: str
    edit: str = "remove-file"


class RewriteHeader(NamedTuple):
    """Write the safetensors header anew, unchanged in meaning (drops duplicate names and unknown fields)."""

    edit: str = "rewrite-header"


# The ``edit`` fields keep edits of different kinds unequal, named tuples being tuples; JSON output shows them, too.
ConfigEdit: TypeAlias = SetConfig | RemoveConfig | StripBom | CutText | RecodeText
TensorEdit: TypeAlias = RenameTensor | DropTensor | CopyTensor | ZeroTensor | MakeTensor | RewriteHeader
WeightsEdit: TypeAlias = TensorEdit | ConvertWeights
Edit: TypeAlias = ConfigEdit | WeightsEdit | RenameFile | RemoveFile


class Fix(NamedTuple):
    """How to end a finding.

    Attributes:
        title: imperative, such as "Strip the adapter name from 4 keys".
        safety: safe, unsafe or display (no edit can do it: the title says what to do by hand).
        edits: edits of the one adapter that the finding is about.
        form: for sets: the form that the plan resolves (``union``; ``unbiased``: no bias mode where no bias is stored).
    """

    title: str
    safety: Safety
    edits: tuple[Edit, ...] = ()
    form: str | None = None


class Finding(NamedTuple):
    """One thing that a rule has to say.

    Attributes:
        rule: code such as ``AL207``.
        name: the rule's kebab-case name.
        message: one sentence or two; names key, tensor, values.
        location: the primary place.
        related: other places that belong to it, each with a label.
        effects: what targets do because of it.
        fix: how to end it, if a fix is known.
        severity: how much it matters where no requested target is known to fail because of it.
        ceiling: the worst severity it may get; for what is likely on purpose.
        targeted: report it only when a requested target is affected.
        adapters: paths of the adapters of the set, for a set finding.
        quiet: on the requested targets it is only about operations that nobody asked about; set with the severity.
        damage, drops, spares, of_first: which operations beyond loading the effects on loading decide, as the rule has
            it (see :class:`adapterlint.rules.base.Rule`). No report shows them.
    """

    rule: str
    name: str
    message: str
    location: Location
    related: tuple[Location, ...] = ()
    effects: tuple[Effect, ...] = ()
    fix: Fix | None = None
    severity: Severity = Severity.WARNING
    ceiling: Severity = Severity.ERROR
    targeted: bool = False
    adapters: tuple[str, ...] = ()
    quiet: bool = False
    damage: Damage = "model"
    drops: bool | None = None
    spares: tuple[str, ...] = ()
    of_first: bool = False

    @property
    def url(self) -> str:
        """The rule's documentation page; empty for a rule of a plugin."""
        return f"{DOC_URL}{self.name}/" if self.rule.startswith(PREFIX) else ""
