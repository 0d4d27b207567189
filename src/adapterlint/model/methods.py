"""What the files of PEFT's methods other than LoRA hold: names and shapes, by module and shared.

A table entry says which tensors a method makes for a layer, given the config: what PEFT looks for in the file when it
loads one. Sources: ``tuners/<method>/layer.py`` and ``model.py`` of PEFT 0.4.0 to 0.21.2; names, shapes and what
happens without them were measured on the releases that have the method (``tests/methods``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from adapterlint.model import peft, schema
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.defaults import default_feedforward
from adapterlint.model.tensor import FLOAT_DTYPES

Size: TypeAlias = int | None
Shape: TypeAlias = tuple[Size, ...]
"""A shape; None stands for a size that config and base do not tell."""

Parts: TypeAlias = dict[str, Shape]


class RefusedLayer(Exception):
    """PEFT refuses to make the layer, with this exception text; raised by the tables, caught by their user."""


class UntoldLayer(Exception):
    """What PEFT makes of this layer is not in the tables; raised by the tables, caught by their user."""


class Layer(NamedTuple):
    """A layer of the base, as far as its header tells.

    Attributes:
        module: module path.
        kind: ``linear``, ``embedding``, ``conv`` or ``norm``; empty when it is not known.
        inputs: input features (rows of an embedding); None when not known.
        outputs: output features (columns of an embedding).
        own: its parameters' shapes by name.
        conv1d: a GPT-2 style linear, whose weight is stored (inputs, outputs).
        stored: names of the parts that the file has for it.
    """

    module: str
    kind: str = ""
    inputs: Size = None
    outputs: Size = None
    own: dict[str, tuple[int, ...]] = {}
    conv1d: bool = False
    stored: frozenset[str] = frozenset()


class Options:
    """The config of an adapter with PEFT's defaults filled in."""

    def __init__(self, adapter: Adapter, base: Base | None = None) -> None:
        self.adapter = adapter
        self.base = base
        self._type = schema.config_type(adapter.peft_type)

    def __call__(self, name: str) -> Any:
        """The value of an option; the newest release's default when the file leaves it out."""
        if name in (self.adapter.config or {}):
            return self.adapter.get(name)
        stretches = self._type.fields.get(name) if self._type else None
        return schema.default_in(stretches, None) if stretches else None

    def size(self, name: str) -> Size:
        """An option that is a number of something; None when it is no positive integer."""
        value = self(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def sized(self, field: str, name: str, module: str) -> Size:
        """The same, with a pattern field that may give a module another value."""
        value = peft.by_pattern(self.adapter, field, module, self(name))
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


PartsOf: TypeAlias = Callable[[Options, Layer], Parts]
SharedOf: TypeAlias = Callable[[Options, Sequence[Layer]], Parts]


@dataclass(frozen=True)
class Method:
    """One PEFT method.

    Attributes:
        parts: the tensors that it makes for a layer, by name.
        shared: the tensors that it makes once for the whole model, by name as stored.
        kinds: kinds of layers that it takes; PEFT raises on others.
        derived: parts that PEFT works out again when the file lacks them.
        idle: whether a layer that got no tensors does nothing.
        needed: the exception when the shared tensors are not in the file.
        prompt: it changes no layer and learns a prompt.
    """

    parts: PartsOf
    shared: SharedOf = lambda options, layers: {}
    kinds: frozenset[str] = frozenset({"linear", "conv1d"})
    derived: frozenset[str] = frozenset()
    idle: Callable[[Options], bool] = lambda options: True
    needed: Callable[[Options], str | None] = lambda options: None
    prompt: bool = False


def layer_of(base: Base | None, module: str, stored: frozenset[str] = frozenset()) -> Layer:
    """What the base's headers say of a module; sizes are unknown without a base, and for packed weights."""
    if base is None:
        return Layer(module, stored=stored)
    kind = base.kind(module)
    own = {name: tensor.shape for name, tensor in base.modules.get(module, {}).items()}
    weight = base.modules.get(module, {}).get("weight")
    if weight is None and module in base.tied_heads:
        weight = next(iter(base.under(module).values()), None)
    if weight is None or weight.dtype not in FLOAT_DTYPES or len(weight.shape) < 2:
        return Layer(module, kind, None, None, own, stored=stored)
    rows, columns = weight.shape[:2]
    if kind == "embedding":
        return Layer(module, kind, rows, columns, own, stored=stored)
    conv1d = base.is_conv1d(module)
    return Layer(module, kind, *((rows, columns) if conv1d else (columns, rows)), own, conv1d, stored)


# -- arithmetic with unknown sizes ---------------------------------------------------------------------------------


def times(*sizes: Size) -> Size:
    """The product, or None when a factor is unknown."""
    product = 1
    for size in sizes:
        if size is None:
            return None
        product *= size
    return product


def over(size: Size, divisor: Size, refusal: str | None = None) -> Size:
    """The whole quotient, or None when either is unknown.

    Raises:
        RefusedLayer: the division leaves a rest and PEFT refuses that.
    """
    if size is None or divisor is None:
        return None
    if refusal is not None and size % divisor:
        raise RefusedLayer(refusal.format(size, divisor))
    return size // divisor


def ceil_over(size: Size, divisor: Size) -> Size:
    """The quotient rounded up, or None when either is unknown."""
    return None if size is None or divisor is None else -(-size // divisor)


def least(*sizes: Size) -> Size:
    """The smallest, or None when one is unknown."""
    return None if None in sizes else min(size for size in sizes if size is not None)


def most(*sizes: Size) -> Size:
    """The largest, or None when one is unknown."""
    return None if None in sizes or not sizes else max(size for size in sizes if size is not None)


def fits(stored: tuple[int, ...], expected: Shape) -> bool:
    """Whether a stored shape can be the expected one."""
    return len(stored) == len(expected) and all(b is None or a == b for a, b in zip(stored, expected, strict=True))


# -- the methods of PEFT 0.4 to 0.14 -------------------------------------------------------------------------------


def is_feedforward(options: Options, module: str) -> bool | None:
    """Whether IA3 scales the inputs of a module; None when the base's type would have to say."""
    names = options("feedforward_modules")
    if names is None and options("target_modules") is None and options.base is not None:
        names = default_feedforward(options.base.model_type)
    if isinstance(names, str):
        try:
            return re.fullmatch(names, module) is not None
        except re.error:
            return None
    if not isinstance(names, (list, tuple)):
        return None
    return any(isinstance(name, str) and module.endswith(name) for name in names)


def _ia3(options: Options, layer: Layer) -> Parts:
    forward = is_feedforward(options, layer.module)
    if layer.kind == "conv":
        raise UntoldLayer
    if forward is None:
        return {"ia3_l": (None, None)}
    return {"ia3_l": (1, layer.inputs) if forward else (layer.outputs, 1)}


def _loha(options: Options, layer: Layer) -> Parts:
    r = options.sized("rank_pattern", "r", layer.module)
    if layer.kind == "conv" or {"hada_t1", "hada_t2"} & layer.stored:
        raise UntoldLayer
    down, up = (layer.outputs, r), (r, layer.inputs)
    return {"hada_w1_a": down, "hada_w1_b": up, "hada_w2_a": down, "hada_w2_b": up}


def _factors(size: Size, factor: Any) -> tuple[Size, Size]:
    """LoKr's split of a dimension into two factors, the first at most ``factor`` (-1: near the square root)."""
    if size is None or not isinstance(factor, int):
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


def _lokr(options: Options, layer: Layer) -> Parts:
    if layer.kind == "conv" or "lokr_t2" in layer.stored:
        raise UntoldLayer
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
    """The divisor of ``size`` that PEFT takes when the wished one leaves a rest: the nearest, the smaller of two."""
    if divisor <= size and size % divisor == 0:
        return divisor
    up = divisor
    while up <= size and size % up:
        up += 1
    down = min(divisor, size)
    while down > 1 and size % down:
        down -= 1
    return down if divisor - down <= up - divisor or up > size else up


def _oft(options: Options, layer: Layer) -> Parts:
    if layer.kind == "conv":
        raise UntoldLayer
    shared, r, block = options("block_share") is True, options.size("r"), options.size("oft_block_size")
    generation = oft_generation(options.adapter)
    if generation == 1:
        width = ceil_over(layer.outputs, r)
        return {"oft_r": (1 if shared else r, width, width)}
    features = layer.outputs if layer.kind == "embedding" else layer.inputs
    if (r is None) == (block is None):
        raise RefusedLayer("ValueError: You can only specify either r")
    if features is not None:
        block, r = (_adjusted(features, block), None) if block else (None, _adjusted(features, r or 1))
        block, r = (block, features // block) if block else (features // (r or 1), r)
    if generation == 2:
        return {"oft_r": (1 if shared else r, block, block), "oft_s": (layer.outputs, 1)}
    upper = None if block is None else block * (block - 1) // 2
    name = "oft_embedding_R.weight" if layer.kind == "embedding" else "oft_R.weight"
    return {name: (1 if shared else r, upper)}


def _boft(options: Options, layer: Layer) -> Parts:
    if layer.kind == "conv":
        raise UntoldLayer
    block, number = options.size("boft_block_size"), options.size("boft_block_num")
    if number is None:
        number = over(layer.inputs, block, "ValueError: in_features ({}) must be divisible by boft_block_size ({})!")
    elif block is None:
        block = over(layer.inputs, number, "ValueError: in_features ({}) must be divisible by boft_block_num ({})!")
    # Without its CUDA extension PEFT makes one butterfly factor whatever the config says.
    factor = 1 if options.size("boft_n_butterfly_factor") == 1 else None
    return {"boft_R": (factor, number, block, block), "boft_s": (layer.outputs, 1)}


def adalora_rank(options: Options, module: str) -> Size:
    """The rank that AdaLoRA gives a module: what its rank pattern leaves of ``init_r``."""
    pattern = options("rank_pattern")
    for name, mask in pattern.items() if isinstance(pattern, dict) else ():
        if isinstance(mask, list) and re.sub(r"\.lora_E(\.[^.]+)?$", "", name) == module:
            return sum(bool(kept) for kept in mask)
    return options.size("init_r")


def _adalora(options: Options, layer: Layer) -> Parts:
    r = adalora_rank(options, layer.module)
    return {"lora_A": (r, layer.inputs), "lora_B": (layer.outputs, r), "lora_E": (r, 1)}


def _layer_norm(options: Options, layer: Layer) -> Parts:
    if not layer.own:
        if layer.kind:
            raise UntoldLayer  # a container, or what the checkpoint lacks
        names = layer.stored or {"ln_tuning_layers.weight"}
        return {name: (None,) for name in names if name.startswith("ln_tuning_layers.")}
    return {f"ln_tuning_layers.{name}": shape for name, shape in layer.own.items()}


def _tokens(options: Options, layer: Layer) -> Parts:
    indices = options("token_indices")
    return {"trainable_tokens_delta": (len(indices) if isinstance(indices, list) else None, layer.outputs)}


def _vera(options: Options, layer: Layer) -> Parts:
    return {"vera_lambda_b": (layer.outputs,), "vera_lambda_d": (options.size("r"),)}


def _vera_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    if not options("save_projection"):
        return {}
    r, inputs, outputs = options.size("r"), most(*(x.inputs for x in layers)), most(*(x.outputs for x in layers))
    return {"base_model.vera_A": (r, inputs), "base_model.vera_B": (outputs, r)}


def vera_needs(options: Options) -> str | None:
    """What PEFT raises when VeRA's projections should be stored and are not."""
    if not options("save_projection"):
        return None
    return "ValueError: Specified to load vera_A and vera_B from state dictionary however they were not present!"


def _fourier(options: Options, layer: Layer) -> Parts:
    count, area = options.sized("n_frequency_pattern", "n_frequency", layer.module), times(layer.inputs, layer.outputs)
    if count is not None and area is not None and count > area:
        raise RefusedLayer(
            "ValueError: `n_frequency` should be less than or equal to the product of the input and output dimensions "
            f"but the value passed is {count} and the product is {area}"
        )
    return {"fourierft_spectrum": (count,)}


def _hra(options: Options, layer: Layer) -> Parts:
    if layer.kind == "conv":
        raise UntoldLayer
    return {"hra_u": (layer.inputs, options.size("r"))}


def _vblora(options: Options, layer: Layer) -> Parts:
    r, vectors, length = options.size("r"), options.size("num_vectors"), options.size("vector_length")
    a = over(layer.inputs, length, "ValueError: `in_features` {} must be divisible by `vector_length` {}")
    b = over(layer.outputs, length, "ValueError: `out_features` {} must be divisible by `vector_length` {}")
    if not options("save_only_topk_weights"):
        return {"vblora_logits_A": (r, a, vectors), "vblora_logits_B": (b, r, vectors)}
    top = options.size("topk")
    fewer = None if top is None else top - 1
    return {
        "vblora_logits_A_topk_indices": (r, a, top),
        "vblora_logits_A_topk_weights": (r, a, fewer),
        "vblora_logits_B_topk_indices": (b, r, top),
        "vblora_logits_B_topk_weights": (b, r, fewer),
    }


def _vblora_shared(options: Options, layers: Sequence[Layer]) -> Parts:
    return {"base_model.vblora_vector_bank": (options.size("num_vectors"), options.size("vector_length"))}


def _bone(name: str) -> PartsOf:
    def parts(options: Options, layer: Layer) -> Parts:
        r, start = options.size("r"), options("init_weights")
        if start == "bat":
            refusal = "ValueError: The weight matrix must be fully divisible into [r, r] blocks."
            over(layer.inputs, r, refusal)
            return {name: (over(layer.outputs, r, refusal), r, r)}
        return {name: (r, options.size("mini_r") if start == "mini" else layer.outputs)}

    return parts


def _poly(options: Options, layer: Layer) -> Parts:
    splits, skills, r = options.size("n_splits"), options.size("n_skills"), options.size("r")
    return {
        "poly_lora_A": (splits, skills, over(layer.inputs, splits), r),
        "poly_lora_B": (splits, skills, r, over(layer.outputs, splits)),
        "poly_router.module_logits": (options.size("n_tasks"), times(splits, skills)),
    }
