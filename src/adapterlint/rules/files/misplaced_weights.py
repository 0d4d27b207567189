"""AL003."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from adapterlint.findings import (
    PICKLE_FILE,
    SAFETENSORS_FILE,
    ConvertWeights,
    Finding,
    Fix,
    RenameFile,
    Safety,
    Severity,
    raises,
)
from adapterlint.model import keys
from adapterlint.model.adapter import Adapter
from adapterlint.model.keys import LORA_KINDS, PREFIX, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.model.tensor import Tensor
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config, safetensors_bytes
from adapterlint.rules.files.foreign_format import no_weights, recognise

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.")
_TORCH_SUFFIXES = (".bin", ".pt", ".pth")
_PROMPT = "prompt_embeddings"
_OWN_KINDS = LORA_KINDS | {Kind.METHOD, Kind.TOKENS}


class MisplacedWeights(Rule):
    """## What it does
    Looks for the adapter's tensors in a file or directory where PEFT does not look: `model.safetensors`,
    `pytorch_model.bin`, `adapter_model (1).safetensors`, shards, a directory one level down.

    ## Why is this bad?
    PEFT opens `adapter_model.safetensors`, else `adapter_model.bin`, in the directory that it is given, and nothing
    else. If neither is there, it takes the path for a name on the Hub and raises `HFValidationError`, which says
    nothing of weights.

    ## Example
    `adapter_config.json` beside `adapter_model-00001-of-00001.safetensors`.

    ## Fix
    Safe: the file is renamed, where it is the only one that can be meant; shards are joined to one file, byte for byte,
    if all are there. Unsafe: weights one level down are moved up to the config. None where several files can be meant,
    or shards are missing.

    ## References
    - PEFT `utils/save_and_load.py`, `load_peft_weights`; peft#718, peft#1154, trl#526; measured on 0.4.0 to 0.21.2.
    """

    code = "AL003"
    name = "misplaced-weights"
    needs = ("files",)
    severity = Severity.ERROR
    damage = "files"

    @staticmethod
    def valid() -> list[AnyExample]:
        model = safetensors_bytes(llama_base().tensors)
        one = safetensors_bytes(llama_tensors())
        return [
            Example("where PEFT looks", lora_config(), llama_tensors()),
            Example("a model beside an adapter", lora_config(), llama_tensors(), files={"model.safetensors": model}),
            Example("only a model", lora_config(), files={"model.safetensors": model}),
            Example(
                "adapters one level down",
                lora_config(),
                files={"a/adapter_model.safetensors": one, "b/adapter_model.safetensors": one},
            ),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        half = {f"adapter_model-0000{i}-of-00002.safetensors": safetensors_bytes(llama_tensors(4, i)) for i in (1, 2)}
        below = {"default/adapter_model.safetensors": safetensors_bytes(llama_tensors())}
        return [
            Example("a trainer's name", lora_config(), llama_tensors(), weights="model.safetensors"),
            Example(
                "a single shard", lora_config(), llama_tensors(), weights="adapter_model-00001-of-00001.safetensors"
            ),
            Example("shards", lora_config(), files=half),
            Example("one level down", lora_config(), files=below),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        found = misplaced(adapter)
        if not found or recognise(adapter) is not None:
            return
        effects = (raises("peft", no_weights(adapter)),) if adapter.has_config else ()
        nested = "/" in found[0]
        yield self.finding(
            f"the adapter's tensors are in {first_names(found)}, where PEFT does not look: it opens only "
            f"{SAFETENSORS_FILE} and {PICKLE_FILE} in the directory itself",
            subject.at_file(found[0]),
            effects=effects,
            fix=_fix(adapter, found),
            ceiling=Severity.NOTE if nested and not adapter.explicit else Severity.ERROR,
        )


def misplaced(adapter: Adapter) -> tuple[str, ...]:
    """Files that hold the adapter's tensors though PEFT does not look there; empty if its own file is present."""
    if adapter.weights_file is not None:
        return ()
    found = tuple(name for name, tensors in adapter.other_tensors.items() if looks_like_adapter(tensors))
    here = tuple(name for name in found if "/" not in name)
    # Several directories further down are adapters of their own.
    return here or (found if len(found) == 1 else ())


def looks_like_adapter(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of an adapter and not of a whole model."""
    return any(name.startswith(PREFIX) or name == _PROMPT or keys.parse(name).kind in _OWN_KINDS for name in tensors)


def _fix(adapter: Adapter, found: tuple[str, ...]) -> Fix:
    name = found[0]
    if "/" in name:
        if not adapter.has_config:
            folder = name.partition("/")[0]
            return Fix(f"Load {folder}/ itself, if its config is there", Safety.DISPLAY)
        return Fix(f"Take {name} up beside adapter_config.json", Safety.UNSAFE, (ConvertWeights((name,)),))
    shard = _SHARD.search(name)
    if shard and int(shard[1]) != 1:
        return _join(adapter, found, int(shard[1]))
    if len(found) > 1:
        return Fix(f"Rename the file that is meant to {SAFETENSORS_FILE}", Safety.DISPLAY)
    new = PICKLE_FILE if name.endswith(_TORCH_SUFFIXES) else SAFETENSORS_FILE
    links = {problem.detail for problem in adapter.weights_problems if problem.kind == "broken-link"}
    if new in links:
        return Fix(f"Put {name} in the place of the broken link {new}", Safety.DISPLAY)
    clean = all(_is_canonical(tensor) for tensor in adapter.other_tensors[name])
    if not clean:  # its tensors need other names, for which the file is written anew in any case
        return Fix(f"Move the tensors of {name} to {SAFETENSORS_FILE}", Safety.UNSAFE, (ConvertWeights((name,)),))
    return Fix(f"Rename {name} to {new}", Safety.SAFE, (RenameFile(name, new),))


def _join(adapter: Adapter, found: tuple[str, ...], count: int) -> Fix:
    """Shards are an adapter only together: all of them, of one series, and no tensor in two of them."""
    stems = {name[: match.start()] for name in found if (match := _SHARD.search(name))}
    wanted = {f"-{number:05}-of-{count:05}." for number in range(1, count + 1)}
    if len(found) != count or len(stems) != 1 or {match[0] for match in map(_SHARD.search, found) if match} != wanted:
        return Fix(f"Join the {count} shards into one {SAFETENSORS_FILE}, once all are there", Safety.DISPLAY)
    names = [tensor for name in found for tensor in adapter.other_tensors[name]]
    if len(set(names)) != len(names):
        return Fix(f"Join the {count} shards by hand: some tensors are in more than one", Safety.DISPLAY)
    index = tuple(name for name in adapter.files if name.endswith(".index.json") and name.startswith(tuple(stems)))
    safe = Safety.SAFE if all(map(_is_canonical, names)) else Safety.UNSAFE
    return Fix(f"Join the {count} shards to {SAFETENSORS_FILE}", safe, (ConvertWeights(found, remove=index),))


def _is_canonical(name: str) -> bool:
    key = keys.parse(name)
    return name == _PROMPT or (key.has_canonical_prefix and key.adapter is None and key.infix is None)
