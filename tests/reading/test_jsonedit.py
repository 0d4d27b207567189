"""Span edits against ``json.dumps`` of the edited value, and against the text outside the span."""

from __future__ import annotations

import codecs
import copy
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adapterlint.findings import RemoveConfig, SetConfig, StripBom, pointer_to
from adapterlint.reading.jsonedit import EditError, apply_edits, remove, rename_key, set_value
from adapterlint.reading.jsontext import Document, read_text
from adapterlint.reading.jsontree import Node

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"

keys = st.sampled_from(["r", "lora_alpha", "target_modules", "q/k~", "", "\U0001f9f5", 'a\\"b', "x\ny"])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6), st.sampled_from(["{", "],", "\u2028", "\r\n", "\x00"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(keys, values, min_size=1, max_size=6)


def document_of(text: str) -> Document:
    document = read_text(text.encode())
    assert document.readable, document.problems
    return document


def pointer_of(*path: Any) -> str:
    return pointer_to(*path)


@dataclass(frozen=True)
class Layout:
    """How ``json.dumps`` writes a document, and what a file adds to it."""

    indent: int | str | None = 2
    escape: bool = True
    dense: bool = False
    newline: str = "\n"
    ending: str = ""

    def dump(self, value: Any) -> str:
        colon = ":" if self.dense else ": "
        comma = "," if self.dense or self.indent is not None else ", "
        text = json.dumps(value, indent=self.indent, ensure_ascii=self.escape, separators=(comma, colon))
        return (text + self.ending).replace("\n", self.newline)


layouts = st.builds(
    Layout,
    indent=st.sampled_from([None, 0, 2, 4, "\t"]),
    escape=st.booleans(),
    dense=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    ending=st.sampled_from(["", "\n", "\n\n"]),
)


def shown(config: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """The config with an entry at its start by which every trait of the layout can be told."""
    return {"é" if not layout.escape else "e": [{"a": 0, "b": 1}, 2]} | config


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything below the value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in pairs for found in ((*path, key), *places(inner, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


# --- the edited text is the one that json.dumps would have written


@settings(max_examples=300, deadline=None)
@given(configs, values, layouts, st.data())
def test_set_writes_what_dumps_writes(config: dict[str, Any], new: Any, layout: Layout, data: st.DataObject) -> None:
    config = shown(config, layout)
    path = data.draw(st.sampled_from([found for found in places(config) if found[0] in list(config)[1:]]))
    expected = copy.deepcopy(config)
    at(expected, path[:-1])[path[-1]] = new
    edited = set_value(document_of(layout.dump(config)), pointer_of(*path), new)
    assert edited == layout.dump(expected)


@settings(max_examples=300, deadline=None)
@given(configs, values, layouts, st.data())
def test_adding_writes_what_dumps_writes(config: dict[str, Any], new: Any, layout: Layout, data: st.DataObject) -> None:
    config = shown(config, layout)
    inner = [(), *(path for path in places(config) if isinstance(at(config, path), dict | list))]
    path = data.draw(st.sampled_from(inner))
    expected = copy.deepcopy(config)
    parent = at(expected, path)
    if isinstance(parent, list):
        token: Any = data.draw(st.sampled_from(["-", str(len(parent))]))
        parent.append(new)
    else:
        token = data.draw(keys | st.text(max_size=4))
        assume(token not in parent)
        parent[token] = new
    edited = set_value(document_of(layout.dump(config)), pointer_of(*path, token), new)
    assert edited == layout.dump(expected)


@settings(max_examples=300, deadline=None)
@given(configs, layouts, st.data())
def test_remove_leaves_what_dumps_writes(config: dict[str, Any], layout: Layout, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(config)))
    expected = copy.deepcopy(config)
    del at(expected, path[:-1])[path[-1]]
    assert remove(document_of(layout.dump(config)), pointer_of(*path)) == layout.dump(expected)


@settings(max_examples=300, deadline=None)
@given(configs, st.text(max_size=5), layouts, st.data())
def test_rename_writes_what_dumps_writes(
    config: dict[str, Any], new_key: str, layout: Layout, data: st.DataObject
) -> None:
    config = shown(config, layout)
    paths = [path for path in places(config) if isinstance(path[-1], str) and path[0] in list(config)[1:]]
    path = data.draw(st.sampled_from(paths))
    expected = copy.deepcopy(config)
    parent = at(expected, path[:-1])
    assume(new_key not in parent)
    renamed = {new_key if key == path[-1] else key: value for key, value in parent.items()}
    parent.clear()
    parent.update(renamed)
    assert rename_key(document_of(layout.dump(config)), pointer_of(*path), new_key) == layout.dump(expected)


# --- in a text of any layout nothing else moves

blanks = st.sampled_from(["", "", "", " ", "\n", "\r\n  ", "\r", "\t", "\n    "])


@st.composite
def free_texts(draw: st.DrawFn, duplicates: bool = False) -> str:
    """Objects with any white space between their tokens."""

    def padded(text: str) -> str:
        return draw(blanks) + text + draw(blanks)

    def written(value: Any) -> str:
        if isinstance(value, dict):
            pairs = list(value.items())
            if duplicates:
                pairs += [(draw(st.sampled_from(list(value))), draw(scalars)) for _ in range(3 if value else 0)]
            inner = ",".join(f"{padded(json.dumps(k))}:{padded(written(v))}" for k, v in pairs)
            return "{" + inner + draw(blanks) * (not inner) + "}"
        if isinstance(value, list):
            return "[" + ",".join(padded(written(item)) for item in value) + "]"
        return json.dumps(value, ensure_ascii=draw(st.booleans()))

    return padded(written(draw(configs)))


def pieces(node: Node, text: str) -> list[str]:
    """The texts of the children of a node: every key and value as it stands there."""
    return [text[m.key_start : m.node.end] for m in node.members] + [text[i.start : i.end] for i in node.items]


@settings(max_examples=300, deadline=None)
@given(free_texts(), values, st.data())
def test_set_changes_its_span_only(text: str, new: Any, data: st.DataObject) -> None:
    document = document_of(text)
    pointer, node = data.draw(st.sampled_from(list(document.walk())))
    edited = set_value(document, pointer, new)
    head, tail = text[: node.start], text[node.end :]
    assert edited.startswith(head) and edited.endswith(tail)
    assert json.loads(edited[len(head) : len(edited) - len(tail)]) == new


@settings(max_examples=300, deadline=None)
@given(free_texts(), values, st.data())
def test_adding_inserts_only(text: str, new: Any, data: st.DataObject) -> None:
    document = document_of(text)
    objects = [(p, n) for p, n in document.walk() if n.value_kind == "object" and not n.named("new key")]
    pointer, node = data.draw(st.sampled_from(objects))
    edited = set_value(document, pointer + "/new key", new)
    after = document_of(edited)
    grown = after.find(pointer)
    assert grown is not None and pieces(grown, edited)[:-1] == pieces(node, text)
    assert grown.members[-1].key == "new key" and after.find(pointer + "/new key") is grown.members[-1].node
    assert json.loads(edited[grown.members[-1].node.start : grown.members[-1].node.end]) == new
    cut = node.members[-1].node.end if node.members else node.start + 1
    tail = text[cut:] if node.members else text[node.end - 1 :]
    assert edited.startswith(text[:cut]) and edited.endswith(tail)


@settings(max_examples=300, deadline=None)
@given(free_texts(), st.data())
def test_remove_cuts_one_span_only(text: str, data: st.DataObject) -> None:
    document = document_of(text)
    pointer = data.draw(st.sampled_from([pointer for pointer, _ in document.walk() if pointer]))
    parent_pointer = pointer.rpartition("/")[0]
    parent = document.find(parent_pointer)
    assert parent is not None
    node = document.find(pointer)
    edited = remove(document, pointer)
    shrunk = document_of(edited).find(parent_pointer)
    assert shrunk is not None
    expected = pieces(parent, text)
    index = next(i for i, inner in enumerate([m.node for m in parent.members] + list(parent.items)) if inner is node)
    del expected[index]
    assert pieces(shrunk, edited) == expected
    cut = len(text) - len(edited)
    assert any(text[:i] + text[i + cut :] == edited for i in range(len(edited) + 1))
    if not expected:
        assert edited[shrunk.start : shrunk.end] in ("{}", "[]")


@settings(max_examples=300, deadline=None)
@given(free_texts(duplicates=True), st.data())
def test_remove_by_occurrence(text: str, data: st.DataObject) -> None:
    def pairs(of: str) -> list[Any]:
        return json.loads(of, object_pairs_hook=lambda found: found)  # type: ignore[no-any-return]

    document = document_of(text)
    before = pairs(text)
    key = data.draw(st.sampled_from([name for name, _ in before]))
    where = [index for index, (name, _) in enumerate(before) if name == key]
    occurrence = data.draw(st.none() | st.integers(0, len(where) - 1))
    edited = remove(document, pointer_of(key), occurrence)
    gone = set(where) if occurrence is None else {where[occurrence]}
    assert pairs(edited) == [pair for index, pair in enumerate(before) if index not in gone]
    with pytest.raises(EditError, match="nothing to remove"):
        remove(document, pointer_of(key), len(where))
    changed = pairs(set_value(document, pointer_of(key), "new"))
    assert changed == [(name, "new") if index == where[-1] else (name, old) for index, (name, old) in enumerate(before)]


# --- several edits of a file


@settings(max_examples=300, deadline=None)
@given(configs, layouts, st.booleans(), st.lists(st.tuples(keys, st.none() | values), max_size=6))
def test_edits_follow_one_another(
    config: dict[str, Any], layout: Layout, bom: bool, steps: list[tuple[str, Any]]
) -> None:
    config = shown(config, layout)
    data = codecs.BOM_UTF8 * bom + layout.dump(config).encode()
    edits: list[SetConfig | RemoveConfig | StripBom] = []
    for key, value in steps:
        if value is None and key in config:
            edits.append(RemoveConfig(pointer_of(key)))
            del config[key]
        else:
            edits.append(SetConfig(pointer_of(key), value))
            config[key] = value
    assert apply_edits(data, edits) == codecs.BOM_UTF8 * bom + layout.dump(config).encode()
    assert apply_edits(data, [*edits, StripBom()]) == layout.dump(config).encode()
    assert apply_edits(data, []) == data


def test_strip_bom() -> None:
    mark = codecs.BOM_UTF8
    assert apply_edits(mark + b'{"a": 1}\r\n', [StripBom()]) == b'{"a": 1}\r\n'
    assert apply_edits(mark * 2 + b"not json", [StripBom()]) == b"not json"
    assert apply_edits(b"{}", [StripBom()]) == b"{}"
    assert apply_edits(mark + b'{"a": 1}', [SetConfig("/a", 2)]) == mark + b'{"a": 2}'


def test_occurrences_count_what_is_still_there() -> None:
    edits = [RemoveConfig("/r", 0), RemoveConfig("/r", 0)]
    assert apply_edits(b'{"r": 1, "b": 0, "r": 2, "r": 3}', edits) == b'{"b": 0, "r": 3}'


def test_real_files_change_in_one_key_only() -> None:
    found = sorted(CORPUS.rglob("adapter_config.json"))
    if not found:
        pytest.skip("the corpus is not here")
    count = 0
    for path in found:
        data = path.read_bytes()
        document = read_text(data)
        if not isinstance(document.value, dict):
            continue
        for key, value in document.value.items():
            pointer = pointer_of(key)
            smaller = apply_edits(data, [RemoveConfig(pointer)])
            assert json.loads(smaller) == {k: v for k, v in document.value.items() if k != key}
            assert len(smaller.splitlines()) == len(data.splitlines()) - len(json.dumps(value, indent=2).splitlines())
            assert apply_edits(data, [SetConfig(pointer, value)]) == data
            count += 1
        back = apply_edits(data, [SetConfig("/new", ["a", "b"]), RemoveConfig("/new")])
        assert back == data
    print(f"{count} keys of {len(found)} real configs")


# --- by hand

TABBED = (
    '{\r\n\t"r": 8, "lora_alpha": 16,\r\n\t"target_modules": ["q_proj", "v_proj"],\r\n\t"rank_pattern": {}\r\n}\r\n'
)


@pytest.mark.parametrize(
    ("text", "pointer", "value", "expected"),
    [
        ("{}", "/a", 1, '{"a": 1}'),
        ("{ }", "/a", [1, 2], '{"a": [1, 2]}'),
        ("{\n}\n", "/a", [1], '{\n  "a": [\n    1\n  ]\n}\n'),
        ('{"a":1}', "/b", {"c": [1, 2]}, '{"a":1,"b":{"c":[1,2]}}'),
        ('{ "a" : 1 }', "/b", 2, '{ "a" : 1, "b" : 2 }'),
        ('{\n   "a": 1\n}', "/b", [2], '{\n   "a": 1,\n   "b": [\n      2\n   ]\n}'),
        ('{\n"a": 1,\n"b": {}\n}', "/b/c", 2, '{\n"a": 1,\n"b": {\n"c": 2\n}\n}'),
        ('  {\n    "a": 1\n  }', "/b", [2], '  {\n    "a": 1,\n    "b": [\n      2\n    ]\n  }'),
        ('{"a": [1], "b": {\n}}', "/b/c", 2, '{"a": [1], "b": {\n  "c": 2\n}}'),
        ('{\n "a": [1],\n "b": [\n  1\n ]\n}', "/a", [2, 3], '{\n "a": [2, 3],\n "b": [\n  1\n ]\n}'),
        ("[]", "/-", "x", '["x"]'),
        ("[1]", "/1", 2, "[1, 2]"),
        ("1", "", {"a": 2}, '{"a": 2}'),
        ('{"a": "\u00e9"}', "/a", "\u00e9\ud800", '{"a": "\u00e9\\ud800"}'),
        ('{"a": 1}', "/a", "\u00e9\U0001f9f5", '{"a": "\\u00e9\\ud83e\\uddf5"}'),
        ('{"a": 1, "a": 2}', "/a", 3, '{"a": 1, "a": 3}'),
        ('{"a": {"b": 1}, "a": {"b": 2}}', "/a/c", 3, '{"a": {"b": 1}, "a": {"b": 2, "c": 3}}'),
        (TABBED, "/target_modules", ["o", "k"], TABBED.replace('"q_proj", "v_proj"', '"o", "k"')),
        (TABBED, "/rank_pattern/x", 4, TABBED.replace("{}", '{"x": 4}')),
        (TABBED, "/r", ["a", "b"], TABBED.replace("8", '["a", "b"]')),
        (TABBED, "/bias", "none", TABBED.replace("{}", '{},\r\n\t"bias": "none"')),
    ],
)  # fmt: skip
def test_set_by_hand(text: str, pointer: str, value: Any, expected: str) -> None:
    assert set_value(document_of(text), pointer, value) == expected


@pytest.mark.parametrize(
    ("text", "pointer", "expected"),
    [
        ('{"a": 1}', "/a", "{}"),
        ('{\n  "a": 1\n}\n', "/a", "{}\n"),
        ('{ "a": 1, "b": 2 }', "/a", '{ "b": 2 }'),
        ('{ "a": 1, "b": 2 }', "/b", '{ "a": 1 }'),
        ('{"a" : 1 , "b" : 2 , "c" : 3}', "/b", '{"a" : 1 , "c" : 3}'),
        ('{\n  "a": 1\n  , "b": 2\n  , "c": 3\n}', "/b", '{\n  "a": 1\n  , "c": 3\n}'),
        ('{"t": [1, 2, 3]}', "/t/0", '{"t": [2, 3]}'),
        ('{"t": [1]}', "/t/0", '{"t": []}'),
        ('{\n\n  "a": 1,\n\n  "b": 2,\n  "c": 3\n}', "/b", '{\n\n  "a": 1,\n  "c": 3\n}'),
        (TABBED, "/r", TABBED.replace('"r": 8, ', "")),
        (TABBED, "/lora_alpha", TABBED.replace(', "lora_alpha": 16', "")),
        (TABBED, "/target_modules", TABBED.replace('\r\n\t"target_modules": ["q_proj", "v_proj"],', "")),
        (TABBED, "/rank_pattern", TABBED.replace(',\r\n\t"rank_pattern": {}', "")),
        ('{\n "a": 1,\n "b": 2, "c": 3\n}', "/b", '{\n "a": 1,\n "c": 3\n}'),
        ('{"a": 1, "b": 2, "a": 3, "c": 4, "a": 5}', "/a", '{"b": 2, "c": 4}'),
        ('{"a": 1, "a": 3}', "/a", "{}"),
    ],
)
def test_remove_by_hand(text: str, pointer: str, expected: str) -> None:
    assert remove(document_of(text), pointer) == expected


def test_rename_keeps_the_value_as_it_stands() -> None:
    assert rename_key(document_of('{"a": 1e3, "b":\t2}'), "/a", "é") == '{"\\u00e9": 1e3, "b":\t2}'
    assert rename_key(document_of('{"a": 1}'), "/a", "a") == '{"a": 1}'
    assert rename_key(document_of('{"a": 1, "a": 2}'), "/a", "b") == '{"a": 1, "b": 2}'


@pytest.mark.parametrize(
    ("pointer", "cause"),
    [
        ("/x/y", "its parent does not exist"),
        ("/t/2/y", "its parent does not exist"),
        ("/s/y", "its parent is a string"),
        ("/n/y", "its parent is a null"),
        ("/t/3", "array with 2 items"),
        ("/t/x", "array with 2 items"),
        ("x", "not a JSON pointer"),
    ],
)
def test_set_refuses(pointer: str, cause: str) -> None:
    with pytest.raises(EditError, match=cause) as raised:
        set_value(document_of('{"s": "", "n": null, "t": [1, 2]}'), pointer, 0)
    assert raised.value.pointer == pointer and cause in raised.value.cause and isinstance(raised.value, ValueError)
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again) == str(raised.value) and again.pointer == pointer


@pytest.mark.parametrize("pointer", ["", "x", "/x", "/x/y", "/t/-", "/t/2", "/t/x", "/s/0", "/s"])
def test_remove_and_rename_refuse(pointer: str) -> None:
    document = document_of('{"s": "", "t": [1, 2], "u": 0}')
    if pointer != "/s":
        with pytest.raises(EditError):
            remove(document, pointer)
    with pytest.raises(EditError):
        remove(document, pointer, 1 if pointer != "/t/2" else None)
    with pytest.raises(EditError):
        rename_key(document, pointer, "u")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", object()])
def test_only_json_is_written(value: Any) -> None:
    with pytest.raises(EditError, match="not JSON"):
        set_value(document_of('{"a": 1}'), "/a", [value])


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe{\0}\0", b'{"a": ' + b"[" * 100_000, b"version https://git-lfs\n"]
)
def test_a_text_that_cannot_be_read_is_not_edited(data: bytes) -> None:
    edits: list[SetConfig | RemoveConfig] = [SetConfig("/a", 1), RemoveConfig("/a"), SetConfig("", {})]
    for edit in edits:
        with pytest.raises(EditError, match="cannot be read"):
            apply_edits(data, [edit])
    with pytest.raises(EditError, match="cannot be read"):
        rename_key(read_text(data), "/a", "b")
