"""The JSON of a safetensors header, taken or refused exactly as the safetensors library does.

The library reads it with serde, which differs from :mod:`json` both ways: it refuses ``NaN``, lone surrogates, numbers
past the range of a double and nesting beyond 127, tells ``-0`` and ``1.0`` from integers, and takes a tensor written as
an array ``["F32", [1], [0, 4]]`` and a dtype written ``{"F32": null}``. Measured on safetensors 0.8.0 and read in its
``safetensors/src/tensor.rs`` (``HashMetadata``, ``TensorInfo``, ``Dtype``).

One liberty is left: a number within one rounding of the largest double, in a field that the library ignores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, NoReturn

from .headerjson import DTYPE_BITS, LIBRARY, METADATA_KEY, U64_MAX, Parsed, TensorEntry
from .problems import Problem

INVALID_JSON = LIBRARY + "invalid JSON in header: "

_FIELDS = ("dtype", "shape", "data_offsets")
_MAX_DEPTH = 127
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[^u])")
_PLAIN = re.compile(r"[ !#-\[\]-~]*")
_NOT_SPACE = re.compile(r"[^ \t\n\r]")


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that duplicates stay and arrays remain distinguishable."""


class _RefusalError(Exception):
    """The library refuses the text. ``said``: its words after ``INVALID_JSON``, or a part of them from the start.

    ``whole`` tells whether those words are complete but for the " at line .. column .." of the end of the object.
    """

    def __init__(self, kind: str, message: str, said: str = "", tensor: str | None = None, whole: bool = False) -> None:
        super().__init__(message)
        self.kind, self.message, self.said, self.tensor, self.whole = kind, message, said, tensor, whole


def parse_strict(text: str) -> Parsed:
    """Parse any header, duplicates and oddities included."""
    reader = _Reader()
    fatal: tuple[Problem, ...] = ()
    try:
        reader.read(text)
    except _RefusalError as refused:
        fatal = (reader.problem(refused),)
    return Parsed(reader.tensors, reader.metadata, (*reader.notes(), *fatal))


class _Reader:
    """Walks one header in serde's order, so that the first refusal is the library's too."""

    def __init__(self) -> None:
        self.tensors: dict[str, TensorEntry] = {}
        self.metadata: dict[str, str] = {}
        self.null_metadata = False
        self.repeated: dict[str, bool] = {}  # name -> whether all its entries were the same
        self.repeated_metadata: dict[str, None] = {}
        self.unknown: list[tuple[str, str]] = []
        self.unusual: dict[str, None] = {}
        self.end = ""  # " at line L column C" of the end of the document

    def read(self, text: str) -> None:
        document, end = _decode(text)
        self.end = _position(text, end)
        entries = []
        seen = False
        for key, value in document:
            if key != METADATA_KEY:
                entries.append((key, value))
                continue
            if seen:
                raise _RefusalError("bad-metadata", "`__metadata__` is there twice", "duplicate field `__metadata__`")
            seen = True
            self._read_metadata(value)
        for name, value in entries:
            self._read_entry(name, value)
        rest = _NOT_SPACE.search(text, end)
        if rest:
            self.end = _position(text, rest.start(), 1)
            message = f"there is more after the JSON object: {text[rest.start() : rest.start() + 20]!r}"
            raise _RefusalError("bad-json", message, "trailing characters", whole=True)

    def problem(self, refused: _RefusalError) -> Problem:
        detail = INVALID_JSON + refused.said + (self.end if refused.whole else "")
        return Problem(refused.kind, refused.message, tensor=refused.tensor, detail=detail)

    def _read_metadata(self, value: Any) -> None:
        if value is None:
            self.null_metadata = True
        elif not isinstance(value, _Object):
            said = _invalid_type(value, "a map")[0]
            raise _RefusalError("bad-metadata", f"`__metadata__` is {_kind_of(value)}, not an object", said)
        else:
            for key, item in value:
                if not isinstance(item, str):
                    message = f"the value of `{key}` in `__metadata__` is {_kind_of(item)}, not a string"
                    raise _RefusalError("bad-metadata", message, _invalid_type(item, "a string")[0])
                if key in self.metadata:
                    self.repeated_metadata[key] = None
                self.metadata[key] = item

    def _read_entry(self, name: str, value: Any) -> None:
        if isinstance(value, _Object):
            fields = self._read_fields(name, value)
        elif isinstance(value, list):
            fields = self._read_array(name, value)
        else:
            message = f"the entry of tensor `{name}` is {_kind_of(value)}, not an object"
            _refuse_type("bad-entry", message, name, value, "struct TensorInfo")
        entry = TensorEntry(name, fields["dtype"], fields["shape"], *fields["data_offsets"])
        if name in self.tensors:
            same = self.tensors[name] == entry
            self.repeated[name] = self.repeated.get(name, True) and same
        self.tensors[name] = entry

    def _read_fields(self, name: str, pairs: _Object) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in pairs:
            if key not in _FIELDS:
                self.unknown.append((name, key))
                continue
            if key in fields:
                message = f"tensor `{name}` has `{key}` twice"
                raise _RefusalError("bad-entry", message, f"duplicate field `{key}`", name, whole=True)
            fields[key] = self._read_field(name, key, value)
        for key in _FIELDS:
            if key not in fields:
                raise _RefusalError(
                    "bad-entry", f"tensor `{name}` has no `{key}`", f"missing field `{key}`", name, whole=True
                )
        return fields

    def _read_array(self, name: str, items: list[Any]) -> dict[str, Any]:
        fields = {key: self._read_field(name, key, value) for key, value in zip(_FIELDS, items, strict=False)}
        if len(items) != 3:
            expected = "struct TensorInfo with 3 elements" if len(items) < 3 else "3 elements in sequence"
            said = f"invalid length {len(items)}, expected {expected}"
            raise _RefusalError("bad-entry", f"the entry of tensor `{name}` is an array", said, name, whole=True)
        self.unusual[name] = None
        return fields

    def _read_field(self, name: str, key: str, value: Any) -> Any:
        if key == "dtype":
            return self._read_dtype(name, value)
        kind = "bad-shape" if key == "shape" else "bad-offsets"
        expected = "a sequence" if key == "shape" else "a tuple of size 2"
        if isinstance(value, _Object) or not isinstance(value, list):
            _refuse_type(kind, f"`{key}` of tensor `{name}` is {_kind_of(value)}, not an array", name, value, expected)
        numbers = tuple(_unsigned(kind, f"`{key}` of tensor `{name}`", name, item) for item in _head(key, value))
        if key == "data_offsets" and len(value) != 2:
            said = f"invalid length {len(value)}, expected {expected if len(value) < 2 else '2 elements in sequence'}"
            raise _RefusalError(
                kind, f"`{key}` of tensor `{name}` holds {len(value)} numbers, not 2", said, name, whole=True
            )
        return numbers

    def _read_dtype(self, name: str, value: Any) -> str:
        content: Any = None
        if isinstance(value, _Object):
            if len(value) != 1:
                said = "invalid value: map, expected map with a single key"
                raise _RefusalError("bad-dtype", f"the dtype of tensor `{name}` is an object", said, name, whole=True)
            (value, content), self.unusual[name] = value[0], None
        if not isinstance(value, str):
            message = f"the dtype of tensor `{name}` is {_kind_of(value)}, not a string"
            _refuse_type("bad-dtype", message, name, value, "string or map")
        if value not in DTYPE_BITS:
            known = ", ".join(f"`{dtype}`" for dtype in DTYPE_BITS)
            message = f"tensor `{name}` has dtype `{value}`, which the safetensors library does not know"
            raise _RefusalError(
                "bad-dtype", message, f"unknown variant `{value}`, expected one of {known}", name, whole=True
            )
        if content is not None:
            _refuse_type("bad-dtype", f"the dtype of tensor `{name}` is an object", name, content, "unit")
        return str(value)

    def notes(self) -> Iterator[Problem]:
        """What is odd and taken all the same."""
        if self.null_metadata:
            yield Problem("null-metadata", "`__metadata__` is null", fatal=False)
        if self.repeated_metadata:
            message = f"{_names(list(self.repeated_metadata))} repeated in `__metadata__`: the last value counts"
            yield Problem("duplicate-metadata", message, fatal=False, detail=next(iter(self.repeated_metadata)))
        if self.repeated:
            same = all(self.repeated.values())
            how = "with the same content" if same else "with different content"
            message = f"tensor {_names(list(self.repeated))} listed more than once, {how}: the last entry counts"
            first = next(iter(self.repeated))
            yield Problem(
                "duplicate-tensor", message, fatal=False, tensor=first, detail="same" if same else "different"
            )
        if self.unknown:
            name, field = self.unknown[0]
            tensors = list(dict.fromkeys(tensor for tensor, _ in self.unknown))
            message = f"unknown field `{field}` in tensor {_names(tensors)}: the library ignores it"
            yield Problem("unknown-field", message, fatal=False, tensor=name, detail=field)
        if self.unusual:
            names = list(self.unusual)
            message = (
                f"tensor {_names(names)} written as an array or with an object as dtype, which other readers refuse"
            )
            yield Problem("unusual-entry", message, fatal=False, tensor=names[0])


def _head(key: str, value: list[Any]) -> Sequence[Any]:
    """The items that serde looks at before it complains about their number."""
    return value if key == "shape" else value[:2]


def _unsigned(kind: str, what: str, tensor: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse_type(kind, f"{what} holds {_kind_of(value)}, not an integer below 2**64", tensor, value, "usize")
    if value < 0:
        said = f"invalid value: integer `{value}`, expected usize"
        raise _RefusalError(kind, f"{what} holds the negative number {value}", said, tensor, whole=True)
    return value


def _refuse_type(kind: str, message: str, tensor: str, value: Any, expected: str) -> NoReturn:
    said, whole = _invalid_type(value, expected)
    raise _RefusalError(kind, message, said, tensor, whole)


def _invalid_type(value: Any, expected: str) -> tuple[str, bool]:
    """The library's words for a value of the wrong type, and whether they are complete.

    How Rust prints floats and escapes strings is not imitated: there the words end early.
    """
    if isinstance(value, float) or (isinstance(value, str) and not _PLAIN.fullmatch(value)):
        return f"invalid type: {'floating point' if isinstance(value, float) else 'string'} ", False
    if isinstance(value, bool):
        unexpected = f"boolean `{str(value).lower()}`"
    elif isinstance(value, int):
        unexpected = f"integer `{value}`"
    elif isinstance(value, str):
        unexpected = f'string "{value}"'
    elif value is None:
        unexpected = "null"
    else:
        unexpected = "map" if isinstance(value, _Object) else "sequence"
    return f"invalid type: {unexpected}, expected {expected}", True


def _kind_of(value: Any) -> str:
    if isinstance(value, _Object):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return "a string"
    return json.dumps(value)


def _names(names: list[str]) -> str:
    """The first three, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{shown}{more}"


def _position(text: str, index: int, more: int = 0) -> str:
    """serde's wording of a place, ``more`` bytes after a character: lines from 1, columns in bytes."""
    line_start = text.rfind("\n", 0, index) + 1
    column = len(text[line_start:index].encode()) + more
    return f" at line {text.count(chr(10), 0, index) + 1} column {column}"


def _decode(text: str) -> tuple[_Object, int]:
    """The top-level object and where it ends."""
    first = _NOT_SPACE.search(text)
    if not first:
        said = "EOF while parsing a value" + _position(text, len(text))
        raise _RefusalError("bad-json", "the header is empty", said)
    start = first.start()
    if text[start] == "[":
        said = "invalid type: sequence, expected struct HashMetadata" + _position(text, start)
        raise _RefusalError("bad-json", "the header is an array, not an object", said)
    if text[start] not in '{"-0123456789tfn':
        said = "expected value" + _position(text, start, 1)
        raise _RefusalError("bad-json", f"the header starts with {text[start]!r}, not with an object", said)
    try:
        document, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _RefusalError("bad-json", f"the header is not valid JSON: {error.msg} (character {error.pos})") from None
    except RecursionError:
        raise _RefusalError("bad-json", "the header is nested too deeply") from None
    _check_surrogates(text, end)
    _check_depth(document)
    if not isinstance(document, _Object):
        said, whole = _invalid_type(document, "struct HashMetadata")
        if text[start] in "-0123456789":
            said = ""  # json stops where serde goes on: at the point of "1."
        elif whole:
            said += _position(text, end)
        raise _RefusalError("bad-json", f"the header is {_kind_of(document)}, not an object", said)
    return document, end


def _integer(literal: str) -> int | float:
    """An integer as serde has it: a float if it is ``-0`` or fits neither u64 nor i64."""
    value = int(literal) if len(literal) <= 20 else None
    if value is None or not -(2**63) <= value <= U64_MAX or literal == "-0":
        return _float(literal)
    return value


def _float(literal: str) -> float:
    value = float(literal)
    if value in (inf, -inf):
        raise _RefusalError("bad-json", f"the header holds a number out of range: {literal[:30]}")
    return value


def _constant(literal: str) -> NoReturn:
    raise _RefusalError("bad-json", f"the header holds {literal}, which is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _check_surrogates(text: str, end: int) -> None:
    """Refuse an escaped surrogate without its other half: json takes it, serde does not."""
    expected_at = -1  # where the low half of the pair must start
    for escape in _ESCAPE.finditer(text, 0, end):
        unit = int(escape[1], 16) if escape[1] else 0
        if expected_at >= 0 and (escape.start() != expected_at or not 0xDC00 <= unit <= 0xDFFF):
            break
        if expected_at < 0 and 0xDC00 <= unit <= 0xDFFF:
            expected_at = 0
            break
        expected_at = escape.end() if expected_at < 0 and 0xD800 <= unit <= 0xDBFF else -1
    if expected_at >= 0:
        raise _RefusalError("bad-json", "the header holds half of an escaped surrogate pair")


def _check_depth(document: Any) -> None:
    """Refuse nesting beyond serde's limit, which it meets before it looks at what the tensors say."""
    level = [document]
    depth = 0
    while level:
        containers = [item for item in level if isinstance(item, list)]
        depth += bool(containers)
        if depth > _MAX_DEPTH:
            raise _RefusalError("bad-json", f"the header is nested more than {_MAX_DEPTH} levels deep")
        level = [
            child[1] if isinstance(container, _Object) else child for container in containers for child in container
        ]
