"""The one grammar of tensor names in adapter files.

A canonical name is ``base_model.model.<module path in the base>.<suffix>``. Everything that training frameworks put
around it (wrappers, doubled prefixes, adapter names, ``modules_to_save`` infixes) is taken apart here and nowhere else.
Source: PEFT's ``utils/save_and_load.py``, releases 0.4.0 to 0.21.2.
"""

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

PREFIX = "base_model.model."
SHARED_PREFIX = "base_model."
_ROOT = ("base_model", "model")
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
SOFT_WRAPPER = "module"  # DistributedDataParallel's; some bases own a module of this name


class Kind(str, Enum):
    """What a stored tensor is for."""

    LORA_A = "lora_A"
    LORA_B = "lora_B"
    EMBEDDING_A = "lora_embedding_A"
    EMBEDDING_B = "lora_embedding_B"
    MAGNITUDE = "lora_magnitude_vector"
    LORA_BIAS = "lora_B.bias"
    TOKENS = "token_adapter.trainable_tokens_delta"
    BASE_LAYER = "base_layer"
    FULL = "full"
    METHOD = "method"  # a tensor of a PEFT method other than LoRA: ia3_l, hada_w1_a, …
    SHARED = "shared"  # a tensor that all modules of a method share: base_model.vera_A
    RESIDUE = "residue"  # part of a LoRA name glued to another adapter's name: lora_Abar.weight

    __hash__ = str.__hash__  # Enum's is Python code, and indexes by kind are everywhere


LORA_KINDS = frozenset({Kind.LORA_A, Kind.LORA_B, Kind.EMBEDDING_A, Kind.EMBEDDING_B, Kind.MAGNITUDE, Kind.LORA_BIAS})
PAIR_KINDS = frozenset({Kind.LORA_A, Kind.LORA_B, Kind.EMBEDDING_A, Kind.EMBEDDING_B})

_CANONICAL_SUFFIX = {
    Kind.LORA_A: "lora_A.weight",
    Kind.LORA_B: "lora_B.weight",
    Kind.EMBEDDING_A: "lora_embedding_A",
    Kind.EMBEDDING_B: "lora_embedding_B",
    Kind.MAGNITUDE: "lora_magnitude_vector",
    Kind.LORA_BIAS: "lora_B.bias",
    Kind.TOKENS: "token_adapter.trainable_tokens_delta",
}

# Prefixes of the parameters that each PEFT method adds (PEFT: PEFT_TYPE_TO_PREFIX_MAPPING).
METHOD_PREFIXES = {
    "LORA": "lora_",
    "ADALORA": "lora_",
    "IA3": "ia3_",
    "LOHA": "hada_",
    "LOKR": "lokr_",
    "OFT": "oft_",
    "BOFT": "boft_",
    "POLY": "poly_",
    "LN_TUNING": "ln_tuning_",
    "VERA": "vera_lambda_",
    "FOURIERFT": "fourierft_",
    "HRA": "hra_",
    "VBLORA": "vblora_",
    "BONE": "bone_",
    "C3A": "c3a_",
    "RANDLORA": "randlora_",
    "MISS": "miss_",
    "SHIRA": "shira_",
    "ROAD": "road_",
    "DELORA": "delora_",
    "WAVEFT": "waveft_",
    "ADAMSS": "adamss_",
    "BEFT": "beft_",
    "DEFT": "deft_",
    "FROD": "frod_lambda_",
    "GLORA": "glora_",
    "GRALORA": "gralora_",
    "HIRA": "hira_",
    "LILY": "lily_",
    "OSF": "osf_",
    "PEANUT": "peanut_",
    "PSOFT": "psoft_",
    "PVERA": "pvera_lambda_",
    "SUPERTUNING": "supertuning_",
    "TINYLORA": "tinylora_",
    "TRAINABLE_TOKENS": "trainable_tokens_",
    "UNILORA": "unilora_",
    "ADAPTION_PROMPT": "adaption_",
}
PROMPT_TYPES = frozenset({"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "CARTRIDGE"})
_METHOD_TOKENS = tuple(sorted({p for p in METHOD_PREFIXES.values() if p != "lora_"}))
# Tensors of the whole model, directly under ``base_model``, and how many components follow the first one.
_SHARED_TOKENS = {
    **dict.fromkeys(("vera_A", "vera_B", "pvera_A", "pvera_B", "randlora_A", "randlora_B"), 0),
    **dict.fromkeys(("vblora_vector_bank", "unilora_theta_d"), 0),
    **dict.fromkeys(("tinylora_v", "frod_V", "frod_s_indices", "frod_s_size"), 1),
}
# What stands under a part of a method, and is no adapter's name.
_INNER_NAMES = frozenset(
    {"weight", "bias", "vector_a", "vector_b", "U_low", "S_low", "V_low", "Xd", "Xu", "X", "zeros", "module_logits"}
)
# Parts of a method that are modules themselves, and how many components follow the first one in a saved name.
_NESTED_TOKENS = {
    **dict.fromkeys(("oft_R", "oft_embedding_R", "lily_A", "lily_B", "lily_router", "peanut_A", "peanut_B"), 1),
    **dict.fromkeys(("glora_A", "glora_B", "glora_C", "glora_D", "glora_E", "psoft_R", "osf_svd_params"), 1),
    **dict.fromkeys(("gralora_A_general", "gralora_B_general", "poly_router", "ln_tuning_layers"), 1),
    **dict.fromkeys(("supertuning_lora_A", "supertuning_lora_B", "adamss_A", "adamss_B"), 1),
    **dict.fromkeys(("peanut_encoders", "peanut_decoders"), 2),
}
_LORA_TOKENS = frozenset(
    {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "lora_E"}
)


# Whatever may mean something inside a module path; a name without any of it is ordinary.
_WORDS = ("module", "base_", "_orig_mod", "original_", "token_adapter", "lora_")
_SPECIAL = re.compile("|".join(re.escape(word) for word in (*_WORDS, *_METHOD_TOKENS, *_SHARED_TOKENS)))


class Key(NamedTuple):
    """A tensor name, taken apart.

    Attributes:
        name: the name as stored.
        module: module path in the base, wrappers and prefixes removed.
        kind: what the tensor is for.
        prefix: what stands before the module path, as stored (``base_model.model.`` when canonical).
        wrappers: wrapper components that were removed, wherever they stood.
        adapter: adapter name inside the key, if there is one.
        infix: ``modules_to_save`` or ``original_module``, if the key holds it.
        parameter: what follows the module for full, base-layer and method tensors (``weight``, ``dense.bias``).
        suffix: everything after the module path, as stored.
    """

    name: str
    module: str
    kind: Kind
    prefix: str
    wrappers: tuple[str, ...] = ()
    adapter: str | None = None
    infix: str | None = None
    parameter: str = ""
    suffix: str = ""

    @property
    def has_canonical_prefix(self) -> bool:
        """Whether PEFT finds the module: exactly one ``base_model.model.`` in front and no wrapper inside."""
        return self.prefix == (SHARED_PREFIX if self.kind is Kind.SHARED else PREFIX) and not self.wrappers

    @property
    def canonical(self) -> str:
        """The name under which PEFT reads this tensor."""
        if self.kind is Kind.SHARED:
            return SHARED_PREFIX + self.parameter
        return PREFIX + self.module + "." + self.canonical_suffix

    @property
    def canonical_suffix(self) -> str:
        """The canonical part after the module path."""
        if self.kind in _CANONICAL_SUFFIX:
            return _CANONICAL_SUFFIX[self.kind]
        if self.kind is Kind.BASE_LAYER:
            return f"base_layer.{self.parameter}"
        return self.parameter

    @property
    def full_name(self) -> str:
        """For a full tensor: its parameter name in the base, such as ``bert.pooler.dense.weight``."""
        return f"{self.module}.{self.parameter}" if self.module else self.parameter


def parse(name: str, keep: frozenset[str] = frozenset()) -> Key:
    """Take a tensor name apart. Every string has a parse; what nothing explains is a full tensor.

    Args:
        name: tensor name as stored.
        keep: components that look like wrappers but that the base itself owns.
    """
    return _ordinary(name) or _take_apart(name, keep)


def _ordinary(name: str) -> Key | None:
    """The parse of a canonical LoRA name, which nearly all are, without taking it apart; None for any other."""
    if not name.startswith(PREFIX):
        return None
    if name.endswith(".lora_A.weight"):
        kind = Kind.LORA_A
    elif name.endswith(".lora_B.weight"):
        kind = Kind.LORA_B
    else:
        return None
    module = name[len(PREFIX) : -14]
    if not module or _SPECIAL.search(module):
        return None
    return Key(name, module, kind, PREFIX, (), None, None, "", name[-13:])


@lru_cache(maxsize=16384)
def _take_apart(name: str, keep: frozenset[str]) -> Key:
    parts = name.split(".")
    prefix, wrappers, path = _strip(parts, keep)
    if path[0] in _SHARED_TOKENS:
        return _nested_key(name, prefix, wrappers, path, 0, Kind.SHARED, _SHARED_TOKENS[path[0]])
    for index, part in enumerate(path):
        if part in _LORA_TOKENS:
            return _lora_key(name, prefix, wrappers, path, index)
        if part == "token_adapter" and "trainable_tokens_delta" in path[index:]:
            rest = path[index + 2 :]
            return _key(name, prefix, wrappers, path[:index], Kind.TOKENS, path[index:], adapter=_first(rest))
        if part in ("modules_to_save", "original_module") and index + 1 < len(path):
            return _infix_key(name, prefix, wrappers, path, index)
        if part == "base_layer" and index + 1 < len(path):
            return _base_layer_key(name, prefix, wrappers, path, index)
        if part.startswith(("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")):
            return _key(
                name, prefix, wrappers, path[:index], Kind.RESIDUE, path[index:], parameter=".".join(path[index:])
            )
        if part.startswith(_METHOD_TOKENS) or part in _SHARED_TOKENS:
            return _nested_key(name, prefix, wrappers, path, index, Kind.METHOD, _NESTED_TOKENS.get(part, 0))
        if part.startswith("lora_"):
            return _key(
                name, prefix, wrappers, path[:index], Kind.METHOD, path[index:], parameter=".".join(path[index:])
            )
    return _key(name, prefix, wrappers, path[:-1], Kind.FULL, path[-1:], parameter=path[-1] if path else "")


def _first(rest: list[str]) -> str | None:
    return rest[0] if rest else None


def _key(
    name: str,
    prefix: str,
    wrappers: tuple[str, ...],
    module: list[str],
    kind: Kind,
    tail: list[str],
    adapter: str | None = None,
    infix: str | None = None,
    parameter: str = "",
) -> Key:
    return Key(name, ".".join(module), kind, prefix, wrappers, adapter, infix, parameter, ".".join(tail))


def _strip(parts: list[str], keep: frozenset[str]) -> tuple[str, tuple[str, ...], list[str]]:
    """Split off what stands before the module path, and wrappers anywhere."""
    wrappers: list[str] = []
    clean: list[str] = []
    for position, part in enumerate(parts):
        wrapper = (part in WRAPPERS or part == SOFT_WRAPPER) and position < len(parts) - 1
        if wrapper and part not in keep:
            wrappers.append(part)
        else:
            clean.append(part)
    start = _root_end(clean)
    prefix = ".".join(clean[:start]) + "." if start else ""
    return prefix, tuple(wrappers), clean[start:]


def _root_end(parts: list[str]) -> int:
    """Index after the last ``base_model.model`` that starts the name or follows foreign components."""
    end = 0
    for index in range(len(parts) - 2):
        if (parts[index], parts[index + 1]) == _ROOT:
            end = index + 2
    if not end and parts[0] == "base_model" and (len(parts) > 2 or parts[-1] in _SHARED_TOKENS):
        return 1
    if parts[end] == "base_model" and parts[end + 1 :] and parts[end + 1] in _SHARED_TOKENS:
        return end + 1
    return end


def _nested_key(
    name: str, prefix: str, wrappers: tuple[str, ...], path: list[str], index: int, kind: Kind, depth: int
) -> Key:
    """A method's tensor: its name has so many components after the first one, and one more with an adapter name."""
    tail = path[index:]
    kept, adapter = list(tail), None
    if len(tail) == depth + 2:
        # Most adapters' names stand before what is nested; FRoD's projections have them last.
        position = -1 if tail[0].startswith("frod_") else 1
        if tail[position] not in _INNER_NAMES:
            adapter = kept.pop(position)
    return _key(name, prefix, wrappers, path[:index], kind, tail, adapter, parameter=".".join(kept))


def _lora_key(name: str, prefix: str, wrappers: tuple[str, ...], path: list[str], index: int) -> Key:
    token, rest = path[index], path[index + 1 :]
    module, tail = path[:index], path[index:]
    if token == "lora_E":
        return _key(name, prefix, wrappers, module, Kind.METHOD, tail, _first(rest), parameter=".".join(tail))
    kind = Kind(token)
    if token == "lora_magnitude_vector":
        adapter = next((part for part in rest if part != "weight"), None)
        return _key(name, prefix, wrappers, module, kind, tail, adapter)
    if token.startswith("lora_embedding"):
        return _key(name, prefix, wrappers, module, kind, tail, _first(rest))
    if rest[-1:] == ["bias"]:
        kind = Kind.LORA_BIAS if token == "lora_B" else Kind.METHOD
        return _key(name, prefix, wrappers, module, kind, tail, _first(rest[:-1]), parameter=".".join(tail))
    if rest[-1:] == ["weight"]:
        rest = rest[:-1]
    return _key(name, prefix, wrappers, module, kind, tail, _first(rest))


def _infix_key(name: str, prefix: str, wrappers: tuple[str, ...], path: list[str], index: int) -> Key:
    infix, rest = path[index], path[index + 1 :]
    adapter = None
    if infix == "modules_to_save" and len(rest) > 1 and not _is_submodule(rest):
        adapter, rest = rest[0], rest[1:]
    module = path[:index] + rest[:-1]
    return _key(name, prefix, wrappers, module, Kind.FULL, path[index:], adapter, infix, rest[-1])


def _is_submodule(rest: list[str]) -> bool:
    """Whether ``modules_to_save.<rest>`` names a part of a container at once, without an adapter name."""
    return rest[0] in ("dense", "out_proj", "dense1", "dense2", "linear", "fc", "0", "1", "2", "3", "LayerNorm", "norm")


def _base_layer_key(name: str, prefix: str, wrappers: tuple[str, ...], path: list[str], index: int) -> Key:
    rest = ".".join(path[index + 1 :])
    return _key(name, prefix, wrappers, path[:index], Kind.BASE_LAYER, path[index:], parameter=rest)
