"""Tensors of the methods that PEFT got with 0.15 and later: names and shapes, as the layer of each makes them.

Sources: ``tuners/<method>/layer.py`` and ``model.py`` of PEFT 0.15 to 0.21.2; measured as those of
:mod:`adapterlint.model.methodparts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite

from adapterlint.model.methods import (
    Layer,
    Options,
    Parts,
    RefusedLayerError,
    Size,
    UntoldLayerError,
    ceil_over,
    least,
    most,
    over,
    plus,
    times,
)

_DEEPEST = 100  # pairs of matrices that a PEANuT is believed to have


def pvera(options: Options, layer: Layer) -> Parts:
    """Two vectors per module; the one over the rank holds mean and variance."""
    return {"pvera_lambda_b": (layer.outputs,), "pvera_lambda_d": (times(options.size("r"), 2),)}


def pvera_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    """The two random projections of the whole model."""
    if not options("save_projection"):
        return {}
    r, inputs, outputs = options.size("r"), most(*(x.inputs for x in layers)), most(*(x.outputs for x in layers))
    return {"base_model.pvera_A": (times(r, 2), inputs), "base_model.pvera_B": (outputs, r)}


def pvera_needs(options: Options) -> tuple[str, str] | None:
    """What PEFT raises when the projections should be stored and are not."""
    if not options("save_projection"):
        return None
    text = "ValueError: Specified to load pvera_A and pvera_B from state dictionary however they were not present!"
    return "base_model.pvera_A", text


def _bases(options: Options, layers: Sequence[Layer]) -> tuple[Size, Size, Size]:
    """RandLoRA's smaller and larger dimension over the layers, and how many bases span the smaller one."""
    inputs, outputs = most(*(x.inputs for x in layers)), most(*(x.outputs for x in layers))
    small, large = least(inputs, outputs), most(inputs, outputs)
    return small, large, ceil_over(small, options.size("r"))


def randlora(options: Options, layer: Layer) -> Parts:
    """Two trained matrices; with ``save_projection`` PEFT also stores the projections for every module."""
    r = options.size("r")
    small, _, count = _bases(options, [layer])
    parts: Parts = {"randlora_lambda": (r, count), "randlora_gamma": (count, small)}
    if options("save_projection"):
        small, large, count = _bases(options, options.layers)
        parts |= {"randlora_A": (r, 1, small), "randlora_B": (large, count, r)}
    return parts


def randlora_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    """The two random projections of the whole model."""
    if not options("save_projection"):
        return {}
    r = options.size("r")
    small, large, count = _bases(options, layers)
    return {"base_model.randlora_A": (r, 1, small), "base_model.randlora_B": (large, count, r)}


def shira(options: Options, layer: Layer) -> Parts:
    """Single weights and where they stand: as many as LoRA of this rank would have."""
    count, area = times(options.size("r"), plus(layer.inputs, layer.outputs)), times(layer.inputs, layer.outputs)
    if count is not None and area is not None and count > area:
        raise RefusedLayerError(f"ValueError: The set rank {options('r')} results in more shira params than the total")
    return {"shira_weight": (count,), "shira_indices": (2, count)}


def c3a(options: Options, layer: Layer) -> Parts:
    """Circular kernels, block by block."""
    block = options.sized("block_size_pattern", "block_size", layer.module)
    refusal = "ValueError: The block size should be a factor of the {} size."
    outputs = over(layer.outputs, block, refusal.replace("{}", "output"))
    return {"c3a_kernel": (outputs, over(layer.inputs, block, refusal.replace("{}", "input")), block)}


def road(options: Options, layer: Layer) -> Parts:
    """Angles and lengths of two-dimensional rotations."""
    outputs = layer.outputs
    over(outputs, options.size("group_size"), "ValueError: The out_features of the base layer must be divisible by")
    variant = options("variant")
    size = over(outputs, 2) if variant == "road_1" else times(outputs, 2) if variant == "road_4" else outputs
    return {"road_theta": (size,), "road_alpha": (size,)}


def delora(options: Options, layer: Layer) -> Parts:
    """LoRA's matrices, their strength, and the norms of the base's columns."""
    r = options.sized("rank_pattern", "r", layer.module)
    return {
        "delora_A": (r, layer.inputs),
        "delora_B": (layer.outputs, r),
        "delora_lambda": (1,),
        "delora_w_norm": (layer.inputs,),
    }


def waveft(options: Options, layer: Layer) -> Parts:
    """The trained coefficients; in proportion to the layer's size if so configured."""
    count = options.sized("n_frequency_pattern", "n_frequency", layer.module)
    if options("proportional_parameters"):
        areas = [times(other.inputs, other.outputs) for other in options.layers]
        own, total = times(layer.inputs, layer.outputs), plus(*areas)
        budget = times(options.size("n_frequency"), len(areas))
        count = None if None in (own, total, budget) else max(1, round((own or 0) / (total or 1) * (budget or 0)))
    return {"waveft_spectrum": (count,)}


def osf(options: Options, layer: Layer) -> Parts:
    """The small singular values and their vectors; the large ones stay the base's."""
    if layer.conv1d or layer.kind not in ("linear", ""):
        raise UntoldLayerError
    least_side = least(layer.inputs, layer.outputs)
    rank = options("effective_rank")
    patterns = options("rank_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if re.search(pattern, layer.module):
            rank = value
            break
    low = None
    if least_side is not None and (rank is None or (isinstance(rank, (int, float)) and isfinite(rank))):
        part = least_side // 2 if rank is None else rank
        kept = int(least_side * part) if isinstance(part, float) and 0 < part <= 1 else int(part)
        low = least_side - max(min(least_side, kept), 0)
    stem = "osf_svd_params"
    return {f"{stem}.U_low": (layer.outputs, low), f"{stem}.S_low": (low,), f"{stem}.V_low": (low, layer.inputs)}


def gralora(options: Options, layer: Layer) -> Parts:
    """LoRA by blocks, and a plain pair beside it if so configured."""
    r, blocks, plain = options.size("r"), options.size("gralora_k"), options.size("hybrid_r")
    inputs = over(layer.inputs, blocks, "ValueError: in_features should be divisible by gralora_k, but got {} and {}")
    outputs = over(
        layer.outputs, blocks, "ValueError: out_features should be divisible by gralora_k, but got {} and {}"
    )
    parts: Parts = {"gralora_A": (blocks, inputs, r), "gralora_B": (blocks, r, outputs)}
    if plain is not None:
        parts |= {"gralora_A_general.weight": (plain, layer.inputs), "gralora_B_general.weight": (layer.outputs, plain)}
    return parts


def tinylora(options: Options, layer: Layer) -> Parts:
    """Frozen factors of the base's weight and random projections, all of which PEFT can work out again."""
    if layer.kind == "embedding":
        raise UntoldLayerError
    r, u = options.size("r"), options.size("u")
    side = least(layer.inputs, layer.outputs)
    r = r if side is None else least(r, side)
    parts: Parts = {"tinylora_A": (r, layer.inputs), "tinylora_B": (layer.outputs, r)}
    if options("save_projection"):
        parts["tinylora_P"] = (u, r, r)
    return parts


def tinylora_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    """The trained vectors, one for each group of modules."""
    tying = options.number("weight_tying")
    if tying is None:
        raise UntoldLayerError
    groups = max(1, round(len(layers) * (1.0 - tying)))
    size = max(1, len(layers) // groups)
    used = {min(number // size, groups - 1) for number in range(len(layers))}
    return {f"base_model.tinylora_v.{group}": (options.size("u"),) for group in sorted(used)}


def psoft(options: Options, layer: Layer) -> Parts:
    """A rotation of rank r, with a vector before and after it."""
    r = options.size("r")
    upper = None if r is None else r * (r - 1) // 2
    parts: Parts = {"psoft_R.weight": (upper,) if options("psoft_orth") else (r, r)}
    parts |= {f"psoft_R.vector_{side}": (r,) for side in ("a", "b") if options(f"psoft_mag_{side}")}
    return parts


def peanut(options: Options, layer: Layer) -> Parts:
    """A small network on the weights: first and last matrix, and pairs of square ones between."""
    r, depth = options.size("r"), options.size("depth") or 0
    if depth > _DEEPEST:
        raise UntoldLayerError
    parts: Parts = {"peanut_A.weight": (r, layer.outputs), "peanut_B.weight": (layer.outputs, r)}
    for side in ("encoders", "decoders"):
        parts |= {f"peanut_{side}.{number}.weight": (r, r) for number in range(depth)}
    return parts


def lily(options: Options, layer: Layer) -> Parts:
    """Matrices that layers share, stored for each of them, and a router of its own."""
    r, count = options.size("r"), options.size("num_B")
    return {
        "lily_A.weight": (r, layer.inputs),
        "lily_B.weight": (times(r, count), layer.outputs),
        "lily_router.weight": (count, r),
    }


def beft(options: Options, layer: Layer) -> Parts:
    """A bias."""
    return {"beft_bias": (1, layer.outputs)}


def deft(options: Options, layer: Layer) -> Parts:
    """A projection, and what is put in its place."""
    r = options.size("r") if layer.outputs is None else least(options.size("r"), layer.outputs)
    parts: Parts = {"deft_P": (layer.outputs, r)}
    return parts if options("para") else {**parts, "deft_R": (r, layer.inputs)}


def _sparse(options: Options, inputs: Size) -> Size:
    rate = options.number("sparse_rate")
    if inputs is None or rate is None:
        return None
    room = inputs * inputs - inputs
    count = min(int(inputs * inputs * rate), room)
    return max(1, count) if rate > 0 and room else count


def frod(options: Options, layer: Layer) -> Parts:
    """Diagonal and sparse coefficients over a basis that modules of one role share."""
    return {"frod_lambda_l": (layer.inputs,), "frod_lambda_s_values": (_sparse(options, layer.inputs),)}


def frod_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    """The bases, by the role of the module."""
    parts: Parts = {}
    if options("save_projection"):
        for layer in layers:
            role, inputs = _role(layer.module), layer.inputs
            parts[f"base_model.frod_V.{role}"] = (inputs, inputs)
            parts[f"base_model.frod_s_indices.{role}"] = (2, _sparse(options, inputs))
            parts[f"base_model.frod_s_size.{role}"] = (2,)
    return parts


def frod_needs(options: Options) -> tuple[str, str] | None:
    """What PEFT raises when the bases should be stored and none is."""
    if not options("save_projection"):
        return None
    text = "ValueError: Specified to load FRoD projection tensors from state dictionary however they were not present."
    return "base_model.frod_", text


def _role(module: str) -> str:
    """FRoD's category of a module: its last two names, without a number."""
    names = module.split(".")
    if len(names) == 1 or names[-2].isdigit():
        return names[-1]
    return "attention_output" if names[-3:] == ["attention", "output", "dense"] else f"{names[-2]}_{names[-1]}"


def glora(options: Options, layer: Layer) -> Parts:
    """Five terms, each a pair, a vector, a number or absent; absent ones are stored as zeros."""
    r = options.size("r")
    # The terms of the bias are made only where the layer has one; without a base the file's own names tell.
    biased = "bias" in layer.own if layer.own else not {"glora_C.zeros", "glora_D.zeros"} <= layer.stored.keys()
    kinds = dict.fromkeys("AB", options("config_A_B"))
    for letters, kind in (("C", options("config_C")), ("DE", options("config_D_E"))):
        kinds |= dict.fromkeys(letters, kind if biased else "none")
    rows: dict[str, tuple[Size, ...]] = {
        **dict.fromkeys("AB", (layer.outputs, layer.inputs)),
        "C": (layer.inputs, 1),
        **dict.fromkeys("DE", (layer.outputs,)),
    }
    parts: Parts = {}
    for letter, kind in kinds.items():
        stem, shape = f"glora_{letter}", rows[letter]
        if kind == "lora" and len(shape) == 2:
            parts |= {f"{stem}.Xd": (shape[0], r), f"{stem}.Xu": (r, shape[1])}
        elif kind == "vector":
            parts[f"{stem}.X"] = shape if letter in "DE" else (shape[0], 1)
        elif kind == "constant" and letter != "C":
            parts[f"{stem}.X"] = (1,)
        else:
            parts[f"{stem}.zeros"] = shape
    return parts


def hira(options: Options, layer: Layer) -> Parts:
    """A pair that multiplies the base's weight."""
    if layer.kind == "conv":
        raise UntoldLayerError
    r = options.size("r")
    if options.sized("rank_pattern", "r", layer.module) != r:
        r = None  # 0.20 and 0.21 work the pattern's rank out, and then do not use it
    stem = "hira_embedding_" if layer.kind == "embedding" or "hira_embedding_A" in layer.stored else "hira_"
    return {f"{stem}A": (r, layer.inputs), f"{stem}B": (layer.outputs, r)}


def unilora(options: Options, layer: Layer) -> Parts:
    """Which entries of the shared vector a module takes, if they are stored at all."""
    if not options("save_indices"):
        return {}
    r = options.size("r")
    down, up = (r, layer.inputs), (layer.outputs, r)
    return {
        "unilora_indices_A": down,
        "unilora_indices_B": up,
        "unilora_scales_A": down,
        "unilora_scales_B": up,
    }


def unilora_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    """The one trained vector."""
    return {"base_model.unilora_theta_d": (options.size("theta_d_length"),)}


def supertuning(options: Options, layer: Layer) -> Parts:
    """Single weights, where they stand, and a LoRA pair if so configured."""
    sparsity, area = options.number("sparsity"), times(layer.inputs, layer.outputs)
    count = None if sparsity is None or area is None else int(area * (1 - sparsity))
    parts: Parts = {"supertuning_values": (count,)}
    if options("save_precomputed_indices"):
        parts["supertuning_indices"] = (count,)
    r = options.size("r")
    if r is not None:
        parts |= {"supertuning_lora_A.weight": (r, layer.inputs), "supertuning_lora_B.weight": (layer.outputs, r)}
    return parts
