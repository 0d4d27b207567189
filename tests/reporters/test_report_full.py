"""The full format: carets, windows, places, effects and closing lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from reports_util import columns, report_of

from adapterlint.findings import (
    CONFIG_FILE,
    Finding,
    Fix,
    Location,
    Safety,
    Severity,
    inert,
    raises,
    unknown,
    wrong,
)
from adapterlint.locate import Locator
from adapterlint.report import Report, SetReport, Skipped, Verdict
from adapterlint.reporters import full
from adapterlint.rules.examples import Example, llama_tensors, lora_config, write


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def report_with(*findings: Finding, **changes: Any) -> Report:
    """A report on a sound adapter with these findings put into it."""
    report = report_of({"x": Example("x", lora_config(), llama_tensors())})
    locator = Locator()
    return report._replace(findings=tuple(locator.report(finding) for finding in findings), **changes)


def finding_at(location: Location, **more: Any) -> Finding:
    return Finding("AL999", "some-name", "a message", location, **{"severity": Severity.ERROR, **more})


def underlined(text: str) -> list[str]:
    """What stands above the carets of every one-line excerpt, cut out by terminal columns."""
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines):
        bar = line.find("|")
        if bar < 0 or line[:bar].strip() or not line[bar + 1 :].strip().startswith("^"):
            continue
        marks = line[bar + 2 :]
        first = marks.index("^")
        last = first + len(re.match(r"\^+", marks[first:]).group())  # type: ignore[union-attr]
        found.append(by_columns(lines[number - 1][bar + 2 :], first, last))
    return found


def by_columns(text: str, first: int, last: int) -> str:
    """The characters of a text between two terminal columns."""
    column, chosen = 0, ""
    for char in text:
        size = columns(char)
        if first <= column < last:
            chosen += char
        column += size
    return chosen


CONFIGS = {
    "plain": '{\n  "peft_type": "LORA",\n  "r": 8\n}',
    "crlf": '{\r\n  "peft_type": "LORA",\r\n  "r": 8\r\n}\r\n',
    "cr": '{\r  "peft_type": "LORA",\r  "r": 8\r}',
    "tabs": '{\n\t"peft_type":\t"LORA",\t"r":\t8\n}',
    "wide": '{"名前": "日本語モデル", "peft_type": "LORA", "r": 8}',
    "combining": '{"cafe\u0301\u0302": "e\u0301", "peft_type": "LORA", "r": 8}',
    "emoji": '{"\U0001f600\U0001f680": "\U0001f600", "r": 8}',
    "escapes": '{"a\x7f\u202e\u200b\u00ad": "\u2028", "r": 8}',
    "minified": json.dumps({**{f"key{n}": n for n in range(300)}, "r": 8, "z": "z" * 3000}, separators=(",", ":")),
    "wide minified": '{"' + "日本" * 4000 + '":1,"r":8,"' + "語" * 4000 + '":1}',
    "crlf wide tabs": '{\r\n\t"名": "本",\t"r":\t8\r\n}',
    "bom": '\ufeff{"r": 8}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_carets_stand_under_the_value_and_the_key(name: str) -> None:
    write(Example(name, CONFIGS[name]), Path("dir"))
    value = Location("dir", CONFIG_FILE, pointer="/r")
    key = Location("dir", CONFIG_FILE, pointer="/r", on_key=True)
    locator = Locator()
    report = report_with(finding_at(value), finding_at(key))
    assert locator.place(value).excerpt
    assert underlined(full.render(report)) == ["8", '"r"']


@pytest.mark.parametrize("name", ["minified", "wide minified"])
def test_long_lines_are_cut_around_the_span(name: str) -> None:
    write(Example(name, CONFIGS[name]), Path("dir"))
    text = full.render(report_with(finding_at(Location("dir", CONFIG_FILE, pointer="/r"))))
    line = next(line for line in text.split("\n") if line.startswith("1 |"))
    assert sum(map(columns, line)) <= 115
    assert line.startswith("1 | ...") and line.endswith("...")


def test_a_span_longer_than_the_window() -> None:
    write(Example("long", json.dumps({"k": "v" * 5000, "r": 8})), Path("dir"))
    text = full.render(report_with(finding_at(Location("dir", CONFIG_FILE, pointer="/k"))))
    assert max(map(len, text.split("\n"))) < 200
    (marked,) = underlined(text)
    assert marked.startswith('"vvv') and len(marked) > 50


def test_every_text_offset_can_be_drawn() -> None:
    """Also the end of the text and line ends, of every kind."""
    for text in ('{"a": "b\nc"}', '{"a": "b\r\nc"}', '{"r": 8', "", "\n", "\t日\x1b"):
        write(Example("x", text), Path("dir"))
        for offset in range(len(text) + 1):
            place = Locator().place(Location("dir", CONFIG_FILE, offset=offset))
            assert place.start is not None and place.end is not None
            assert place.start[0] == place.end[0]
            drawn = full.render(report_with(finding_at(Location("dir", CONFIG_FILE, offset=offset))))
            assert len(underlined(drawn)) == 1


@pytest.mark.parametrize("count", [1, 4, 40])
def test_a_span_over_several_lines_is_bracketed(count: int) -> None:
    names = [f"name{number}" for number in range(count)]
    write(Example("x", json.dumps({"m": names, "r": 8}, indent=2)), Path("dir"))
    text = full.render(report_with(finding_at(Location("dir", CONFIG_FILE, pointer="/m"))))
    lines = text.split("\n")
    first = next(number for number, line in enumerate(lines) if '"m": [' in line)
    assert lines[first][lines[first + 1].index("^")] == "["
    last = next(number for number, line in enumerate(lines) if "|_" in line)
    assert lines[last - 1][lines[last].index("^")] == "]"
    assert last - first <= 9
    assert ("..." in text) == (count == 40)


def test_both_sides_of_a_mismatch() -> None:
    text = full.render(report_of({"x": Example("x", lora_config(r=8), llama_tensors(4))}))
    assert "--> x/adapter_config.json:10:8\n" in text
    tensor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert f"::: x/adapter_model.safetensors#{tensor}: shape [4, 16]\n" in text


def test_related_places_are_counted_beyond_six() -> None:
    related = tuple(Location("x", "f", tensor=f"t{number}", label="l") for number in range(9))
    text = full.render(report_with(finding_at(Location("x"), related=related)))
    assert text.count(":::") == 6
    assert "= and 3 more places" in text


def test_labels_stand_beside_the_carets() -> None:
    text = full.render(report_with(finding_at(Location("x", CONFIG_FILE, pointer="/r", label="la\x1bbel"))))
    assert re.search(r"\| +\^ la\\x1bbel\n", text)


def test_effects_are_folded_and_marked() -> None:
    effects = (
        raises("peft>=0.6,<0.14", "TypeError: no\nwonder"),
        wrong("peft<0.6"),
        inert("peft>=0.18", stage="after_switch", adapter="b"),
        unknown("peft>=0.14,<0.15", missing=("base", "weights")),
        raises("peft>=0.15,<0.18", "KeyError: 'x'", stage="switch", scope="set"),
    )
    finding = finding_at(Location("x"), effects=effects)
    report = report_with(finding, targets=("peft==0.8.2", "peft==0.10.0", "peft==0.14.0"), targets_given=True)
    notes = [line.strip() for line in full.render(report).split("\n") if line.startswith("  = ")]
    assert notes == [
        "= silently wrong on peft <=0.5",
        "= raises on peft 0.6-0.13 [requested: 0.8.2, 0.10]: TypeError: no\\nwonder",
        "= cannot be told on peft 0.14 [requested] without the base and the weights",
        "= raises in set_adapter on peft 0.15-0.17, loaded under a name of its own: KeyError: 'x'",
        "= the base answers alone after switching on peft >=0.18, first for adapter b",
    ]


def test_operations_are_printed_when_asked_for() -> None:
    both = finding_at(Location("x"), effects=(wrong("peft"), raises("peft", "KeyError: 'm'", operation="merge")))
    only = finding_at(Location("x"), effects=(wrong("peft<0.20", operation="save"),))._replace(message="about saving")
    report = report_with(both, only)
    text = full.render(report)
    assert "a message" in text and "about saving" not in text and "merge:" not in text
    assert "Found 1 error in" in text
    asked = full.render(report._replace(operations=frozenset({"save"})))
    assert "about saving" in asked and "save: silently wrong on peft <=0.19" in asked and "merge:" not in asked
    assert "merge: raises on every release" in full.render(report._replace(operations=frozenset({"merge"})))


@pytest.mark.parametrize(
    ("fix", "line"),
    [
        (Fix("Do it", Safety.SAFE, form="union"), "= fix: Do it (safe: adapterlint fix)"),
        (Fix("Do it", Safety.UNSAFE, form="union"), "= fix: Do it (unsafe: adapterlint fix --unsafe-fixes)"),
        (Fix("Do\x1b it", Safety.DISPLAY), "= fix: Do\\x1b it"),
    ],
)
def test_fixes_say_how_far_they_can_be_trusted(fix: Fix, line: str) -> None:
    text = full.render(report_with(finding_at(Location("x"), fix=fix)))
    assert line in [each.strip() for each in text.split("\n")]


def test_fixable_counts() -> None:
    fixes = [Fix("a", Safety.SAFE, form="union"), Fix("b", Safety.UNSAFE, form="union"), Fix("c", Safety.DISPLAY), None]
    text = full.render(report_with(*(finding_at(Location("x"), fix=fix) for fix in fixes)))
    assert "Found 4 errors in 1 adapter" in text
    assert "; 1 fixable with `adapterlint fix`, 1 more with `adapterlint fix --unsafe-fixes`" in text
    alone = full.render(report_with(finding_at(Location("x"), fix=fixes[1])))
    assert "; 1 fixable with `adapterlint fix --unsafe-fixes`" in alone


def test_counts_name_only_what_is_there() -> None:
    levels = [Severity.NOTE, Severity.WARNING, Severity.WARNING]
    text = full.render(report_with(*(finding_at(Location("x"), severity=level) for level in levels)))
    assert "\nFound 2 warnings and 1 note in 1 adapter (8 tensors, peft 0.21.2, 0.25 s)" in text


def test_clean() -> None:
    text = full.render(report_with())
    assert text.split("\n")[0] == "No problems found in 1 adapter (8 tensors, peft 0.21.2, 0.25 s)"
    assert text.count("assumes the base") == 1


def test_skips_are_told_apart() -> None:
    skipped = (
        Skipped("AL401", "x", "base"),
        Skipped("AL402", "x", "base"),
        Skipped("AL201", "y", "config"),
        Skipped("AL202", "y", "weights"),
        Skipped("AL202", "z", "weights"),
    )
    text = full.render(report_with(skipped=skipped))
    assert "\nskipped: 2 checks need --base; 2 checks need a config and weights that can be read\n" in text


def verdict_set(verdicts: dict[str, Verdict], since: str | None) -> SetReport:
    return SetReport("some/base", ("x", "y"), verdicts, {}, since)


def test_a_set_with_its_verdicts() -> None:
    from adapterlint.findings import Outcome

    switch = Verdict(Outcome.RAISES, stage="switch", adapter="y", exception="KeyError: 'y'")
    verdicts = {f"peft=={version}": switch for version in ("0.6.0", "0.6.1", "0.6.2", "0.7.0", "0.7.1")}
    verdicts["peft==0.8.2"] = Verdict(Outcome.WRONG)
    verdicts["peft==0.18.0"] = Verdict(Outcome.LOADS)
    text = full.render(report_with(sets=(verdict_set(verdicts, "0.18.0"),)))
    assert "set of 2 adapters on some/base (x, y): loads as is on peft>=0.18, in every order\n" in text
    assert "\n  raises in set_adapter on peft 0.6-0.7, first for adapter y: KeyError: 'y'\n" in text
    assert "\n  silently wrong on peft 0.8.2\n" in text
    assert "\n  loads on peft 0.18.0\n" in text


def test_a_set_that_loads_where_asked_is_one_line() -> None:
    from adapterlint.findings import Outcome

    loads = Verdict(Outcome.LOADS)
    text = full.render(report_with(sets=(verdict_set({"peft==0.21.2": loads}, "0.18.1"),)))
    assert "loads as is on peft>=0.18.1, in every order\n" in text and "loads on" not in text
    text = full.render(report_with(sets=(verdict_set({"peft==0.21.2": loads}, None),)))
    assert "not known to load as is, in every order, on peft 0.21.2 (the newest)\n  loads on peft 0.21.2\n" in text
    text = full.render(report_with(sets=(verdict_set({"peft==0.21.2": loads}, "0.3.0"),)))
    assert "loads as is on every release, in every order\n" in text


def test_an_adapter_that_does_not_load_everywhere_gets_a_line() -> None:
    report = report_of({"x": Example("x", lora_config(r=8), llama_tensors(4))}, targets=["peft>=0.20"])
    lines = full.render(report).split("\n")
    (line,) = [line for line in lines if line.startswith("adapter x: ")]
    assert line.startswith("adapter x: raises on peft 0.20-0.21: RuntimeError: Error(s) in loading state_dict")


def test_long_names_are_cut() -> None:
    name = "n" * 100_000
    finding = finding_at(Location("x", "f", tensor=name, label=name))._replace(message=name)
    text = full.render(report_with(finding._replace(related=(Location("x", name, tensor=name),))))
    assert len(text) < 5000
