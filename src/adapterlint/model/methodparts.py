"""Tensors of the methods that PEFT had up to 0.14: names and shapes, as the layer of each makes them.

Sources: ``tuners/<method>/layer.py`` and ``model.py`` of PEFT 0.4.0 to 0.21.2; names, shapes and what happens without
them were measured on every release that has the method (``tests/methods``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from adapterlint.model.adapter import Adapter
from adapterlint.model.methoddefaults import feedforward_by_default
from adapterlint.model.methods import (
    LARGEST,
    Layer,
    Options,
    Parts,
    PartsOf,
    RefusedLayerError,
    Size,
    UntoldLayerError,
    ceil_over,
    most,
    over,
    times,
)
from adapterlint.model.patterns import compiled


def is_feedforward(options: Options, module: str) -> bool | None:
    """Whether IA3 scales the inputs of a module; None when the base's type would have to say."""
    names = options("feedforward_modules")
    if names is None and options.base is not None:
        names = feedforward_by_default(options.base.model_type)
    if isinstance(names, str):
        pattern = compiled(names)
        return None if pattern is None else pattern.fullmatch(module) is not None
    if not isinstance(names, (list, tuple)):
        return None
    return any(isinstance(name, str) and module.endswith(name) for name in names)


def ia3(options: Options, layer: Layer) -> Parts:
    """One vector per module, over its inputs or its outputs."""
    forward = is_feedforward(options, layer.module)
    if layer.kind == "conv":
        raise UntoldLayerError
    if forward is None:
        return {"ia3_l": (None, None)}
    return {"ia3_l": (1, layer.inputs) if forward else (layer.outputs, 1)}


def loha(options: Options, layer: Layer) -> Parts:
    """Two pairs of low-rank factors."""
    r = options.sized("rank_pattern", "r", layer.module)
    if layer.kind == "conv" or {"hada_t1", "hada_t2"} & layer.stored.keys():
        raise UntoldLayerError
    down, up = (layer.outputs, r), (r, layer.inputs)
    return {"hada_w1_a": down, "hada_w1_b": up, "hada_w2_a": down, "hada_w2_b": up}


def _factors(size: Size, factor: Any) -> tuple[Size, Size]:
    """LoKr's split of a dimension into two factors, the first at most ``factor`` (-1: near the square root)."""
    if size is None or size > LARGEST or not isinstance(factor, int):
        return None, None
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    limit = size if factor == -1 else factor
    first, second = 1, size
    total = first + second
    while first < second:
        following = first + 1
        while size % following:
            following += 1
        if following + size // following > total or following > limit:
            break
        first, second = following, size // following
    return min(first, second), max(first, second)


def lokr(options: Options, layer: Layer) -> Parts:
    """Two Kronecker factors, each whole or as a pair."""
    if layer.kind == "conv" or "lokr_t2" in layer.stored:
        raise UntoldLayerError
    r, factor = options.sized("rank_pattern", "r", layer.module), options("decompose_factor")
    (rows1, rows2), (columns1, columns2) = _factors(layer.outputs, factor), _factors(layer.inputs, factor)
    big1, big2 = most(rows1, columns1), most(rows2, columns2)
    if r is None or big1 is None or big2 is None:
        whole1, whole2 = "lokr_w1" in layer.stored, "lokr_w2" in layer.stored
    else:
        whole1 = not (options("decompose_both") and r < big1 / 2)
        whole2 = r >= big2 / 2
    first = {"lokr_w1": (rows1, columns1)} if whole1 else {"lokr_w1_a": (rows1, r), "lokr_w1_b": (r, columns1)}
    second = {"lokr_w2": (rows2, columns2)} if whole2 else {"lokr_w2_a": (rows2, r), "lokr_w2_b": (r, columns2)}
    return {**first, **second}


def oft_generation(adapter: Adapter) -> int:
    """Which layout an OFT file has: 1 up to 0.13, 2 of 0.14 and 0.15, 3 since 0.16 (see AL113)."""
    if "oft_block_size" not in (adapter.config or {}):
        return 1
    old = any(part in ("oft_r", "oft_s") for name in adapter.tensors for part in name.split("."))
    return 2 if old else 3


def _adjusted(size: int, divisor: int) -> int:
    """The divisor of ``size`` that PEFT takes for the wished one: the nearest, the smaller of two."""
    if divisor >= size:
        return size
    up = down = divisor
    while size % up:
        up += 1
    while size % down:
        down -= 1
    return down if divisor - down <= up - divisor else up


def oft(options: Options, layer: Layer) -> Parts:
    """One rotation per block, in the layout of the file's generation."""
    if layer.kind == "conv":
        raise UntoldLayerError
    shared, r, block = options("block_share") is True, options.size("r"), options.size("oft_block_size")
    generation = oft_generation(options.adapter)
    if generation == 1:
        width = ceil_over(layer.outputs, r)
        return {"oft_r": (1 if shared else r, width, width)}
    embedding = layer.kind == "embedding" or "oft_embedding_R.weight" in layer.stored
    features = layer.outputs if embedding else layer.inputs
    if (r is None) == (block is None):
        raise RefusedLayerError(
            f"ValueError: You can only specify either r ({options('r')}) or oft_block_size "
            f"({options('oft_block_size')}), but not both simultaneously"
        )
    if features is None or features > LARGEST:
        r = block = None  # PEFT takes the nearest divisor of the features
    elif block is not None:
        block = _adjusted(features, block)
        r = features // block
    elif r is not None:
        r = _adjusted(features, r)
        block = features // r
    if generation == 2:
        return {"oft_r": (1 if shared else r, block, block), "oft_s": (layer.outputs, 1)}
    upper = None if block is None else block * (block - 1) // 2
    name = "oft_embedding_R.weight" if embedding else "oft_R.weight"
    return {name: (1 if shared else r, upper)}


def boft(options: Options, layer: Layer) -> Parts:
    """Butterfly blocks and a scale per output."""
    if layer.kind == "conv":
        raise UntoldLayerError
    block, number = options.size("boft_block_size"), options.size("boft_block_num")
    if (block is None) == (number is None):
        raise RefusedLayerError(
            f"ValueError: You can only specify either boft_block_size ({options('boft_block_size')}) or boft_block_num "
            f"({options('boft_block_num')}), but not both simultaneously, because boft_block_size x boft_block_num "
            "== in_features."
        )
    if number is None:
        number = over(layer.inputs, block, "ValueError: in_features ({}) must be divisible by boft_block_size ({})!")
    elif block is None:
        block = over(layer.inputs, number, "ValueError: in_features ({}) must be divisible by boft_block_num ({})!")
    # Without its CUDA extension PEFT makes one butterfly factor, whatever the config says.
    factor, stored = options.size("boft_n_butterfly_factor"), layer.stored.get("boft_R", ())
    if factor != 1 and stored[:1] == (factor,):
        raise UntoldLayerError
    return {"boft_R": (1, number, block, block), "boft_s": (layer.outputs, 1)}


def adalora_rank(options: Options, module: str) -> Size:
    """The rank that AdaLoRA gives a module: what its rank pattern leaves of ``init_r``."""
    pattern = options("rank_pattern")
    for name, mask in pattern.items() if isinstance(pattern, dict) else ():
        if isinstance(mask, list) and re.sub(r"\.lora_E(\.[^.]+)?$", "", name) == module:
            return sum(bool(kept) for kept in mask)
    return options.size("init_r")


def adalora(options: Options, layer: Layer) -> Parts:
    """The two LoRA matrices and their singular values, without ``.weight``."""
    r = adalora_rank(options, layer.module)
    return {"lora_A": (r, layer.inputs), "lora_B": (layer.outputs, r), "lora_E": (r, 1)}


def layer_norm(options: Options, layer: Layer) -> Parts:
    """A copy of the layer's own parameters."""
    if not layer.own:
        if layer.kind:
            raise UntoldLayerError  # a container, or what the checkpoint lacks
        names = layer.stored or {"ln_tuning_layers.weight"}
        return {name: (None,) for name in names if name.startswith("ln_tuning_layers.")}
    return {f"ln_tuning_layers.{name}": shape for name, shape in layer.own.items()}


def tokens(options: Options, layer: Layer) -> Parts:
    """The new rows of an embedding."""
    indices = options("token_indices")
    return {"trainable_tokens_delta": (len(indices) if isinstance(indices, list) else None, layer.outputs)}


def vera(options: Options, layer: Layer) -> Parts:
    """Two vectors per module."""
    return {"vera_lambda_b": (layer.outputs,), "vera_lambda_d": (options.size("r"),)}


def vera_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    """The two random projections of the whole model, as large as the largest target."""
    if not options("save_projection"):
        return {}
    r, inputs, outputs = options.size("r"), most(*(x.inputs for x in layers)), most(*(x.outputs for x in layers))
    return {"base_model.vera_A": (r, inputs), "base_model.vera_B": (outputs, r)}


def vera_needs(options: Options) -> tuple[str, str] | None:
    """What PEFT raises when VeRA's projections should be stored and are not; it looks for the first one only."""
    if not options("save_projection"):
        return None
    text = "ValueError: Specified to load vera_A and vera_B from state dictionary however they were not present!"
    return "base_model.vera_A", text


def fourier(options: Options, layer: Layer) -> Parts:
    """The trained coefficients."""
    count, area = options.sized("n_frequency_pattern", "n_frequency", layer.module), times(layer.inputs, layer.outputs)
    if count is not None and area is not None and count > area:
        raise RefusedLayerError(
            "ValueError: `n_frequency` should be less than or equal to the product of the input and output dimensions "
            f"but the value passed is {count} and the product is {area}"
        )
    return {"fourierft_spectrum": (count,)}


def hra(options: Options, layer: Layer) -> Parts:
    """The Householder vectors."""
    if layer.kind == "conv":
        raise UntoldLayerError
    return {"hra_u": (layer.inputs, options.size("r"))}


def vblora(options: Options, layer: Layer) -> Parts:
    """Which vectors of the bank a module mixes: logits, or the chosen ones only."""
    r, vectors, length = options.size("r"), options.size("num_vectors"), options.size("vector_length")
    a = over(layer.inputs, length, "ValueError: `in_features` {} must be divisible by `vector_length` {}")
    b = over(layer.outputs, length, "ValueError: `out_features` {} must be divisible by `vector_length` {}")
    if not options("save_only_topk_weights") or "vblora_logits_A" in layer.stored:
        return {"vblora_logits_A": (r, a, vectors), "vblora_logits_B": (b, r, vectors)}
    top = options.size("topk")
    fewer = None if top is None else top - 1
    return {
        "vblora_logits_A_topk_indices": (r, a, top),
        "vblora_logits_A_topk_weights": (r, a, fewer),
        "vblora_logits_B_topk_indices": (b, r, top),
        "vblora_logits_B_topk_weights": (b, r, fewer),
    }


def vblora_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    """The vector bank."""
    return {"base_model.vblora_vector_bank": (options.size("num_vectors"), options.size("vector_length"))}


def bone(name: str) -> PartsOf:
    """Blocks of Bone and of MiSS, which is Bone under another name and with one more way to start."""

    def parts(options: Options, layer: Layer) -> Parts:
        r, start = options.size("r"), options("init_weights")
        if start == "bat":
            refusal = "ValueError: The weight matrix must be fully divisible into [r, r] blocks."
            over(layer.inputs, r, refusal)
            return {name: (over(layer.outputs, r, refusal), r, r)}
        return {name: (r, options.size("mini_r") if start == "mini" else layer.outputs)}

    return parts


def poly(options: Options, layer: Layer) -> Parts:
    """The skills' LoRA matrices and the router."""
    splits, skills, r = options.size("n_splits"), options.size("n_skills"), options.size("r")
    return {
        "poly_lora_A": (splits, skills, over(layer.inputs, splits), r),
        "poly_lora_B": (splits, skills, r, over(layer.outputs, splits)),
        "poly_router.module_logits": (options.size("n_tasks"), times(splits, skills)),
    }
