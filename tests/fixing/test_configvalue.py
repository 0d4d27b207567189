"""What a config must say after its edits, against the editor of texts and against plain dictionaries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterlint.findings import RemoveConfig, SetConfig, StripBom
from adapterlint.fixing.configvalue import ConfigEdit, Members, describe, expected, parse
from adapterlint.reading.jsonedit import EditError, apply_edits

keys = st.sampled_from(["r", "a/b", "~", "", "0", "x"])
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4))
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=6)
finite = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4), st.just(0.5), st.just([{}, 1e300]))
tokens = st.sampled_from(["r", "a~1b", "~0", "", "0", "1", "-", "x", "00"])
pointers = st.lists(tokens, min_size=1, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts))
edits = st.one_of(
    st.builds(SetConfig, pointers, values),
    st.builds(RemoveConfig, pointers, st.sampled_from([None, None, 0, 1])),
    st.just(StripBom()),
)


def repeated(value: Any, twice: frozenset[str]) -> str:
    """JSON in which some keys of the outer object stand twice, with other values first."""
    members = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
    return "{" + ", ".join([f"{json.dumps(key)}: 1" for key in sorted(twice)] + members) + "}"


@settings(max_examples=400, deadline=None)
@given(
    value=st.dictionaries(keys, values, max_size=4),
    twice=st.frozensets(keys, max_size=2),
    bom=st.booleans(),
    changes=st.lists(edits, min_size=1, max_size=3),
)
def test_it_agrees_with_the_editor_of_texts(value: Any, twice: frozenset[str], bom: bool, changes: list[Any]) -> None:
    data = (b"\xef\xbb\xbf" if bom else b"") + repeated(value, twice).encode()
    try:
        after = apply_edits(data, changes)
    except EditError:
        with pytest.raises(ValueError):
            expected(parse(data), changes)
        return
    assert parse(after) == expected(parse(data), changes)


def plain(value: Any) -> Any:
    """Back to dictionaries and numbers."""
    if isinstance(value, Members):
        return {key: plain(item) for key, item in value.pairs}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return (
        json.loads(value.text.replace("nan", "NaN").replace("inf", "Infinity")) if isinstance(value, tuple) else value
    )


@settings(max_examples=300, deadline=None)
@given(value=st.dictionaries(keys, values, max_size=4), key=keys, new=finite)
def test_it_agrees_with_dictionaries(value: dict[str, Any], key: str, new: Any) -> None:
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    found = expected(parse(json.dumps(value).encode()), [SetConfig(pointer, new)])
    assert json.dumps(plain(found)) == json.dumps({**value, key: new})
    if key in value:
        found = expected(parse(json.dumps(value).encode()), [RemoveConfig(pointer)])
        assert json.dumps(plain(found)) == json.dumps({k: v for k, v in value.items() if k != key})


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1.0"), ("1", "true"), ("0", "false"), ("[]", "{}"), ('"1"', "1"), ("0.0", "-0.0"), ("NaN", "null"),
     ('{"a":1,"b":2}', '{"b":2,"a":1}'), ('{"a":1,"a":1}', '{"a":1}'), ('{"a":1,"a":2}', '{"a":2}')],
)  # fmt: skip
def test_values_that_differ(one: str, other: str) -> None:
    assert parse(one.encode()) != parse(other.encode())


@pytest.mark.parametrize(("one", "other"), [("1e-5", "0.00001"), ("NaN", " NaN "), ('"\\u00e9"', '"\u00e9"')])
def test_values_that_are_the_same(one: str, other: str) -> None:
    assert parse(one.encode()) == parse(other.encode())


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\udcff", '{"a": 01}'])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (SetConfig("/r", None), "set /r to null"),
        (SetConfig("", {}), "written anew, with 0 keys"),
        (RemoveConfig("/r"), "remove /r"),
        (RemoveConfig("/r", 1), "remove /r (occurrence 2)"),
        (StripBom(), "strip the byte order mark"),
    ],
)
def test_edits_in_words(edit: ConfigEdit, text: str) -> None:
    assert describe(edit) == text
