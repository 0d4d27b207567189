"""File rules against the libraries: what the tool says of a weights file is what PEFT's own loader does with it."""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rules_util import findings_of, run_example

from adapterlint import assemble
from adapterlint.findings import PICKLE_FILE, SAFETENSORS_FILE, Safety
from adapterlint.fixing.apply import AdapterEdits, apply_all
from adapterlint.report import Report
from adapterlint.rules.examples import llama_tensors, lora_config, safetensors_bytes
from adapterlint.rules.registry import adapter_rules
from adapterlint.rules.torchbytes import torch_bytes
from adapterlint.run import Request, check, examine

NEWEST = "peft==0.21.2"
SOUND = safetensors_bytes(llama_tensors())
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 70000\n"


def _torch(build: Callable[[dict[str, Any]], Any], **options: Any) -> bytes:
    import torch

    names = llama_tensors()
    state = {name: torch.arange(64.0).reshape(shape) / 64 for name, (_, shape) in names.items()}
    buffer = io.BytesIO()
    torch.save(build(state), buffer, **options)
    return buffer.getvalue()


def _parameters(state: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {name: torch.nn.Parameter(tensor.T.contiguous().T) for name, tensor in state.items()}


CONTENTS: dict[str, Callable[[], bytes]] = {
    "sound": lambda: SOUND,
    "no tensors": lambda: safetensors_bytes({}),
    "empty file": lambda: b"",
    "seven bytes": lambda: SOUND[:7],
    "header cut": lambda: SOUND[:100],
    "data cut": lambda: SOUND[:-1],
    "trailing": lambda: SOUND + b"\0",
    "white space": lambda: (int.from_bytes(SOUND[:8], "little") + 8).to_bytes(8, "little") + b" " * 8 + SOUND[8:],
    "pointer": lambda: POINTER,
    "web page": lambda: b"<!DOCTYPE html><html><body>404</body></html>",
    "text": lambda: b"see the release page for the weights\n",
    "gguf": lambda: b"GGUF\x03\0\0\0" + bytes(64),
    "zeros": lambda: bytes(4096),
    "archive": lambda: _zip({"readme.txt": b"hello"}),
    "torch": lambda: _torch(lambda state: state),
    "torch, before zip": lambda: _torch(lambda state: state, _use_new_zipfile_serialization=False),
    "torch, parameters": lambda: _torch(_parameters),
    "torch, with a number": lambda: _torch(lambda state: {**state, "epoch": 3}),
    "torch, nested": lambda: _torch(lambda state: {"state_dict": state}),
    "torch, arguments": lambda: _torch(lambda state: {**state, "args": argparse.Namespace(lr=1e-4)}),
    "torch, cut": lambda: _torch(lambda state: state)[:3000],
    "torch, other protocol": lambda: _torch(lambda state: state, pickle_protocol=4),
}


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _adapter(directory: Path, files: dict[str, bytes], config: Any = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(config or lora_config()))
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def _verdict(path: Path) -> Any:
    report = check(Request([str(path)], targets=[NEWEST]))
    assert report.internal_errors == ()
    return report.adapters[0].verdicts[NEWEST]


def _loaded(path: Path) -> tuple[dict[str, Any] | None, str]:
    """What PEFT's loader returns, or the text of its exception."""
    from peft.utils.save_and_load import load_peft_weights

    try:
        return load_peft_weights(str(path), device="cpu"), ""
    except Exception as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())


@pytest.mark.peft
@pytest.mark.parametrize("name", [SAFETENSORS_FILE, PICKLE_FILE])
@pytest.mark.parametrize("content", CONTENTS)
def test_as_peft_loads(content: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path = _adapter(tmp_path / "adapter", {name: CONTENTS[content]()})
    weights, exception = _loaded(path)
    verdict = _verdict(path)
    if weights is None:
        assert verdict.outcome.value == "raises", exception
        said = " ".join((verdict.exception or "").split())
        assert said and exception.startswith(said[:150]), (said, exception)
    elif any("lora_A" in key for key in weights):
        assert verdict.outcome.value == "loads"
    else:
        assert (verdict.outcome.value, verdict.inert) == ("wrong", True)


@pytest.mark.peft
def test_links_and_directories_as_peft_sees_them(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    dangling = _adapter(tmp_path / "dangling", {PICKLE_FILE: CONTENTS["torch"]()})
    (dangling / SAFETENSORS_FILE).symlink_to(tmp_path / "nowhere")
    assert _loaded(dangling)[0] is not None
    assert _verdict(dangling).outcome.value == "loads"
    folder = _adapter(tmp_path / "folder", {})
    (folder / SAFETENSORS_FILE).mkdir()
    exception = _loaded(folder)[1]
    assert (_verdict(folder).outcome.value, _verdict(folder).exception) == ("raises", exception)


@pytest.mark.parametrize(
    "rule", [rule for rule in adapter_rules() if rule.code.startswith("AL0")], ids=lambda rule: rule.code
)
def test_fixes_end_their_findings_and_keep_the_tensors(rule: Any, tmp_path: Path) -> None:
    from safetensors.torch import load

    for number, example in enumerate(rule.invalid()):
        run = run_example(example, tmp_path / str(number))
        for finding in findings_of(run, rule.code):
            if finding.fix is None or finding.fix.safety is not Safety.SAFE:
                continue
            path = Path(finding.location.path)
            before = _named_tensors(path)
            apply_all([AdapterEdits(str(path), finding.fix.edits)])
            again = examine(Request([str(path)], grouping="none"))
            assert findings_of(again, rule.code) == []
            after = load((path / SAFETENSORS_FILE).read_bytes())
            assert before.keys() == after.keys()
            assert all(before[name].equal(tensor) for name, tensor in after.items())


def _named_tensors(path: Path) -> dict[str, Any]:
    """The tensors of every weights file, those under another key included, as the libraries load them."""
    import torch
    from safetensors.torch import load

    loaded: dict[str, Any] = {}
    for file in sorted(path.iterdir()):
        if file.suffix in (".bin", ".safetensors") and file.read_bytes().startswith(b"PK"):
            content = torch.load(file, weights_only=True)
            loaded |= content.get("state_dict", content)
        elif file.suffix in (".bin", ".safetensors"):
            loaded |= load(file.read_bytes())
    return loaded


# -- what is an error and what is a note ---------------------------------------------------------------------------


def _severities(report: Report, rule: str) -> list[str]:
    return [item.finding.severity.value for item in report.findings if item.finding.rule == rule]


def test_missing_weights_found_on_the_way_are_a_note(tmp_path: Path) -> None:
    path = _adapter(tmp_path / "runs" / "first", {})
    given, found = check(Request([str(path)])), check(Request([str(tmp_path)]))
    assert _severities(given, "AL002") == ["error"]
    assert _severities(found, "AL002") == ["note"]
    assert [each.adapters[0].verdicts[NEWEST].outcome.value for each in (given, found)] == ["raises", "raises"]


def test_pointers_in_a_checkout_that_tracks_them_are_a_note(tmp_path: Path) -> None:
    path = _adapter(tmp_path / "adapters" / "first", {SAFETENSORS_FILE: POINTER})
    assert _severities(check(Request([str(tmp_path)])), "AL004") == ["error"]
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    found = check(Request([str(tmp_path)]))
    assert _severities(found, "AL004") == ["note"]
    assert found.adapters[0].verdicts[NEWEST].outcome.value == "raises"
    assert _severities(check(Request([str(path)])), "AL004") == ["error"]


def test_a_pointer_as_config_says_what_it_points_to(tmp_path: Path) -> None:
    path = _adapter(tmp_path / "adapter", {SAFETENSORS_FILE: SOUND})
    (path / "adapter_config.json").write_bytes(POINTER)
    (finding,) = findings_of(examine(Request([str(path)])), "AL004")
    assert "sha256:abab" in finding.message and "70000 bytes" in finding.message


def test_what_cannot_be_followed_is_unknown(tmp_path: Path) -> None:
    buffer = io.BytesIO(torch_bytes(llama_tensors()))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data/0", b"another")
    path = _adapter(tmp_path / "adapter", {PICKLE_FILE: buffer.getvalue()})
    run = examine(Request([str(path)]))
    assert not run.adapters[0].subject.adapter.readable
    assert _verdict(path).outcome.value == "unknown"
    assert _verdict(path).rules == ("AL008",)


def test_a_directory_that_cannot_be_listed_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _adapter(tmp_path / "adapter", {SAFETENSORS_FILE: SOUND})

    def refuse(where: str) -> Any:
        raise PermissionError(13, "Permission denied", where)

    monkeypatch.setattr(assemble.os, "scandir", refuse)
    verdict = _verdict(path)
    assert (verdict.outcome.value, verdict.missing) == ("unknown", ("config", "weights"))


# -- where the adapter may be instead ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("model.safetensors", SAFETENSORS_FILE),
        ("adapter_model (1).safetensors", SAFETENSORS_FILE),
        ("adapter_model.safetensors.bak", SAFETENSORS_FILE),
        ("pytorch_model.bin", PICKLE_FILE),
        ("lora.pt", PICKLE_FILE),
    ],
)
def test_misplaced_files_are_found_by_what_they_hold(name: str, new: str, tmp_path: Path) -> None:
    data = torch_bytes(llama_tensors()) if new == PICKLE_FILE else SOUND
    path = _adapter(tmp_path / "adapter", {name: data, "training_args.bin": torch_bytes(llama_tensors())})
    (finding,) = findings_of(examine(Request([str(path)])), "AL003")
    assert finding.fix is not None and finding.fix.safety is Safety.SAFE
    apply_all([AdapterEdits(str(path), finding.fix.edits)])
    assert (path / new).read_bytes() == data
    assert findings_of(examine(Request([str(path)])), "AL003") == []


def test_a_misnamed_container_is_renamed_only_if_it_is_sound(tmp_path: Path) -> None:
    data = torch_bytes(llama_tensors())
    whole = _adapter(tmp_path / "whole", {SAFETENSORS_FILE: data})
    (finding,) = findings_of(examine(Request([str(whole)])), "AL005")
    assert finding.fix is not None and finding.fix.edits
    apply_all([AdapterEdits(str(whole), finding.fix.edits)])
    assert sorted(os.listdir(whole)) == ["adapter_config.json", PICKLE_FILE]
    assert _verdict(whole).outcome.value == "loads"
    cut = _adapter(tmp_path / "cut", {SAFETENSORS_FILE: data[:-100]})
    (finding,) = findings_of(examine(Request([str(cut)])), "AL005")
    assert finding.fix is None


def test_a_rival_of_other_numbers_is_a_warning(tmp_path: Path) -> None:
    same = _adapter(tmp_path / "same", {SAFETENSORS_FILE: SOUND, PICKLE_FILE: torch_bytes(llama_tensors())})
    other = bytearray(SOUND)
    other[-1] ^= 0x80
    differs = _adapter(
        tmp_path / "differs", {SAFETENSORS_FILE: bytes(other), PICKLE_FILE: torch_bytes(llama_tensors())}
    )
    assert _severities(check(Request([str(same)])), "AL010") == ["note"]
    assert _severities(check(Request([str(differs)])), "AL010") == ["warning"]
