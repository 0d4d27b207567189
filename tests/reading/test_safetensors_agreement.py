"""The header reader against the safetensors library: generated and mutated files, and every case known to matter."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors

from adapterlint.reading import safetensors as reader
from adapterlint.reading.headerjson import parse_ordinary
from adapterlint.reading.headerserde import parse_strict
from adapterlint.reading.safetensors import DTYPE_BITS, Header, read_header

HEADERS = 8_000
SEED = 20260
DTYPES = list(DTYPE_BITS)

# --- writing JSON that json.dumps would not write ------------------------------------------------------------------


class Raw(str):
    """Text that goes into the JSON as it is."""


class Pairs(list[list[Any]]):
    """A JSON object as [key, value] pairs, so that keys may repeat."""


def render(value: Any, rng: random.Random, loose: bool) -> str:
    space = (lambda: rng.choice(("", "", " ", "\n", "\t", "\r\n  "))) if loose else (lambda: "")
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        inner = ",".join(
            f"{space()}{render(key, rng, loose)}{space()}:{space()}{render(item, rng, loose)}{space()}"
            for key, item in value
        )
        return "{" + (inner or space()) + "}"
    if isinstance(value, list):
        return "[" + (",".join(space() + render(item, rng, loose) + space() for item in value) or space()) + "]"
    if isinstance(value, str):
        return string(value, rng)
    return json.dumps(value)


def string(value: str, rng: random.Random) -> str:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if value and rng.random() < 0.1:
        at = rng.randrange(len(value))
        if not 0xD800 <= ord(value[at]) <= 0xDFFF and ord(value[at]) <= 0xFFFF:
            escape = f"\\u{ord(value[at]):04x}" if rng.random() < 0.5 else f"\\u{ord(value[at]):04X}"
            text = json.dumps(value[:at])[:-1] + escape + json.dumps(value[at + 1 :])[1:]
    return text


# --- valid headers -----------------------------------------------------------------------------------------------


def name(rng: random.Random) -> str:
    if rng.random() < 0.6:
        layer, kind = rng.randrange(3), rng.choice("AB")
        return f"base_model.model.layers.{layer}.q_proj.lora_{kind}.weight"
    alphabet = [
        "a",
        "b",
        "-0",
        ":",
        "{",
        '"',
        "\\",
        "\n",
        "\0",
        "\x7f",
        "é",
        "漢",
        "\U0001f600",
        "data_offsets",
        "\u2028",
        " ",
    ]
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(4)))


def shape_for(dtype: str, rng: random.Random) -> list[int]:
    while True:
        shape = [rng.choice((0, 1, 1, 2, 3, 4, 5, 8)) for _ in range(rng.choice((0, 1, 1, 2, 2, 2, 3)))]
        bits = DTYPE_BITS[dtype]
        for dim in shape:
            bits *= dim
        if bits % 8 == 0 and bits <= 8 * 256:
            return shape


def size(dtype: str, shape: list[int]) -> int:
    bits = DTYPE_BITS[dtype]
    for dim in shape:
        bits *= dim
    return bits // 8


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value, as it may stand in a field that the library ignores."""
    pick = rng.randrange(12 if depth < 3 else 9)
    if pick >= 10:
        return Pairs([name(rng), junk(rng, depth + 1)] for _ in range(rng.randrange(3)))
    if pick == 9:
        return [junk(rng, depth + 1) for _ in range(rng.randrange(3))]
    if pick == 8:
        levels = rng.randrange(1, 126)
        return Raw("[" * levels + "]" * levels)
    simple = [
        None,
        True,
        0,
        -1,
        1.5,
        "text",
        Raw("1e308"),
        Raw("-0"),
        Raw("1" + "0" * rng.choice((19, 300))),
        Raw("0e999999999999"),
    ]
    return rng.choice(simple)


class Draft:
    """One header in the making: its pairs, how it is written, and the data behind it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        names = list(dict.fromkeys(name(rng) for _ in range(rng.choice((0, 1, 2, 3, 4, 6)))))
        self.tensors: list[list[Any]] = []
        position = 0
        for each in names:
            dtype = rng.choice(DTYPES if rng.random() < 0.5 else ["F32", "BF16", "F16"])
            shape = shape_for(dtype, rng)
            end = position + size(dtype, shape)
            self.tensors.append([each, Pairs([["dtype", dtype], ["shape", shape], ["data_offsets", [position, end]]])])
            position = end
        self.pairs = Pairs(self.tensors)
        if rng.random() < 0.5:
            metadata = Pairs([name(rng), name(rng)] for _ in range(rng.randrange(3)))
            self.pairs.insert(rng.randrange(len(self.pairs) + 1), ["__metadata__", metadata])
        if rng.random() < 0.4:
            rng.shuffle(self.pairs)
        self.data = rng.randbytes(position)
        self.loose = rng.random() < 0.3
        self.head = rng.choice((" ", "\n", "\t\r\n")) if rng.random() < 0.05 else ""
        self.tail = rng.choice((" ", "\n ", "\t", "      ")) if rng.random() < 0.5 else ""
        self.length_off = 0

    def text(self) -> str:
        return self.head + render(self.pairs, self.rng, self.loose) + self.tail

    def entry(self) -> Pairs | None:
        """The fields of a random tensor."""
        entries = [value for _, value in self.tensors if isinstance(value, Pairs) and value]
        return self.rng.choice(entries) if entries else None

    def field(self, key: str) -> list[Any] | None:
        """The pair of one field of a random tensor."""
        entry = self.entry() or []
        return next((pair for pair in entry if pair[0] == key), None)


# --- what may stay acceptable --------------------------------------------------------------------------------------


def repeat_tensor(draft: Draft) -> None:
    if draft.tensors:
        key, value = draft.rng.choice(draft.tensors)
        draft.pairs.insert(draft.rng.randrange(len(draft.pairs) + 1), [key, value])


def repeat_with_other_content(draft: Draft) -> None:
    if draft.tensors:
        key, _ = draft.rng.choice(draft.tensors)
        fields = [["dtype", "U8"], ["shape", [draft.rng.randrange(9)]], ["data_offsets", [9, draft.rng.randrange(99)]]]
        fields = draft.rng.sample(fields, 3 if draft.rng.random() < 0.8 else 2)
        draft.pairs.insert(0 if draft.rng.random() < 0.7 else len(draft.pairs), [key, Pairs(fields)])


def add_field(draft: Draft) -> None:
    entry = draft.entry()
    if entry is not None:
        entry.insert(
            draft.rng.randrange(len(entry) + 1), [draft.rng.choice(("x", "", "Dtype", "__metadata__")), junk(draft.rng)]
        )


def shuffle_fields(draft: Draft) -> None:
    entry = draft.entry()
    if entry is not None:
        draft.rng.shuffle(entry)


def array_form(draft: Draft) -> None:
    if draft.tensors:
        pair = draft.rng.choice(draft.tensors)
        if isinstance(pair[1], Pairs):
            pair[1] = [value for _, value in pair[1]]


def dtype_object(draft: Draft) -> None:
    pair = draft.field("dtype")
    if pair:
        pair[1] = Pairs([[pair[1], draft.rng.choice((None, None, None, 0, Pairs()))]])


def null_metadata(draft: Draft) -> None:
    draft.pairs.insert(draft.rng.randrange(len(draft.pairs) + 1), ["__metadata__", None])


def repeat_metadata_key(draft: Draft) -> None:
    for key, value in draft.pairs:
        if key == "__metadata__" and isinstance(value, Pairs) and value:
            value.append([value[0][0], "again"])


def reorder(draft: Draft) -> None:
    draft.rng.shuffle(draft.pairs)


# --- what mostly breaks it -----------------------------------------------------------------------------------------


def any_number(rng: random.Random) -> Any:
    texts = [
        "-0",
        "1.0",
        "1e0",
        "4.0",
        "-1",
        "true",
        "null",
        '"1"',
        "[1]",
        "{}",
        str(2**64 - 1),
        str(2**64),
        str(2**63),
    ]
    texts += [
        "1e999",
        "-1e999",
        "9" * 400,
        "1" + "0" * 4400,
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "1.",
        ".5",
        "+1",
        "0x1",
    ]
    texts += ["1e", "--1", str(-(2**63)), str(-(2**63) - 1), "0", "1", "2", "4", str(2**32), str(2**61), "1E+2", "0.0"]
    return Raw(rng.choice(texts))


def move_offset(draft: Draft) -> None:
    pair = draft.field("data_offsets")
    if pair and isinstance(pair[1], list) and len(pair[1]) == 2:
        values = list(pair[1])
        at = draft.rng.randrange(2)
        if isinstance(values[at], int):
            values[at] = max(0, values[at] + draft.rng.choice((-8, -1, 1, 2, 4, 2**40)))
        pair[1] = values if draft.rng.random() < 0.8 else values[::-1]


def odd_offset(draft: Draft) -> None:
    pair = draft.field("data_offsets")
    if pair and isinstance(pair[1], list) and pair[1]:
        pair[1] = list(pair[1])
        pair[1][draft.rng.randrange(len(pair[1]))] = any_number(draft.rng)


def odd_offsets(draft: Draft) -> None:
    pair = draft.field("data_offsets")
    if pair:
        pair[1] = draft.rng.choice(([], [0], [0, 0, 0], None, Pairs(), "ab", Pairs([["a", 0], ["b", 4]]), [[0], 4], 4))


def odd_dim(draft: Draft) -> None:
    pair = draft.field("shape")
    if pair and isinstance(pair[1], list):
        shape = list(pair[1]) or [1]
        shape[draft.rng.randrange(len(shape))] = any_number(draft.rng)
        pair[1] = shape


def odd_shape(draft: Draft) -> None:
    pair = draft.field("shape")
    if pair:
        huge = [2**63, 2, 0], [0, 2**63, 2], [2**64 - 1], [2**32, 2**32], [2**61, 8], [2**60], [0, 2**64 - 1]
        pair[1] = draft.rng.choice((*huge, None, Pairs(), "", "1", 1, [[1]], [], [1], [0]))


def odd_dtype(draft: Draft) -> None:
    pair = draft.field("dtype")
    if pair:
        other = draft.rng.choice(DTYPES)
        odd = "F7", "f32", "", "F32 ", "F32\0", "é", None, 0, 1.5, True, [], ["F32"], Pairs(), Pairs([["F7", None]])
        pair[1] = other if draft.rng.random() < 0.5 else draft.rng.choice(odd)


def drop_field(draft: Draft) -> None:
    entry = draft.entry()
    if entry:
        entry.pop(draft.rng.randrange(len(entry)))


def repeat_field(draft: Draft) -> None:
    entry = draft.entry()
    if entry:
        entry.append(list(draft.rng.choice(entry)))


def odd_entry(draft: Draft) -> None:
    values = None, 1, "x", [], Pairs(), True, -1.5, "é\n", ["F32", [1]], ["F32", [1], [0, 4], 0], ["U8", [], [0, 1]]
    draft.pairs.insert(draft.rng.randrange(len(draft.pairs) + 1), [name(draft.rng), draft.rng.choice(values)])


def odd_metadata(draft: Draft) -> None:
    values = [
        1,
        [],
        "x",
        True,
        1.5,
        Pairs([["a", 1]]),
        Pairs([["a", None]]),
        Pairs([["a", ["b"]]]),
        Pairs([["a", Pairs()]]),
    ]
    draft.pairs.insert(
        draft.rng.randrange(len(draft.pairs) + 1), ["__metadata__", draft.rng.choice([*values, Pairs()])]
    )


def drop_tensor(draft: Draft) -> None:
    if draft.tensors:
        draft.pairs.remove(draft.tensors.pop(draft.rng.randrange(len(draft.tensors))))


def rename(draft: Draft) -> None:
    if len(draft.tensors) > 1:
        draft.tensors[0][0] = draft.rng.choice(
            (draft.tensors[1][0], "__metadata__", Raw('"\\ud800"'), Raw('"\\udc00\\ud83d"'))
        )


def surrogates(draft: Draft) -> None:
    pieces = ["\\ud83d", "\\ude00", "\\uD83D\\uDE00", "\\\\ud800", "a", "\\u0041", "\\n", "\\x", "\\ud83", "\t", "\\\\"]
    text = Raw('"' + "".join(draft.rng.choice(pieces) for _ in range(draft.rng.randrange(1, 4))) + '"')
    entry = draft.entry()
    if entry is not None:
        entry.append([text, 0] if draft.rng.random() < 0.5 else ["x", text])


def nest(draft: Draft) -> None:
    entry = draft.entry()
    if entry is not None:
        levels = draft.rng.choice((124, 125, 126, 127, 128, 5000))
        opening, closing = draft.rng.choice((("[", "]"), ('{"":', "}")))
        entry.append(["x", Raw(opening * levels + ("0" if opening != "[" else "") + closing * levels)])


def other_data(draft: Draft) -> None:
    keep = draft.rng.randrange(len(draft.data) + 1)
    draft.data = (
        draft.data[:keep] if draft.rng.random() < 0.5 else draft.data + draft.rng.randbytes(draft.rng.randrange(9))
    )


def other_length(draft: Draft) -> None:
    draft.length_off = draft.rng.choice((-9, -2, -1, 1, 2, 8, 300, 10**8, 10**9, 2**63))


def other_ends(draft: Draft) -> None:
    odd = "\0", "\ufeff", "x", "{}", "\x0b", "\u00a0", "\x1c", ",", "]", "}", "//", "\n\né", "1", '"', "-", "n"
    if draft.rng.random() < 0.5:
        draft.head = draft.rng.choice(odd) + draft.head
    else:
        draft.tail += draft.rng.choice(odd)


def other_document(draft: Draft) -> None:
    draft.pairs = Raw(
        draft.rng.choice(("[]", "[{", "null", "1", "1.5", '"x"', '"é"', "true", "", "nul", "-", "{", '{"a":1', " \n"))
    )


KEEPING: list[Callable[[Draft], None]] = [
    repeat_tensor, repeat_with_other_content, add_field, shuffle_fields, array_form, dtype_object, null_metadata,
    repeat_metadata_key, reorder,
]  # fmt: skip
BREAKING: list[Callable[[Draft], None]] = [
    move_offset, odd_offset, odd_offsets, odd_dim, odd_shape, odd_dtype, drop_field, repeat_field, odd_entry,
    odd_metadata, drop_tensor, rename, surrogates, nest, other_data, other_length, other_ends, other_document,
]  # fmt: skip


def damage_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Flip, drop, insert or cut bytes of the JSON."""
    buffer = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(buffer) + 1)
        pick = rng.randrange(6)
        if pick == 0 and at < len(buffer):
            buffer[at] ^= 1 << rng.randrange(8)
        elif pick == 1:
            del buffer[at : at + rng.choice((1, 1, 2, 5))]
        elif pick == 2:
            buffer[at:at] = rng.choice(
                (b",", b":", b"{", b"}", b"[", b"]", b'"', b"\\", b"0", b"-", b" ", b"\xff", b"\xe2\x82")
            )
        elif pick == 3:
            del buffer[at:]
        elif pick == 4 and at < len(buffer):
            buffer[at] = rng.randrange(256)
        else:
            other = rng.randrange(len(buffer) + 1)
            buffer[at:at] = buffer[other : other + rng.choice((1, 4, 20))]
    return bytes(buffer)


def files(rng: random.Random, count: int) -> Iterator[bytes]:
    """Small files: about half of them as some writer could have made them, half damaged."""
    for _ in range(count):
        draft = Draft(rng)
        while rng.random() < 0.3:
            rng.choice(KEEPING)(draft)
        broken = rng.random() < 0.5
        while broken and isinstance(draft.pairs, Pairs):
            rng.choice(BREAKING)(draft)
            broken = rng.random() < 0.2
        raw = draft.text().encode("utf-8")
        if rng.random() < 0.12:
            raw = damage_bytes(raw, rng)
        whole = struct.pack("<Q", max(0, len(raw) + draft.length_off)) + raw + draft.data
        yield whole if rng.random() < 0.97 else whole[: rng.randrange(len(whole) + 1)]


# --- comparing -----------------------------------------------------------------------------------------------------


def library(path: Path) -> tuple[dict[str, tuple[list[int], str]] | None, dict[str, str], str]:
    """What the library makes of a file: its tensors (None if it refuses), the metadata, the exception."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
            tensors = {key: (slice_.get_shape(), slice_.get_dtype()) for key, slice_ in slices.items()}
            return tensors, file.metadata() or {}, ""
    except safetensors.SafetensorError as error:
        return None, {}, str(error)


def disagreement(content: bytes, path: Path) -> tuple[str | None, Header]:
    """How reader and library differ on a file, or None."""
    path.unlink(missing_ok=True)  # some file systems flush a file to the disk that was cut to nothing and written anew
    path.write_bytes(content)
    header = read_header(path)
    tensors, metadata, said = library(path)
    if header.readable != (tensors is not None):
        return f"library: {said or 'accepted'}; reader: {header.fatal}", header
    if tensors is None:
        return disagreement_on_text(header, said), header
    ours = {entry.name: (list(entry.shape), entry.dtype) for entry in header.tensors.values()}
    if ours != tensors or header.metadata != metadata:
        return f"library: {tensors} {metadata}; reader: {ours} {header.metadata}", header
    for key, view in safetensors.deserialize(content):
        begin, end = (header.data_start + offset for offset in header.tensors[key][3:])
        if content[begin:end] != bytes(view["data"]):
            return f"other bytes for {key!r}", header
    return None, header


def disagreement_on_text(header: Header, said: str) -> str | None:
    ranges = [entry[3:] for entry in header.tensors.values()]
    if len(set(ranges)) < len(ranges):
        return None  # the library meets tensors of the same range in the random order of its hash map
    ours = header.exception or ""
    if not said.startswith(ours) or not ours:
        return f"library says {said!r}, reader {ours!r}"
    inexact = {"bad-json", "bad-metadata"}
    if (
        said != ours
        and header.fatal
        and header.fatal.kind not in inexact
        and not ours.endswith(("floating point ", "string "))
    ):
        return f"library says {said!r}, reader only {ours!r}"
    return None


def test_generated_headers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert safetensors.__version__ >= "0.8.0"
    path = tmp_path / "adapter_model.safetensors"
    accepted = 0
    kinds: dict[str, int] = {}
    differing = []
    for content in files(random.Random(SEED), HEADERS):
        difference, header = disagreement(content, path)
        accepted += header.readable
        for problem in header.problems:
            kinds[problem.kind] = kinds.get(problem.kind, 0) + 1
        if difference:
            differing.append((difference, content))
    rejected = HEADERS - accepted
    with capsys.disabled():
        print(
            f"\nsafetensors {safetensors.__version__}: {HEADERS} headers, {accepted} accepted by both, "
            f"{rejected} rejected by both, {len(differing)} disagreements"
        )
    assert not differing, differing[:3]
    assert HEADERS >= 5_000
    assert accepted >= HEADERS / 3
    foreign = {"unreadable", "lfs-pointer", "html", "zip", "pickle", "gguf", "text"}
    assert documented_kinds() - foreign <= set(kinds), "the generator misses a kind of problem"


def documented_kinds() -> set[str]:
    """First column of the tables in the reader's docstring."""
    rows = re.findall(r"^([a-z0-9]+(?:-[a-z0-9]+)*) {2,}\S", reader.__doc__ or "", re.MULTILINE)
    return set(rows) - {"fatal", "note"}


def test_both_ways_of_parsing_agree() -> None:
    """What the quick way takes, the thorough one takes too, with the same result and no notes."""
    taken = 0
    for content in files(random.Random(SEED + 1), 5_000):
        raw = content[8 : 8 + int.from_bytes(content[:8], "little")]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            continue
        quick = parse_ordinary(text)
        if quick is not None:
            taken += 1
            assert quick == parse_strict(text)
    assert taken > 300


def test_both_ways_agree_on_texts_with_small_faults() -> None:
    """One or two characters off the form that the library writes, at the places where it matters."""
    draw = random.Random(SEED + 2)
    plain = (
        '{"__metadata__":{"a":"b","c":":"},"x.y":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
        '"z},":{"dtype":"U8","shape":[],"data_offsets":[24,25]}}  '
    )
    assert parse_ordinary(plain.replace("z},", "z")) is not None
    taken = 0
    for _ in range(30_000):
        text = draw.choice((plain, plain.replace("z},", "z"), plain[:1] + plain[34:]))
        for _ in range(draw.randint(1, 2)):
            at = draw.randrange(len(text))
            text = (
                text[:at]
                + draw.choice(("", *'{}[],:"\\0123-+_.ex u\t\x00\u0663'))[:1]
                + text[at + draw.randint(0, 1) :]
            )
        quick = parse_ordinary(text)
        if quick is not None:
            taken += 1
            assert quick == parse_strict(text), text
    assert taken > 500
