"""The methods of PEFT other than LoRA, by ``peft_type``; what is absent here cannot be told from files.

``ADAMSS`` clusters the base's weights, ``SHADOW`` and ``XLORA`` hold models of their own, and ``ADAPTION_PROMPT``
depends on the release of transformers: no table says what they look for in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adapterlint.model import methodparts as old
from adapterlint.model import methodparts_new as new
from adapterlint.model.methods import Layer, Method, Options, Parts, SharedOf, Size, times

_LINEAR = frozenset({"linear"})
_GPT2 = frozenset({"linear", "conv1d"})
_CONV = frozenset({"linear", "conv"})
_TOKENS = frozenset({"linear", "embedding"})
_ANY = frozenset({"linear", "conv1d", "conv", "embedding", "norm", "container"})

Test = Callable[[Options], bool]


def _never(options: Options) -> bool:
    return False


def _starts(options: Options) -> bool:
    """Whether the start values do nothing, as they do for most methods unless switched off."""
    return options("init_weights") is not False


def _truthy(name: str) -> Test:
    return lambda options: bool(options(name))


def _no_parts(options: Options, layer: Layer) -> Parts:
    return {}


def _prompt(rows: str, width: Callable[[Options], Size], more: SharedOf | None = None) -> Method:
    def shared(options: Options, layers: Sequence[Layer]) -> Parts:
        count = times(options.size(rows), options.size("num_transformer_submodules") or 1)
        if options.adapter.peft_type in ("PREFIX_TUNING", "CARTRIDGE", "CPT"):
            count = options.size(rows)
        first: Parts = {"prompt_embeddings": (count, width(options))}
        return {**first, **(more(options, layers) if more else {})}

    missing = ("prompt_embeddings", "KeyError: 'prompt_embeddings'")
    return Method(_no_parts, shared, needed=lambda options: missing, prompt=True)


def _token(options: Options) -> Size:
    return options.size("token_dim")


def _cache(options: Options) -> Size:
    """Keys and values of every layer, side by side."""
    return times(2, options.size("num_layers"), options.size("token_dim"))


def _tasks(options: Options, layers: Sequence[Layer]) -> Parts:
    tasks, ranks = options.size("num_tasks"), options.size("num_ranks")
    rows = times(options.size("num_virtual_tokens"), options.size("num_transformer_submodules") or 1)
    return {"prefix_task_cols": (tasks, rows, ranks), "prefix_task_rows": (tasks, ranks, _token(options))}


def _cpt_rows(options: Options, layers: Sequence[Layer]) -> Parts:
    """The number of tokens follows from the list of their ids, whatever the config says beside it."""
    ids = options("cpt_token_ids")
    return {"prompt_embeddings": (len(ids) if isinstance(ids, list) else None, _token(options))}


def _hra_idle(options: Options) -> bool:
    rank = options.size("r")
    return bool(options("init_weights")) and rank is not None and rank % 2 == 0 and not options("apply_GS")


METHODS: dict[str, Method] = {
    "IA3": Method(old.ia3, kinds=_GPT2 | _CONV, idle=_truthy("init_ia3_weights")),
    "LOHA": Method(old.loha, kinds=_CONV, idle=_truthy("init_weights")),
    "LOKR": Method(old.lokr, kinds=_CONV, idle=_truthy("init_weights")),
    "OFT": Method(old.oft, kinds=_CONV | _TOKENS, idle=_starts),
    "BOFT": Method(old.boft, kinds=_CONV, derived=("boft_P",), idle=_starts),
    "ADALORA": Method(old.adalora, kinds=_GPT2, idle=_truthy("init_lora_weights")),
    "POLY": Method(old.poly, kinds=_LINEAR, idle=_truthy("init_weights")),
    "LN_TUNING": Method(old.layer_norm, kinds=_ANY),
    "TRAINABLE_TOKENS": Method(old.tokens, kinds=_TOKENS),
    "VERA": Method(
        old.vera,
        old.vera_shared,
        _GPT2,
        derived=("base_model.vera_",),
        idle=_truthy("init_weights"),
        needed=old.vera_needs,
        grown=("inputs",),
    ),
    "FOURIERFT": Method(old.fourier, kinds=_GPT2, idle=_truthy("init_weights")),
    "HRA": Method(old.hra, kinds=_CONV, idle=_hra_idle),
    "VBLORA": Method(old.vblora, old.vblora_shared, _GPT2, idle=_never),
    "BONE": Method(old.bone("bone_block"), kinds=_LINEAR, idle=_starts),
    "MISS": Method(old.bone("miss_block"), kinds=_LINEAR, idle=_starts),
    "RANDLORA": Method(
        new.randlora,
        new.randlora_shared,
        _GPT2,
        derived=("randlora_A", "randlora_B", "base_model.randlora_"),
        idle=_truthy("init_weights"),
        grown=("inputs", "outputs"),
    ),
    "SHIRA": Method(new.shira, kinds=_LINEAR, derived=("shira_indices",), idle=_truthy("init_weights")),
    "C3A": Method(new.c3a, kinds=_LINEAR, idle=lambda options: options("init_weights") is True),
    "ROAD": Method(new.road, kinds=_LINEAR, idle=_truthy("init_weights")),
    "DELORA": Method(new.delora, kinds=_LINEAR, derived=("delora_w_norm",), idle=_truthy("init_weights")),
    "WAVEFT": Method(new.waveft, kinds=_GPT2, idle=_truthy("init_weights")),
    "OSF": Method(new.osf, kinds=_ANY, idle=_starts),
    "GRALORA": Method(new.gralora, kinds=_GPT2, idle=_truthy("init_weights")),
    "TINYLORA": Method(
        new.tinylora,
        new.tinylora_shared,
        _GPT2 | _TOKENS,
        derived=("tinylora_A", "tinylora_B", "tinylora_P"),
    ),
    "PSOFT": Method(new.psoft, kinds=_LINEAR, idle=_truthy("init_weights")),
    "PVERA": Method(
        new.pvera,
        new.pvera_shared,
        _GPT2,
        derived=("base_model.pvera_",),
        idle=_truthy("init_weights"),
        needed=new.pvera_needs,
        grown=("inputs",),
    ),
    "PEANUT": Method(new.peanut, kinds=_LINEAR, idle=_truthy("init_weights")),
    "LILY": Method(new.lily, kinds=_LINEAR, idle=_truthy("init_weights"), pooled=("lily_A", "lily_B")),
    "BEFT": Method(new.beft, kinds=_LINEAR, idle=_truthy("init_weights")),
    "DEFT": Method(new.deft, kinds=_GPT2, idle=lambda options: bool(options("init_weights")) and not options("para")),
    "FROD": Method(
        new.frod, new.frod_shared, _GPT2, ("base_model.frod_",), _truthy("save_projection"), needed=new.frod_needs
    ),
    "GLORA": Method(
        new.glora,
        kinds=_LINEAR,
        derived=tuple(f"glora_{letter}.zeros" for letter in "ABCDE"),
        idle=_truthy("init_weights"),
    ),
    "HIRA": Method(new.hira, kinds=_GPT2 | _CONV | _TOKENS, idle=_truthy("init_weights")),
    "UNILORA": Method(
        new.unilora,
        new.unilora_shared,
        _GPT2,
        derived=("unilora_indices_", "unilora_scales_"),
        idle=_never,
    ),
    "SUPERTUNING": Method(
        new.supertuning, kinds=_LINEAR, derived=("supertuning_indices",), idle=_truthy("init_weights")
    ),
    "PROMPT_TUNING": _prompt("num_virtual_tokens", _token),
    "P_TUNING": _prompt("num_virtual_tokens", _token),
    "PREFIX_TUNING": _prompt("num_virtual_tokens", _cache),
    "CARTRIDGE": _prompt("num_virtual_tokens", _cache),
    "MULTITASK_PROMPT_TUNING": _prompt("num_virtual_tokens", _token, _tasks),
    "CPT": _prompt("num_virtual_tokens", _token, _cpt_rows),
}
