"""Lines of keys in TOML documents, beside what tomllib says their values are."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterlint.config.positions import offset_of, positions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT = '''
# a comment with [brackets] and "quotes"
plain = 1
"quoted key" = "a # no comment"
'single' = 'C:\\path'
dotted.key . deep = 1979-05-27T07:32:00Z
multi = """
fake = 1
[not.a.table] \\"""
"""
literal = \'\'\'
fake = 2
\'\'\'
list = [
    "one",  # a comment, with ]
    [2, { three = 3 }],
]
inline = { a = 1, "b c" = [1, 2], d.e = true }
empty = []
[table]
x = inf
[table.sub]
y = -0.5e-3
[[array]]
z = 1
[[array]]
z = 2
[array.sub]
w = 1
[[array.deep]]
v = 1
[ "odd" . 'name' ]
u = 1
'''
LINES = {
    ("plain",): 3,
    ("quoted key",): 4,
    ("single",): 5,
    ("dotted",): 6,
    ("dotted", "key"): 6,
    ("dotted", "key", "deep"): 6,
    ("multi",): 7,
    ("literal",): 11,
    ("list",): 14,
    ("list", 0): 15,
    ("list", 1): 16,
    ("list", 1, 0): 16,
    ("list", 1, 1): 16,
    ("list", 1, 1, "three"): 16,
    ("inline",): 18,
    ("inline", "a"): 18,
    ("inline", "b c"): 18,
    ("inline", "b c", 0): 18,
    ("inline", "b c", 1): 18,
    ("inline", "d"): 18,
    ("inline", "d", "e"): 18,
    ("empty",): 19,
    ("table",): 20,
    ("table", "x"): 21,
    ("table", "sub"): 22,
    ("table", "sub", "y"): 23,
    ("array",): 24,
    ("array", 0): 24,
    ("array", 0, "z"): 25,
    ("array", 1): 26,
    ("array", 1, "z"): 27,
    ("array", 1, "sub"): 28,
    ("array", 1, "sub", "w"): 29,
    ("array", 1, "deep"): 30,
    ("array", 1, "deep", 0): 30,
    ("array", 1, "deep", 0, "v"): 31,
    ("odd", "name"): 32,
    ("odd", "name", "u"): 33,
}


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Of every value in a document."""
    found = {path} if path else set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found.union(*(paths(item, (*path, key)) for key, item in items))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_kind_of_key(newline: str) -> None:
    text = DOCUMENT.replace("\n", newline)
    found = {path: text.count("\n", 0, offset) + 1 for path, offset in positions(text).items()}
    assert found == LINES
    assert found.keys() | {("odd",)} == paths(tomllib.loads(text))


def test_by_pointer() -> None:
    text = 'a = 1\n"x/y~z" = [1, 2]\n'
    assert offset_of(text, "/x~1y~0z/1") == text.index("2]")
    assert offset_of(text, "/no") is None
    assert offset_of("a = [", "/a") is None


_KEYS = st.text(st.sampled_from("ab-_ .#\"'\\]=é"), min_size=1, max_size=4)
_SCALARS = st.one_of(
    st.integers(-99, 99), st.booleans(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.sampled_from("ab #\"'\\[]{},=é\n"), max_size=6),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=6
)


def written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[ # ]\n" + "".join(f"  {written(item)},\n" for item in value) + "]"
    return json.dumps(value)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(_KEYS, _VALUES, max_size=3),
    st.dictionaries(_KEYS, st.lists(st.dictionaries(_KEYS, _VALUES, max_size=2), min_size=1, max_size=3), max_size=2),
)
def test_every_value_has_its_place(top: dict[str, Any], arrays: dict[str, list[dict[str, Any]]]) -> None:
    arrays = {key: value for key, value in arrays.items() if key not in top}
    lines = [f"{json.dumps(key)} = {written(value)}" for key, value in top.items()]
    for name, tables in arrays.items():
        for table in tables:
            lines += [
                f"[[{json.dumps(name)}]] # [x]",
                *(f"{json.dumps(key)} = {written(v)}" for key, v in table.items()),
            ]
    text = "\n".join(lines)
    assert tomllib.loads(text) == {**top, **arrays}
    found = positions(text)
    assert found.keys() == paths({**top, **arrays})
    for path, offset in found.items():
        last = path[-1]
        if isinstance(last, str):  # its own key stands there, or the header of its table
            key = json.dumps(last)
            assert text.startswith((key, f"[[{key}"), offset), (path, text[offset : offset + 20])
