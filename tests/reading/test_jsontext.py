"""The reader against the standard library, which is what PEFT reads with."""

from __future__ import annotations

import codecs
import io
import json
import math
import random
import sys
import timeit
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterlint.findings import pointer_to
from adapterlint.reading import jsontext
from adapterlint.reading.jsontext import Document, read_text
from adapterlint.reading.jsontree import Node, array_index, parse_tree, split_pointer

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
NON_FATAL = {"duplicate-key", "non-finite-literal"}
CONFIG: dict[str, Any] = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "some-organisation/some-model-7b-instruct",
    "bias": "none",
    "corda_config": None,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 16,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": ["classifier", "score"],
    "peft_type": "LORA",
    "qalora_group_size": 16,
    "r": 8,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "task_type": "SEQ_CLS",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}
CONFIG_BYTES = json.dumps(CONFIG, indent=2).encode()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
blanks = st.sampled_from(["", "", "", " ", "\n", "\r\n", "\r", "\t", "\n    "])


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    """Valid texts in any layout, with duplicate keys, escapes and non-finite literals."""

    def value(depth: int) -> str:
        kind = draw(st.integers(0, 5 if depth < 4 else 2))
        if kind <= 2:
            scalar = draw(json_scalars)
            return json.dumps(scalar, ensure_ascii=draw(st.booleans()) or scalar == "\ud800")
        count = draw(st.integers(0, 3))
        if kind == 3:
            return "[" + ",".join(padded(value(depth + 1)) for _ in range(count)) + draw(blanks) + "]"
        pairs = (padded(json.dumps(draw(keys))) + ":" + padded(value(depth + 1)) for _ in range(count))
        return "{" + ",".join(pairs) + draw(blanks) + "}"

    def padded(text: str) -> str:
        return draw(blanks) + text + draw(blanks)

    return padded(value(0))


keys = st.sampled_from(["r", "r", "q/k", "~", "", "\U0001f9f5", 'a\\"b'])
json_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=6),
    st.sampled_from(["\ud800", "\x00", "\U0001f9f5\u2028", "NaN", "[{,:}]"]),
)  # fmt: skip


@st.composite
def broken_texts(draw: st.DrawFn) -> str:
    """Texts with a few characters cut out, put in or replaced."""
    text = draw(json_texts())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 3))
        noise = st.sampled_from(
            [*'{}[]:,"\\ \n\r\t0123456789.eE+-tfn\0/\u00e9\U0001f9f5\ufeff', "\\u12", "NaN", "//", "'"]
        )
        text = text[:at] + draw(st.just("") | noise) + text[at + cut :]
    return text


def peft_reads(data: bytes) -> Any:
    """``json.load`` on a text file of these bytes; the text of its exception is given as an :class:`Refusal`."""
    try:
        return json.load(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return Refusal(f"{type(error).__name__}: {error}")


class Refusal(str):
    """What the standard library raised."""


def exact(value: Any) -> str:
    """A text that is equal for equal values: NaN equals itself, 1 is not 1.0 or true."""
    return json.dumps(value)


def assert_agrees(data: bytes) -> Document:
    """The reader accepts, refuses, words and understands as ``json.load`` does."""
    expected = peft_reads(data)
    document = read_text(data)
    fatal = [problem for problem in document.problems if problem.fatal]
    if isinstance(expected, Refusal):
        assert fatal, f"json.load refuses: {expected}"
        assert fatal[0].detail == expected
        if fatal[0].kind != "bom":
            assert document.root is None and document.value is None and not document.readable
    else:
        assert not fatal and document.readable
        assert exact(document.value) == exact(expected)
        assert document.root is not None
    assert {p.kind for p in document.problems if not p.fatal} <= NON_FATAL
    return document


def all_nodes(node: Node) -> list[Node]:
    children = [*node.items, *(member.node for member in node.members)]
    return [node, *(found for child in children for found in all_nodes(child))]


def plain(node: Node) -> Any:
    if node.value_kind == "object":
        return {member.key: plain(member.node) for member in node.members}
    return [plain(item) for item in node.items] if node.value_kind == "array" else node.scalar


# --- agreement with the standard library


@settings(max_examples=1000, deadline=None)
@given(json_texts())
def test_accepts_and_understands_what_json_does(text: str) -> None:
    assert not isinstance(peft_reads(text.encode()), Refusal)
    assert_agrees(text.encode())


@settings(max_examples=2000, deadline=None)
@given(broken_texts())
def test_agrees_with_json_on_damaged_texts(text: str) -> None:
    assert_agrees(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=40) | st.sampled_from(["utf-16", "utf-16-le", "latin-1"]).map('{"a": "\xe9"}'.encode))
def test_agrees_with_json_on_any_bytes(data: bytes) -> None:
    assert_agrees(data)


@settings(max_examples=300, deadline=None)
@given(json_values, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_agrees_with_json_on_dumped_values(value: Any, indent: Any, escape: bool) -> None:
    assert_agrees(json.dumps(value, indent=indent, ensure_ascii=escape).encode())


def test_damaged_texts_are_both_refused_and_accepted() -> None:
    """The strategies above reach both sides, and most of what ``json`` has to say."""
    rng = random.Random(7)
    accepted, messages = 0, set()
    for _ in range(3000):
        text = json.dumps(CONFIG, indent=rng.choice([None, 1]))
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", ",", '"', "}", "\\", "1", "\n", "é"]) + text[at + rng.choice([0, 1]) :]
        document = assert_agrees(text.encode())
        accepted += document.readable
        messages |= {str(p.detail).split(":")[1] for p in document.problems if p.fatal}
    print(f"3000 mutated configs: {accepted} accepted, {3000 - accepted} refused with {len(messages)} messages")
    assert 500 < accepted < 2500 and len(messages) >= 7


def test_agrees_with_json_on_real_files(tmp_path: Path) -> None:
    found = sorted(CORPUS.rglob("adapter_config.json"))
    if not found:
        pytest.skip("the corpus is not here")
    for path in found:
        document = assert_agrees(path.read_bytes())
        if document.root is not None:
            assert exact(plain(document.root)) == exact(document.value)
    print(f"{len(found)} real configs agree")


@pytest.mark.parametrize("data", [b'{"a":\r\n1,\r\n}', b'{"a":\r1\r"b"}', codecs.BOM_UTF8 + b"{}", b'{"\xe9": 1}', b""])
def test_the_detail_is_what_a_real_file_raises(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_bytes(data)
    with pytest.raises(ValueError) as raised, path.open(encoding="utf-8") as file:
        json.load(file)
    assert read_text(data).problems[0].detail == f"{type(raised.value).__name__}: {raised.value}"


# --- kinds of problems


def kinds(data: bytes) -> list[tuple[str, bool, int | None]]:
    return [(problem.kind, problem.fatal, problem.offset) for problem in read_text(data).problems]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{}", []),
        (b"[1]", []),
        (b'"text"', []),
        (b"", [("empty", True, 0)]),
        (b" \r\n", [("empty", True, 3)]),
        (b'{"a": 1,}', [("bad-json", True, 8 if sys.version_info < (3, 13) else 7)]),
        (b'{"a":\r\n"b" "c"}', [("bad-json", True, 11)]),
        (b"\xef\xbb\xbf{}", [("bom", True, 0)]),
        (b"\xef\xbb\xbf{", [("bom", True, 0), ("bad-json", True, 1)]),
        (b"\xef\xbb\xbf", [("bom", True, 0), ("empty", True, 0)]),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", [("bom", True, 0), ("bad-json", True, 0)]),
        ('{"a": "é"}'.encode("latin-1"), [("not-utf8", True, 7)]),
        ('{"é": "'.encode() + b"\xff", [("not-utf8", True, 7)]),
        (b"\xef\xbb\xbf{\xff", [("not-utf8", True, 1)]),
        ("{}".encode("utf-16"), [("not-utf8", True, 0)]),
        ('{"a": 1}'.encode("utf-16-be"), [("not-utf8", True, 0)]),
        ('{"a": 1}'.encode("utf-16-le"), [("not-utf8", True, 1)]),
        (b"\0" * 8, [("bad-json", True, 0)]),
        (b'{"a": "\xed\xa0\x80"}', [("not-utf8", True, 7)]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", [("lfs-pointer", True, 0)]),
        (b'{"a": NaN}', [("non-finite-literal", False, 6)]),
        (b"-Infinity", [("non-finite-literal", False, 0)]),
        (b'{"a": 1, "a": 1}', [("duplicate-key", False, 9)]),
        (b'{"a": [' + b"1" * 4301 + b"]}", [("bad-number", True, 7)]),
        (b'{"' + b"1" * 5000 + b'": [-' + b"1" * 4301 + b"]}", [("bad-number", True, 5006)]),
    ],
)  # fmt: skip
def test_kinds_and_offsets(data: bytes, expected: list[tuple[str, bool, int | None]]) -> None:
    assert kinds(data) == expected


def test_reading_goes_on_after_a_byte_order_mark() -> None:
    document = read_text(codecs.BOM_UTF8 + b'{"r": NaN, "r": 8}')
    assert document.bom and document.readable and document.value == {"r": 8}
    assert [p.kind for p in document.problems] == ["bom", "duplicate-key"]
    assert document.text[0] == "{" and document.find("/r", 1).start == 16  # type: ignore[union-attr]
    assert document.problems[0].detail == peft_reads(codecs.BOM_UTF8 + b'{"r": NaN, "r": 8}')


def test_duplicates_tell_whether_they_differ() -> None:
    text = b'{"a": 1, "b": {"c": [1, {"x": 2}], "c": [1,{"x":2}], "d": 1, "d": 1.0, "e": NaN, "e": NaN}, "a": true}'
    found = {p.pointer: p.detail for p in read_text(text).problems if p.kind == "duplicate-key"}
    assert found == {
        "/a": "different values", "/b/c": "same values", "/b/d": "different values", "/b/e": "same values"
    }  # fmt: skip


def test_problems_inside_a_hidden_duplicate_are_left_out() -> None:
    document = read_text(b'{"a": {"x": NaN, "x": 2}, "a": {"y": Infinity}}')
    assert [(p.kind, p.pointer) for p in document.problems] == [("duplicate-key", "/a"), ("non-finite-literal", "/a/y")]


def test_escaped_and_plain_spelling_of_a_key_are_duplicates() -> None:
    document = read_text(b'{"r": 1, "\\u0072": 2}')
    assert document.value == {"r": 2}
    assert [(pointer, [m.key_start for m in members]) for pointer, members in document.duplicates()] == [("/r", [1, 9])]


def test_an_overflowing_float_is_json() -> None:
    document = read_text(b'{"lora_alpha": 1e999}')
    assert document.problems == () and math.isinf(document.value["lora_alpha"])


# --- spans and pointers


@settings(max_examples=1000, deadline=None)
@given(json_texts())
def test_every_span_holds_its_value(text: str) -> None:
    document = read_text(text.encode())
    assert document.root is not None
    for node in all_nodes(document.root):
        piece = text[node.start : node.end]
        assert piece == piece.strip() and exact(json.loads(piece)) == exact(plain(node))
        assert {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}.get(
            piece[0], "number"
        ) == node.value_kind
        for member in node.members:
            assert json.loads(text[member.key_start : member.key_end]) == member.key
            assert text[member.key_end : member.node.start].strip() == ":"


@settings(max_examples=500, deadline=None)
@given(json_texts())
def test_walk_names_every_value_that_counts(text: str) -> None:
    document = read_text(text.encode())

    def values(value: Any, pointer: str) -> dict[str, Any]:
        found = {pointer: value}
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            found |= values(inner, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")
        return found

    expected = values(document.value, "")
    walked = list(document.walk())
    assert {pointer: exact(plain(node)) for pointer, node in walked} == {p: exact(v) for p, v in expected.items()}
    assert len(walked) == len(expected) and [n.start for _, n in walked] == sorted(n.start for _, n in walked)
    for pointer, node in walked:
        assert document.find(pointer) is node
        member = document.find_member(pointer)
        assert member is None or (member.node is node and pointer.endswith(pointer_to(member.key)))


@settings(max_examples=500, deadline=None)
@given(json_texts())
def test_duplicates_are_those_of_the_pairs(text: str) -> None:
    class Pairs(list[tuple[str, Any]]):
        """An object with all its pairs."""

    def expected(value: Any, pointer: str) -> dict[str, int]:
        found: dict[str, int] = {}
        if isinstance(value, Pairs):
            for key, inner in dict(value).items():
                here = pointer + pointer_to(key)
                times = sum(name == key for name, _ in value)
                found |= ({here: times} if times > 1 else {}) | expected(inner, here)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                found |= expected(inner, f"{pointer}/{index}")
        return found

    document = read_text(text.encode())
    duplicates = document.duplicates()
    pairs = expected(json.loads(text, object_pairs_hook=Pairs), "")
    assert {pointer: len(members) for pointer, members in duplicates} == pairs
    assert {p.pointer for p in document.problems if p.kind == "duplicate-key"} == set(pairs)
    for pointer, members in duplicates:
        assert [document.find_member(pointer, i) for i in range(len(members))] == members
        assert document.find_member(pointer) is members[-1]
        assert document.find(pointer, len(members)) is None


def test_pointers_that_lead_nowhere() -> None:
    document = read_text(b'{"a": [1, {"b": 2}], "": {"~1": 3}, "0": 4}')
    assert [document.find(p) for p in ("/x", "/a/2", "/a/-", "/a/01", "/a/+1", "/a/1/b/c", "/a/b", "/0/0")] == [
        None
    ] * 8
    assert document.find("/a/\u0661") is None and document.find("/a/" + "9" * 5000) is None
    assert document.find_member("") is None and document.find_member("/a/0") is None
    assert document.find("/a", 1) is None and document.find("/a", -1) is None
    assert document.find("//~01").scalar == 3 and document.find("/0").scalar == 4  # type: ignore[union-attr]
    for malformed in ("a", "#/a", " "):
        with pytest.raises(ValueError, match="not a JSON pointer"):
            document.find(malformed)
    assert read_text(b"{").find("/a") is None and read_text(b"{").find_member("/a") is None
    assert read_text(b"{").duplicates() == [] and list(read_text(b"{").walk()) == []


@given(st.lists(st.text(max_size=6)))
def test_pointers_round_trip(parts: list[str]) -> None:
    assert split_pointer(pointer_to(*parts)) == parts


@given(st.integers(0, 10**14))
def test_array_indices(index: int) -> None:
    assert array_index(str(index)) == index and array_index(f"0{index}") is None and array_index(f"-{index}") is None


# --- lines and columns


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab\U0001f9f5\u00e9\u2028\x0b\x85 \n\r", max_size=40), st.data())
def test_positions_are_those_of_universal_newlines(text: str, data: st.DataObject) -> None:
    document = read_text(text.encode())
    lines = io.StringIO(text, newline=None).read().split("\n")
    assert [document.line_text(number) for number in range(1, len(lines) + 1)] == lines
    assert document.line_text(0) == document.line_text(len(lines) + 1) == ""
    offset = data.draw(st.integers(0, len(text)))
    line, column = document.position(offset)
    if text[offset - 1 : offset + 1] != "\r\n":
        before = io.StringIO(text[:offset], newline=None).read()
        assert (line, column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    else:
        assert document.position(offset - 1) == (line, column - 1)


def test_positions_by_hand() -> None:
    document = read_text('{"\U0001f9f5": 1,\r\n "é": 2,\r "z": 3,\n\n "y": 4}'.encode())
    places = {key: document.position(document.find_member("/" + key).key_start) for key in "\U0001f9f5ézy"}  # type: ignore[union-attr]
    assert places == {"\U0001f9f5": (1, 2), "é": (2, 2), "z": (3, 2), "y": (5, 2)}
    assert document.position(-5) == (1, 1) and document.position(10**9) == (5, 9)
    assert document.line_text(1) == '{"\U0001f9f5": 1,' and document.line_text(4) == ""
    assert document.newline == "\r\n" and read_text(b"{}").newline == "\n" and read_text(b"{}\r ").newline == "\r"


def test_positions_of_a_text_that_is_not_utf8() -> None:
    document = read_text(b'{\n "name": "caf\xe9",\n "r": 8}')
    assert document.position(document.problems[0].offset or 0) == (2, 14)
    assert document.line_text(2) == ' "name": "caf\ufffd",'


# --- hostile texts


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_nesting_is_a_problem_not_a_crash(opening: str, closed: bool) -> None:
    closing = "".join({"[": "]", "{": "}"}.get(char, "") for char in reversed(opening))
    data = (opening * 100_000 + "1" + closing * 100_000 * closed).encode()
    assert kinds(data) == [("too-deep", True, None)]
    # Which of the two kinds hits the limit hangs on how deep the caller stands.
    found = str(read_text(data).problems[0].detail)
    assert found.replace("object", "array") == peft_reads(data).replace("object", "array")


def test_nesting_is_read_to_the_depth_that_json_takes() -> None:
    """The tree has no depth of its own: newer Pythons take 10,000 levels."""
    low, high = 1, 100_000
    while low < high:
        middle = (low + high + 1) // 2
        taken = not isinstance(peft_reads(b"[" * middle + b"]" * middle), Refusal)
        low, high = (middle, high) if taken else (low, middle - 1)
    depth = low - 20
    document = read_text(b'{"x":1,"x":' + b"[" * depth + b"NaN" + b"]" * depth + b"}")
    assert [p.kind for p in document.problems] == ["duplicate-key", "non-finite-literal"]
    assert document.find("/x" + "/0" * depth).value_kind == "number"  # type: ignore[union-attr]
    node = parse_tree("[" * 100_000 + "]" * 100_000)
    assert node.end == 200_000
    print(f"json takes {low} levels here")


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": "' + b"x" * 10_000_000 + b'"}',
        b'{"a": "' + b"\\u0041" * 1_000_000 + b'"}',
        b'"' + b"\\" * 10_000_001,
        b'{"a": ' + b"1" * 1_000_000 + b"}",
        b"[" + b"1" * 4300 + b"]",
        b"1." + b"1" * 1_000_000 + b"e-5",
        b"[" + b"1," * 100_000 + b"1]",
        b"{" + b",".join(b'"k%d":%d' % (i % 10_000, i) for i in range(20_000)) + b"}",
        b'{"a": "\\ud800\\udc00\\udfff\\ud800"}',
        b'{"\\udfff": "\\u0000"}',
        b'{"a\0": 1}',
        b"{}\0",
        b"\0{}",
        b"\n" * 1_000_000 + b"{",
        b"\x1f\x8b\x08\0", b"\x80\x02}q\0.", b"PK\x03\x04", b"<!doctype html><html>", b"GGUF\x03\0\0\0",
    ],
    ids=range(19),
)  # fmt: skip
def test_hostile_texts(data: bytes) -> None:
    document = assert_agrees(data)
    for problem in document.problems[:100]:
        assert len(problem.message) < 200
        assert problem.offset is not None and document.position(problem.offset) >= (1, 1)


# --- cost


def test_a_healthy_config_is_read_without_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(text: str) -> Node:
        raise AssertionError("the tree was built")

    monkeypatch.setattr(jsontext, "parse_tree", never)
    document = read_text(CONFIG_BYTES)
    assert document.value == CONFIG and document.problems == ()
    with pytest.raises(AssertionError):
        document.find("/r")


def test_value_and_tree_are_made_once() -> None:
    document = read_text(CONFIG_BYTES)
    assert document.value is document.value and document.root is document.root


def test_reading_costs_little_more_than_json() -> None:
    text = CONFIG_BYTES.decode()
    works = (lambda: read_text(CONFIG_BYTES), lambda: json.loads(text), lambda: parse_tree(text))
    # The best of many short rounds, since other work disturbs any one of them.
    rounds = [[timeit.timeit(work, number=20) / 20 * 1e3 for work in works] for _ in range(60)]
    ours, theirs, tree = (min(column) for column in zip(*rounds, strict=True))
    print(
        f"{len(text)} B: read_text {ours:.4f} ms, json {theirs:.4f} ms, ratio {ours / theirs:.2f}; tree {tree:.3f} ms"
    )
    assert ours / theirs < 6
