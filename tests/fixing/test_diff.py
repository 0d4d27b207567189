"""Plans as a person reads them; the config's part must be a patch that the patch program takes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fixing_util import CONFIG, arrays, make_adapter, make_base, raw_file, snapshot

from adapterlint.findings import (
    CONFIG_FILE,
    SAFETENSORS_FILE,
    CopyTensor,
    DropTensor,
    RemoveConfig,
    RenameFile,
    RenameTensor,
    RewriteHeader,
    SetConfig,
    StripBom,
    ZeroTensor,
)
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.fixing.diff import printable, render
from adapterlint.fixing.errors import PlanError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_reads_like_this(here: Path) -> None:
    base = make_base(here / "base", arrays("head", "norm"))
    make_adapter(here / "one", arrays(*(f"layer.{i}" for i in range(6)), "x", "y"), notes="kept")
    two = Path(make_adapter(here / "two", {}), SAFETENSORS_FILE)
    two.write_bytes(raw_file([("a", "U8", [1], b"7")], pad=3))
    renames = [RenameTensor(f"layer.{i}", f"l.{i}") for i in reversed(range(6))]
    edits = (
        SetConfig("/r", 4), *renames, DropTensor("y"), DropTensor("x"), CopyTensor("h", "head"),
        CopyTensor("n", "norm"), ZeroTensor("z", "BF16", (2, 3)), RenameFile("notes.txt", "README.txt"),
    )  # fmt: skip
    plans = [AdapterEdits("one", edits, base), AdapterEdits("two", (RewriteHeader(), RenameTensor("a", "a")))]
    before = snapshot(here)
    text = render(plans)
    assert snapshot(here) == before
    assert text == (
        "rename one/notes.txt to README.txt\n"
        "--- one/adapter_config.json\n"
        "+++ one/adapter_config.json\n"
        "@@ -1,6 +1,6 @@\n"
        " {\n"
        '   "peft_type": "LORA",\n'
        '-  "r": 8,\n'
        '+  "r": 4,\n'
        '   "lora_alpha": 16,\n'
        '   "target_modules": ["q_proj"]\n'
        " }\n"
        "--- one/adapter_model.safetensors\n"
        "+++ one/adapter_model.safetensors\n"
        "@@ rename 6 tensors @@\n"
        "-layer.0\n+l.0\n-layer.1\n+l.1\n-layer.2\n+l.2\n"
        "... and 3 more\n"
        "@@ drop 2 tensors, 192 bytes @@\n"
        "-x  F32 [4, 6]\n-y  F32 [4, 6]\n"
        "@@ copy from the base 2 tensors, 192 bytes @@\n"
        "+h  F32 [4, 6]  from head\n+n  F32 [4, 6]  from norm\n"
        "@@ add, all zero, 1 tensor, 12 bytes @@\n"
        "+z  BF16 [2, 3]\n"
        "--- two/adapter_model.safetensors\n"
        "+++ two/adapter_model.safetensors\n"
        "@@ write the header anew; names, shapes and data stay @@\n"
    )
    assert "... and" not in render(plans, verbose=True) and "-layer.5\n+l.5\n" in render(plans, verbose=True)
    apply_all(plans)
    assert render([AdapterEdits("one", (SetConfig("/r", 4),)), AdapterEdits("two", (RewriteHeader(),))]) == ""


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        CONFIG.replace("\n", "\r\n"),
        CONFIG.rstrip(),
        '{"r": 8, "lora_alpha": 1}',
        CONFIG.replace("LORA", "\u00e9"),
    ],
)
def test_the_config_s_part_is_a_patch(here: Path, config: str) -> None:
    if shutil.which("patch") is None:
        pytest.skip("no patch program")
    make_adapter(here / "one", {}, config=config)
    shutil.copytree(here / "one", here / "by-patch" / "one")
    plan = AdapterEdits("one", (SetConfig("/r", 4), RemoveConfig("/lora_alpha"), SetConfig("/new", [1])))
    text = render([plan])
    done = subprocess.run(["patch", "--binary", "-p0"], cwd=here / "by-patch", input=text.encode(), capture_output=True)
    assert done.returncode == 0, done.stdout
    apply_all([plan])
    assert Path("by-patch", "one", CONFIG_FILE).read_bytes() == Path("one", CONFIG_FILE).read_bytes()


def test_a_byte_order_mark_can_be_seen(here: Path) -> None:
    make_adapter(here / "one", {}, config="\ufeff{}\n")
    assert "-\\ufeff{}\n+{}\n" in render([AdapterEdits("one", (StripBom(),))])


def test_names_cannot_act_on_the_terminal(here: Path) -> None:
    make_adapter(here / "a\x1bb", arrays("x\x1b[2Jy", "n\nl"), config='{"r": 8, "a\u202eb": 1, "\\u001b": 2}\x0b'[:-1])
    edits = (RenameTensor("x\x1b[2Jy", "z\x9b"), DropTensor("n\nl"), SetConfig("/r", "\x7f"))
    text = render([AdapterEdits("a\x1bb", edits)])
    assert all(char.isprintable() or char == "\n" for char in text)
    for shown in ("-x\\x1b[2Jy\n", "+z\\x9b\n", "-n\\nl  F32", "a\\x1bb", "a\\u202eb"):
        assert shown in text


def test_characters_that_people_use_stay() -> None:
    assert printable("caf\u00e9 \u4f60\u597d \U0001f9f5") == "caf\u00e9 \u4f60\u597d \U0001f9f5"
    assert printable("\ud800") == "\\ud800" and printable("a\tb", keep="\t") == "a\tb"


def test_a_plan_that_does_not_fit_is_no_diff(here: Path) -> None:
    make_adapter(here / "one", arrays("a"))
    with pytest.raises(PlanError, match=f"one{os.sep}adapter_model.safetensors: there is no tensor 'b' to drop"):
        render([AdapterEdits("one", (DropTensor("b"),))])
