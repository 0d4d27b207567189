"""AL013."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from adapterlint.findings import CONFIG_FILE, Effect, Finding, Fix, Location, Safety, Severity, inert, raises, wrong
from adapterlint.model.adapter import Adapter
from adapterlint.model.keys import PREFIX
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import (
    AnyExample,
    Example,
    Shapes,
    llama_tensors,
    lora_config,
    renamed,
    safetensors_bytes,
)

NO_PEFT_TYPE = "KeyError: 'peft_type'"
KOHYA, MLX, DIFFUSERS, TORCHTUNE = "kohya's scripts", "MLX", "diffusers", "torchtune"
_HUB = "AdapterHub"
_GGUF, _MODEL = "GGUF", "full model"
_CONVERTED = frozenset({KOHYA, MLX, DIFFUSERS, TORCHTUNE})
"""Formats of which the plan knows what they mean; of one adapter it may still have to refuse the conversion."""
_HOW = {
    _GGUF: "Use the adapter that the GGUF file was converted from: there is no way back",
    _HUB: "Load it with the adapters library, or train it again with PEFT",
    _MODEL: "Put the adapter's own adapter_config.json here, or load the directory as a model",
}
_TEXT_MODELS = {KOHYA: "lora_te", DIFFUSERS: "text_encoder"}
_TORCHTUNE_NAME = re.compile(r"(layers\.\d+\.(attn|mlp)\.\w+|output)\.(lora_[ab]\.weight|magnitude)")


class Foreign(NamedTuple):
    """What another tool wrote.

    Attributes:
        format: name of the format, a key of the table of advice.
        evidence: what shows it, completes "the ... is that of ...".
        file: the file that shows it.
        tensors: names of the foreign tensors.
    """

    format: str
    evidence: str
    file: str
    tensors: tuple[str, ...] = ()


class ForeignFormat(Rule):
    """## What it does
    Recognises adapters of other tools: MLX (`lora_a`, `lora_b`), kohya's scripts (`lora_down`, `lora_up`), diffusers,
    torchtune's own checkpoint, AdapterHub and GGUF, and the config of a whole model under the name
    `adapter_config.json`.

    ## Why is this bad?
    PEFT reads none of them. Without `peft_type` in the config it raises `KeyError: 'peft_type'`; with a config of its
    own beside foreign tensors it finds nothing that it knows, drops all, and the base answers alone, without a word.

    ## Example
    `{"num_layers": 16, "lora_parameters": {"rank": 8, "scale": 20.0}}`, which mlx-lm writes.

    ## Fix
    Adapters of MLX, kohya's scripts, diffusers (for a text encoder) and torchtune are converted, where their names,
    shapes and scales have one meaning; give the base with `--base`, against which they are checked. Else the reason
    is told. Where only the tensors are named by another tool and the config is PEFT's, they get PEFT's names and keep
    the config's scale. There is none for the others.

    ## References
    - mlx-lm#1119, unsloth-zoo#957, peft#596, peft#1065, peft#2939, adapters library, diffusers#6392.
    - Measured with the tensor names of kohya and MLX, and with both configs, on 0.4.0 to 0.21.2.
    """

    code = "AL013"
    name = "foreign-format"
    needs = ("files",)
    severity = Severity.ERROR
    damage = "files"

    @staticmethod
    def valid() -> list[AnyExample]:
        minimal = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "peft_type": "LORA"}
        return [
            Example("PEFT", lora_config(), llama_tensors()),
            Example("torchtune's minimal config", minimal, llama_tensors()),
            Example("GGUF beside the adapter", lora_config(), llama_tensors(), files={"adapter.gguf": b"GGUF"}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        mlx = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0}}
        hub = {"config": {"architecture": "lora", "r": 8}, "hidden_size": 16, "model_class": "BertAdapterModel"}
        kohya = {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": ("F32", (4, 16))}
        unet = {"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": ("F32", (4, 16))}
        whole = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16}
        return [
            Example("MLX", mlx, _turned(renamed(llama_tensors(), _as_mlx)), weights="adapters.safetensors"),
            Example("tensors of MLX, config of PEFT", lora_config(), renamed(llama_tensors(), _as_mlx)),
            Example("kohya", files={"lora.safetensors": safetensors_bytes(kohya)}),
            Example("tensors of kohya, config of PEFT", lora_config(), renamed(llama_tensors(), _as_kohya)),
            Example("diffusers", files={"pytorch_lora_weights.safetensors": safetensors_bytes(unet)}),
            Example("AdapterHub", hub, files={"pytorch_adapter.bin": b"PK"}),
            Example("GGUF", files={"adapter.gguf": b"GGUF"}),
            Example("a model's config", whole, llama_tensors()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        found = recognise(adapter)
        if found is None:
            return
        yield self.finding(
            f"{found.evidence}: this is {_what(found.format)}, not an adapter of PEFT",
            _place(subject, found),
            effects=(_effect(adapter, found),),
            fix=_fix(subject, found),
        )


def _fix(subject: Subject, found: Foreign) -> Fix:
    if found.format not in _CONVERTED:
        return Fix(_HOW[found.format], Safety.DISPLAY)
    reason = _hindrance(subject, found)
    if reason is not None:
        return Fix(reason, Safety.DISPLAY)
    if subject.adapter.peft_type is not None:
        return Fix("Name its tensors as PEFT does, and keep the scale of the config", Safety.UNSAFE, form="peft")
    return Fix(f"Convert it from the format of {found.format} to that of PEFT", Safety.UNSAFE, form="peft")


def _hindrance(subject: Subject, found: Foreign) -> str | None:
    """What is in the way of a conversion, as far as names tell."""
    with_config = subject.adapter.peft_type is not None
    start = _TEXT_MODELS.get(found.format, "")
    pipeline = [name for name in found.tensors if not name.startswith(start) and not (with_config and _is_path(name))]
    if pipeline:
        return f"Load it with load_lora_weights of its diffusers pipeline: {pipeline[0]} is of no text model"
    needs_base = not all(map(_is_path, found.tensors)) if with_config else found.format in (KOHYA, TORCHTUNE)
    if subject.base is None and needs_base:
        return "Convert it, for which the base is needed: give --base"
    return None


def _is_path(name: str) -> bool:
    """Whether a foreign name has the module's path, dots and all."""
    return "." in name.removesuffix(".weight").rpartition(".")[0]


def recognise(adapter: Adapter) -> Foreign | None:
    """The foreign format that an adapter directory is in, or None if it is PEFT's, or nothing known."""
    own = [key.name for key in adapter.unusual]
    if adapter.peft_type is not None:
        found = _by_names(CONFIG_FILE, adapter.weights_file or "", own)
        if adapter.weights_file is None:
            for file, tensors in adapter.other_tensors.items():
                found = found or _by_names(CONFIG_FILE, file, tensors)
        return found
    if adapter.config is not None:
        found = _by_config(adapter.config)
        if found is not None:
            return found
    elif adapter.has_config:
        return None
    found = _by_names("", adapter.weights_file or "", own)
    if found is None and "lora_adapter_metadata" in adapter.metadata:
        found = Foreign(DIFFUSERS, "the header holds lora_adapter_metadata", adapter.weights_file or "")
    for file, tensors in adapter.other_tensors.items():
        found = found or _by_names("", file, tensors)
    if found is None and adapter.weights_file is None:
        gguf = next((name for name in adapter.files if name.endswith(".gguf")), None)
        found = Foreign(_GGUF, f"the directory holds {gguf}", gguf) if gguf else None
    return found


def _by_config(config: Mapping[str, Any]) -> Foreign | None:
    if isinstance(config.get("lora_parameters"), dict) or ("fine_tune_type" in config and "num_layers" in config):
        keys = [key for key in ("fine_tune_type", "num_layers", "lora_parameters") if key in config]
        return Foreign(MLX, f"the config has no peft_type but {first_names(keys)}", CONFIG_FILE)
    if "config" in config and ("model_class" in config or "model_name" in config):
        return Foreign(_HUB, "the config has no peft_type but config and model_class", CONFIG_FILE)
    if (
        isinstance(config.get("architectures"), list)
        or "_from_model_config" in config
        or "_diffusers_version" in config
    ):
        return Foreign(_MODEL, "the config has no peft_type but describes a model's architecture", CONFIG_FILE)
    if "model_type" in config and ("hidden_size" in config or "vocab_size" in config):
        return Foreign(_MODEL, "the config has no peft_type but model_type and sizes", CONFIG_FILE)
    return None


def _by_names(config: str, file: str, tensors: Iterable[str]) -> Foreign | None:
    """The format that the tensors' names show; names of diffusers count only where no config says PEFT."""
    odd = [name for name in tensors if not _is_ordinary(name)]
    kohya = tuple(name for name in odd if _is_kohya(name))
    if kohya:
        return Foreign(KOHYA, _named(kohya), file, kohya)
    mlx = tuple(name for name in odd if name.rpartition(".")[2] in ("lora_a", "lora_b"))
    if mlx:
        return Foreign(MLX, _named(mlx), file, mlx)
    torchtune = tuple(name for name in odd if _TORCHTUNE_NAME.fullmatch(name))
    if torchtune:
        return Foreign(TORCHTUNE, _named(torchtune), file, torchtune)
    diffusers = tuple(name for name in odd if not config and _is_diffusers(name))
    if diffusers:
        return Foreign(DIFFUSERS, _named(diffusers), file, diffusers)
    return None


def _named(names: tuple[str, ...]) -> str:
    return f"{len(names)} tensors are named like {names[0]}" if len(names) > 1 else f"a tensor is named {names[0]}"


def _is_ordinary(name: str) -> bool:
    """Whether a name can only be PEFT's, which nearly all are: told without taking it apart."""
    return name.startswith(PREFIX) and name.endswith((".lora_A.weight", ".lora_B.weight")) and name.count("lora") == 1


def _is_kohya(name: str) -> bool:
    return any(part in ("lora_down", "lora_up") for part in name.split(".")) or (
        name.startswith(("lora_unet_", "lora_te")) and not name.startswith(PREFIX)
    )


def _is_diffusers(name: str) -> bool:
    root = name.partition(".")[0]
    in_pipeline = root in ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
    return "lora.down." in name or "lora.up." in name or (in_pipeline and "lora_" in name)


def _effect(adapter: Adapter, found: Foreign) -> Effect:
    if not adapter.has_config:
        return raises("peft", cannot_find_config(adapter))
    if adapter.peft_type is None:
        return raises("peft", NO_PEFT_TYPE)
    if adapter.weights_file is None:
        return raises("peft", no_weights(adapter))
    return wrong() if len(found.tensors) < len(adapter.tensors) else inert()


def cannot_find_config(adapter: Adapter) -> str:
    """What PEFT raises without a config."""
    return f"ValueError: Can't find '{CONFIG_FILE}' at '{adapter.path}'"


def no_weights(adapter: Adapter) -> str:
    """What PEFT raises where it finds a config and no weights, for an absolute path."""
    return (
        "HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': "
        f"'{adapter.path}'. Use `repo_type` argument if needed."
    )


def _place(subject: Subject, found: Foreign) -> Location:
    if found.file == CONFIG_FILE:
        return subject.at_config()
    if found.tensors and found.file == subject.adapter.weights_file:
        return subject.at_tensor(found.tensors[0])
    return subject.at_file(found.file)


def _what(name: str) -> str:
    if name == _MODEL:
        return "the config of a whole model"
    return "a GGUF file" if name == _GGUF else f"an adapter in the format of {name}"


def _as_mlx(name: str) -> str:
    return name.removeprefix(PREFIX).replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b")


def _turned(tensors: Shapes) -> Shapes:
    return {name: (dtype, shape[::-1]) for name, (dtype, shape) in tensors.items()}


def _as_kohya(name: str) -> str:
    return name.replace("lora_A", "lora_down").replace("lora_B", "lora_up")
