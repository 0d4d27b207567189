"""Sets of small adapters for the operations beyond loading: what they have in common and where they differ.

Every tensor is drawn at random from the names of its case, adapter and tensor, so that no two adapters are alike and
every run writes the same bytes. Shapes and configs come from the examples of the rules.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterlint.rules.examples import BaseExample, bert_base, bert_config, llama_base, lora_config

PREFIX = "base_model.model."
_FACTS = {  # leaf -> (path above it, inputs, outputs) in the tiny Llama and the tiny Bert
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), ("self_attn", 16, 16)),
    **dict.fromkeys(("gate_proj", "up_proj"), ("mlp", 16, 32)),
    "down_proj": ("mlp", 32, 16),
    **dict.fromkeys(("query", "key", "value"), ("attention.self", 16, 16)),
}
Shapes = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Member:
    """One adapter: config, tensor shapes, and the base parameters that it only copies."""

    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    copied: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A set in loading order, on one of the bases."""

    name: str
    base: str
    members: Mapping[str, Member]


def gpt2_base() -> BaseExample:
    """A tiny GPT-2, whose linear layers are stored transposed: hidden 16, vocabulary 48, two layers."""
    tensors: Shapes = {
        "transformer.wte.weight": ("F32", (48, 16)),
        "transformer.wpe.weight": ("F32", (32, 16)),
        "transformer.ln_f.weight": ("F32", (16,)),
        "transformer.ln_f.bias": ("F32", (16,)),
    }
    sizes = {"attn.c_attn": (16, 48), "attn.c_proj": (16, 16), "mlp.c_fc": (16, 64), "mlp.c_proj": (64, 16)}
    for layer in range(2):
        stem = f"transformer.h.{layer}"
        for leaf, shape in sizes.items():
            tensors |= {f"{stem}.{leaf}.weight": ("F32", shape), f"{stem}.{leaf}.bias": ("F32", shape[1:])}
        for leaf in ("ln_1", "ln_2"):
            tensors |= {f"{stem}.{leaf}.weight": ("F32", (16,)), f"{stem}.{leaf}.bias": ("F32", (16,))}
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": 16,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 32,
        "vocab_size": 48,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return BaseExample(config, tensors)


BASES = {
    "llama": lambda: llama_base(),
    "tied": lambda: llama_base(tied=True),
    "bert": lambda: bert_base(),
    "gpt2": gpt2_base,
}


def pairs(leaves: tuple[str, ...], r: int = 4, layers: tuple[int, ...] = (0, 1), dtype: str = "F32") -> Shapes:
    """LoRA pairs of linear layers in the attention blocks."""
    found: Shapes = {}
    for layer in layers:
        for leaf in leaves:
            above, inputs, outputs = _FACTS[leaf]
            root = "bert.encoder.layer" if above == "attention.self" else "model.layers"
            stem = f"{PREFIX}{root}.{layer}.{above}.{leaf}"
            found |= {f"{stem}.lora_A.weight": (dtype, (r, inputs)), f"{stem}.lora_B.weight": (dtype, (outputs, r))}
    return found


def extended(tensors: Shapes, suffix: str, of: str = ".lora_B.weight") -> Shapes:
    """The same tensors and one more per B: DoRA vectors or biases, as long as B's output."""
    more = {name.replace(of, suffix): (dtype, shape[:1]) for name, (dtype, shape) in tensors.items() if of in name}
    return {**tensors, **more}


def llama(
    leaves: tuple[str, ...] = ("q_proj", "v_proj"), r: int = 4, more: Shapes | None = None, **config: Any
) -> Member:
    """An adapter for the tiny Llama."""
    layers = config.pop("layers", (0, 1))
    tensors = pairs(leaves, r, layers, config.pop("dtype", "F32"))
    if config.get("use_dora"):
        tensors = extended(tensors, ".lora_magnitude_vector")
    return Member(lora_config(**{"target_modules": list(leaves), "r": r, **config}), {**tensors, **(more or {})})


def bert(
    leaves: tuple[str, ...] = ("query", "value"),
    r: int = 4,
    saves: tuple[str, ...] | None = None,
    stored: tuple[str, ...] | None = None,
    copies: tuple[str, ...] = (),
    **config: Any,
) -> Member:
    """An adapter for the tiny Bert.

    Args:
        saves: ``modules_to_save``.
        stored: modules whose tensors are in the file, if not those of ``saves``.
        copies: modules whose tensors are the base's.
    """
    tensors = pairs(leaves, r)
    if config.get("use_dora"):
        tensors = extended(tensors, ".lora_magnitude_vector")
    if config.get("lora_bias"):
        tensors = extended(tensors, ".lora_B.bias")
    saved = saved_tensors("bert", (*(saves or () if stored is None else stored), *copies))
    copied = {PREFIX + name: name for module in copies for name in _under("bert", module)}
    names = [*(saves or ()), *copies]
    config = {"modules_to_save": names or (list(saves) if saves is not None else None), **config}
    built = bert_config(**{"target_modules": list(leaves), "r": r, **config})
    return Member(built, {**tensors, **saved}, copied)


def _under(base: str, module: str) -> list[str]:
    names = BASES[base]().tensors
    return [name for name in names if f".{module}." in f".{name}" and _ends(name, module)]


def _ends(name: str, module: str) -> bool:
    path = name.rpartition(".")[0]
    return path == module or path.endswith("." + module) or f".{module}." in f".{path}."


def saved_tensors(base: str, modules: tuple[str, ...]) -> Shapes:
    """The tensors of whole modules, by the adapter's names."""
    shapes = BASES[base]().tensors
    return {PREFIX + name: shapes[name] for module in modules for name in _under(base, module)}


def heads(*modules: str, base: str = "llama", copies: tuple[str, ...] = (), **config: Any) -> Member:
    """A Llama adapter that saves whole modules."""
    member = llama(**{"modules_to_save": [*modules, *copies], **config})
    copied = {PREFIX + name: name for module in copies for name in _under(base, module)}
    return Member(member.config, {**member.tensors, **saved_tensors(base, (*modules, *copies))}, copied)


def embedding(module: str = "embed_tokens", r: int = 4, root: str = "model.") -> Shapes:
    """LoRA tensors of an embedding with 48 rows."""
    stem = f"{PREFIX}{root}{module}"
    return {f"{stem}.lora_embedding_A": ("F32", (r, 48)), f"{stem}.lora_embedding_B": ("F32", (16, r))}


def tokens(rows: int = 3) -> Shapes:
    """Trained rows of the input embedding."""
    return {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": ("F32", (rows, 16))}


def gpt2(leaves: tuple[str, ...] = ("c_attn",), r: int = 4, **config: Any) -> Member:
    """An adapter for the tiny GPT-2."""
    sizes = {"c_attn": ("attn", 16, 48), "c_fc": ("mlp", 16, 64)}
    tensors: Shapes = {}
    for layer in range(2):
        for leaf in leaves:
            above, inputs, outputs = sizes[leaf]
            stem = f"{PREFIX}transformer.h.{layer}.{above}.{leaf}"
            tensors |= {f"{stem}.lora_A.weight": ("F32", (r, inputs)), f"{stem}.lora_B.weight": ("F32", (outputs, r))}
    config = {"target_modules": list(leaves), "r": r, "fan_in_fan_out": True, **config}
    if config.get("use_dora"):
        tensors = extended(tensors, ".lora_magnitude_vector")
    return Member(lora_config(**config), tensors)


# -- writing -----------------------------------------------------------------------------------------------------


def write_base(name: str, directory: Path) -> Path:
    """Write one of the bases and return its directory."""
    import torch
    from safetensors.torch import save_file

    example = BASES[name]()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(dict(example.config), indent=1))
    tensors = {}
    for key, (_, shape) in example.tensors.items():
        drawn = torch.randn(shape, generator=_dice(name, key))
        norm = "norm" in key.lower() or ".ln_" in key
        tensors[key] = 1 + 0.1 * drawn if norm and key.endswith("weight") else (0.5 if "emb" in key else 0.2) * drawn
    save_file(tensors, str(directory / "model.safetensors"), metadata={"format": "pt"})
    return directory


def write_case(case: Case, directory: Path, base: Path) -> list[Path]:
    """Write the adapters of a case and return their directories, in loading order."""
    import torch
    from safetensors.torch import load_file, save_file

    stored = load_file(str(base / "model.safetensors"))
    dtypes = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
    paths = []
    for name, member in case.members.items():
        path = directory / name
        path.mkdir(parents=True)
        config = {**member.config, "base_model_name_or_path": None}  # old releases look it up on the Hub to save
        (path / "adapter_config.json").write_text(json.dumps(config, indent=1))
        tensors = {}
        for key, (dtype, shape) in member.tensors.items():
            drawn = torch.randn(shape, generator=_dice(case.name, name, key))
            if "magnitude" in key:
                drawn = drawn.abs() + 0.3
            elif "norm" in key.lower() and key.endswith("weight"):
                drawn = 1 + 0.5 * drawn
            copy = member.copied.get(key)
            tensors[key] = stored[copy].clone() if copy else (0.4 * drawn).to(dtypes[dtype])
        save_file(tensors, str(path / "adapter_model.safetensors"), metadata={"format": "pt"})
        paths.append(path)
    return paths


def _dice(*words: str) -> Any:
    import torch

    return torch.Generator().manual_seed(zlib.crc32("/".join(words).encode()))


# -- cases -------------------------------------------------------------------------------------------------------


def cases() -> Iterator[Case]:
    """Every set of the battery."""
    for group in (
        _plain,
        _scales,
        _features,
        _targets,
        _saved,
        _typed,
        _llama_saved,
        _rows,
        _names,
        _others,
        _random,
        _mixtures,
        _outlived,
    ):
        yield from group()


def _case(name: str, base: str, **members: Member) -> Case:
    return Case(name, base, members)


def _plain() -> Iterator[Case]:
    yield _case("plain-two", "llama", one=llama(), two=llama())
    yield _case("plain-three", "llama", one=llama(), two=llama(), three=llama())
    yield _case("plain-bert", "bert", one=bert(), two=bert())
    yield _case("plain-gpt2", "gpt2", one=gpt2(), two=gpt2())
    yield _case("plain-tied", "tied", one=llama(), two=llama())
    yield _case("plain-bf16", "llama", one=llama(dtype="BF16"), two=llama())
    yield _case("plain-all-linear", "llama", one=_all_linear(), two=_all_linear())
    yield _case("plain-untyped", "llama", one=llama(task_type=None), two=llama(task_type=None))


def _all_linear() -> Member:
    leaves = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    member = llama(leaves, target_modules="all-linear")
    return Member(member.config, member.tensors)


def _scales() -> Iterator[Case]:
    yield _case("rank-4-8", "llama", one=llama(), two=llama(r=8))
    yield _case("rank-8-4", "llama", one=llama(r=8), two=llama())
    yield _case("rank-8-4-2", "llama", one=llama(r=8), two=llama(), three=llama(r=2))
    yield _case("alpha-8-16", "llama", one=llama(), two=llama(lora_alpha=16))
    yield _case("dropout-differs", "llama", one=llama(), two=llama(lora_dropout=0.1))
    yield _case("dropout-equal", "llama", one=llama(lora_dropout=0.1), two=llama(lora_dropout=0.1))
    yield _case("dropout-int", "llama", one=llama(lora_dropout=0), two=llama(lora_dropout=0.0))
    yield _case("dropout-absent", "llama", one=llama(lora_dropout=...), two=llama(lora_dropout=0.0))
    rs = {"use_rslora": True}
    yield _case("rslora-both", "llama", one=llama(**rs), two=llama(**rs))
    yield _case("rslora-first", "llama", one=llama(**rs), two=llama())
    yield _case("rslora-second", "llama", one=llama(), two=llama(**rs))
    yield _case("rslora-false-absent", "llama", one=llama(use_rslora=False), two=llama())
    yield _case("rslora-r1", "llama", one=llama(r=1, **rs), two=llama(r=1, **rs))
    pattern = {"alpha_pattern": {"q_proj": 16}}
    yield _case("alpha-pattern-both", "llama", one=llama(**pattern), two=llama(**pattern))
    yield _case("alpha-pattern-second", "llama", one=llama(), two=llama(**pattern))
    yield _case("alpha-pattern-empty", "llama", one=llama(alpha_pattern={}), two=llama())
    yield _case("rank-pattern-both", "llama", one=_ranked(2), two=_ranked(2))
    yield _case("rank-pattern-second", "llama", one=llama(), two=_ranked(2))
    yield _case("rank-pattern-first", "llama", one=_ranked(2), two=llama())
    yield _case("rank-pattern-greater", "llama", one=_ranked(8), two=_ranked(8))
    yield _case("rank-pattern-to-8", "llama", one=_ranked(8), two=llama(r=8))
    yield _case("rank-pattern-swapped", "llama", one=_ranked(8), two=_ranked(8, leaf="v_proj"))


def _ranked(rank: int, leaf: str = "q_proj") -> Member:
    """Rank 4 everywhere but in one leaf."""
    other = "v_proj" if leaf == "q_proj" else "q_proj"
    tensors = {**pairs((leaf,), rank), **pairs((other,), 4)}
    return Member(lora_config(rank_pattern={leaf: rank}), tensors)


def _features() -> Iterator[Case]:
    dora = {"use_dora": True}
    yield _case("dora-both", "llama", one=llama(**dora), two=llama(**dora))
    yield _case("dora-first", "llama", one=llama(**dora), two=llama())
    yield _case("dora-second", "llama", one=llama(), two=llama(**dora))
    yield _case("dora-gpt2", "gpt2", one=gpt2(**dora), two=gpt2(**dora))
    yield _case("dora-heads", "bert", one=bert(saves=("classifier",), **dora), two=bert(saves=("classifier",)))
    bias = {"lora_bias": True}
    yield _case("lora-bias-both", "bert", one=bert(**bias), two=bert(**bias))
    yield _case("lora-bias-first", "bert", one=bert(**bias), two=bert())
    yield _case("lora-bias-second", "bert", one=bert(), two=bert(**bias))
    yield _case("lora-bias-llama", "llama", one=_biased_llama(), two=_biased_llama())
    stored = {f"{PREFIX}bert.encoder.layer.0.attention.self.query.base_layer.bias": ("F32", (16,))}
    first = bert(bias="lora_only")
    yield _case("bias-first", "bert", one=Member(first.config, {**first.tensors, **stored}), two=bert())
    yield _case("bias-flag-first", "bert", one=first, two=bert())
    yield _case("bias-flag-second", "bert", one=bert(), two=first)
    yield _case("bias-all-flag-first", "bert", one=bert(bias="all"), two=bert())
    both = ["q_proj", "v_proj", "embed_tokens"]
    emb = llama(more=embedding(), target_modules=both)
    for base in ("llama", "tied"):
        yield _case(f"embedding-both-{base}", base, one=emb, two=emb)
        yield _case(f"embedding-first-{base}", base, one=emb, two=llama())
        yield _case(f"embedding-second-{base}", base, one=llama(), two=emb)
        head = llama(more=_lm_head(), target_modules=["q_proj", "v_proj", "lm_head"])
        yield _case(f"lm-head-lora-both-{base}", base, one=head, two=head)
        yield _case(f"lm-head-lora-second-{base}", base, one=llama(), two=head)
    ranked = llama(more=embedding(r=4), r=8, target_modules=both, rank_pattern={"embed_tokens": 4})
    yield _case("embedding-ranks", "llama", one=ranked, two=ranked)
    wte = Member(
        gpt2().config | {"target_modules": ["c_attn", "wte"]},
        {**gpt2().tensors, **embedding("wte", root="transformer.")},
    )
    yield _case("embedding-gpt2", "gpt2", one=wte, two=wte)
    wpe = Member(gpt2().config | {"modules_to_save": ["wpe"]}, {**gpt2().tensors, **saved_tensors("gpt2", ("wpe",))})
    yield _case("saved-gpt2-wpe", "gpt2", one=wpe, two=wpe)
    for leaf, rows in (("position_embeddings", 32), ("token_type_embeddings", 2), ("word_embeddings", 48)):
        stem = f"{PREFIX}bert.embeddings.{leaf}"
        more = {f"{stem}.lora_embedding_A": ("F32", (4, rows)), f"{stem}.lora_embedding_B": ("F32", (16, 4))}
        plain = bert()
        member = Member(plain.config | {"target_modules": ["query", "value", leaf]}, {**plain.tensors, **more})
        yield _case(f"embedding-{leaf}", "bert", one=member, two=member)
    yield _case("init-gaussian", "llama", one=llama(init_lora_weights="gaussian"), two=llama(init_lora_weights=False))


def _lm_head() -> Shapes:
    stem = f"{PREFIX}lm_head"
    return {f"{stem}.lora_A.weight": ("F32", (4, 16)), f"{stem}.lora_B.weight": ("F32", (48, 4))}


def _biased_llama() -> Member:
    member = llama(lora_bias=True)
    return Member(member.config, extended(dict(member.tensors), ".lora_B.bias"))


def _targets() -> Iterator[Case]:
    q, v, qv, o = ("q_proj",), ("v_proj",), ("q_proj", "v_proj"), ("o_proj",)
    yield _case("targets-disjoint", "llama", one=llama(q), two=llama(v))
    yield _case("targets-disjoint-reversed", "llama", one=llama(v), two=llama(q))
    yield _case("targets-subset-second", "llama", one=llama(qv), two=llama(q))
    yield _case("targets-subset-first", "llama", one=llama(q), two=llama(qv))
    yield _case("targets-overlap", "llama", one=llama(("q_proj", "k_proj")), two=llama(("k_proj", "v_proj")))
    yield _case("targets-three", "llama", a=llama(q), b=llama(v), c=llama(o))
    yield _case("targets-three-b", "llama", a=llama(v), b=llama(q), c=llama(qv))
    yield _case("targets-three-c", "llama", a=llama(qv), b=llama(q), c=llama(v))
    yield _case("targets-three-d", "llama", c=llama(qv), b=llama(q), a=llama(v))
    yield _case("targets-three-e", "llama", c=llama(q), b=llama(qv), a=llama(v))
    yield _case("targets-four", "llama", a=llama(q), b=llama(v), c=llama(qv), d=llama(o))
    yield _case("targets-four-b", "llama", d=llama(qv), b=llama(v), c=llama(qv), a=llama(o))
    yield _case("targets-four-c", "llama", b=llama(qv), a=llama(qv), c=llama(q), d=llama(v))
    yield _case("targets-later-layers", "llama", a=_layered(0), b=_layered(1))
    yield _case("targets-later-layers-reversed", "llama", a=_layered(1), b=_layered(0))
    both = _layered(0, 1)
    yield _case("layers-first-narrow", "llama", a=_layered(0), b=both)
    yield _case("layers-second-narrow", "llama", a=both, b=_layered(0))
    regex = r".*\.(q_proj|v_proj)"
    yield _case("regex-both", "llama", one=llama(target_modules=regex), two=llama(q, target_modules=r".*\.q_proj"))
    yield _case("regex-and-list", "llama", one=llama(target_modules=regex), two=llama())
    yield _case("all-linear-and-list", "llama", one=_all_linear(), two=llama())
    yield _case("targets-null", "llama", one=llama(target_modules=None), two=llama())
    yield _case("exclude-first", "llama", a=_excluding(), b=llama())
    yield _case("exclude-second", "llama", a=llama(), b=_excluding())
    wide = Member(lora_config(target_modules=["q_proj", "v_proj", "k_proj"]), pairs(qv))
    yield _case("wider-than-tensors", "llama", one=wide, two=llama())
    yield _case("wider-than-tensors-second", "llama", one=llama(), two=wide)
    unmatched = llama(target_modules=["q_proj", "v_proj", "nothing"])
    yield _case("unmatched-name", "llama", one=unmatched, two=llama())
    yield _case("all-leaves", "llama", one=llama(("gate_proj", "down_proj")), two=llama(("up_proj",)))


def _layered(*layers: int) -> Member:
    return llama(layers=layers, layers_to_transform=list(layers))


def _excluding() -> Member:
    return llama(layers=(1,), exclude_modules=["layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj"])


def _saved() -> Iterator[Case]:
    head, pooler = bert(saves=("classifier",)), bert(saves=("pooler",))
    dense, none = bert(saves=("pooler.dense",)), bert()
    both, wide = bert(saves=("classifier", "pooler")), bert(saves=("classifier",), r=8)
    yield _case("saved-equal", "bert", a=head, b=head)
    yield _case("saved-equal-ranks", "bert", a=head, b=wide)
    yield _case("saved-equal-three", "bert", a=head, b=head, c=head)
    yield _case("saved-equal-container", "bert", a=pooler, b=pooler)
    yield _case("saved-equal-leaf", "bert", a=dense, b=dense)
    yield _case("saved-equal-both", "bert", a=both, b=both)
    union = bert(saves=("classifier", "pooler.dense"))
    yield _case("saved-equal-union", "bert", a=union, b=union)
    filled_a = bert(saves=("classifier",), copies=("pooler.dense",))
    filled_b = bert(saves=("pooler.dense",), copies=("classifier",))
    yield _case("saved-union-filled", "bert", a=filled_a, b=filled_b)
    yield _case("saved-leaf-and-container", "bert", a=dense, b=pooler)
    members = {"a": head, "b": wide, "c": pooler, "d": none, "e": both, "f": dense}
    for order in ("ac", "ca", "ad", "da", "cd", "dc", "ea", "ae", "ec", "eacd", "abcd", "dac", "acd", "af", "fa", "fd"):
        yield Case(f"saved-differ-{order}", "bert", {name: members[name] for name in order})
    renamed = {"z": members["a"], "y": members["c"], "x": members["d"]}
    yield Case("saved-differ-names-reversed", "bert", renamed)
    yield Case("saved-differ-z-last", "bert", {"x": members["d"], "z": members["a"]})
    yield _case("saved-nothing-named", "bert", a=bert(saves=("nothing",), stored=()), b=none)
    yield _case("saved-empty", "bert", a=bert(saves=(), stored=()), b=none)
    yield _case("saved-score-and-head", "bert", a=bert(saves=("score", "classifier"), stored=("classifier",)), b=head)
    position = bert(saves=("position_embeddings",))
    yield _case("saved-position", "bert", a=position, b=position)
    word = bert(saves=("word_embeddings",))
    yield _case("saved-word", "bert", a=word, b=word)
    norm = bert(saves=("embeddings.LayerNorm",))
    yield _case("saved-norm", "bert", a=norm, b=norm)
    targets = bert(("query",), saves=("classifier",))
    yield _case("saved-equal-targets-differ", "bert", a=targets, b=head)
    yield _case("saved-inside-targets", "bert", a=_dense_targets(), b=_dense_targets())


def _dense_targets() -> Member:
    """A saved container whose leaf is also named in target_modules."""
    member = bert(saves=("pooler",))
    more: Shapes = {}
    for layer in range(2):
        for above, inputs in (("attention.output", 16), ("output", 32), ("intermediate", 16)):
            stem = f"{PREFIX}bert.encoder.layer.{layer}.{above}.dense"
            outputs = 32 if above == "intermediate" else 16
            more |= {f"{stem}.lora_A.weight": ("F32", (4, inputs)), f"{stem}.lora_B.weight": ("F32", (outputs, 4))}
    return Member({**member.config, "target_modules": ["query", "value", "dense"]}, {**member.tensors, **more})


def _typed() -> Iterator[Case]:
    declared = bert(saves=("classifier", "score"), stored=("classifier",), task_type="SEQ_CLS")
    implied = bert(stored=("classifier",), task_type="SEQ_CLS")
    headless = bert(task_type="FEATURE_EXTRACTION")
    yield _case("typed-declared", "bert", a=declared, b=declared)
    yield _case("typed-implied", "bert", a=implied, b=implied)
    yield _case("typed-declared-implied", "bert", a=declared, b=implied)
    yield _case("typed-implied-declared", "bert", a=implied, b=declared)
    yield _case("typed-and-untyped", "bert", a=declared, b=bert(saves=("classifier",)))
    yield _case("typed-implied-and-untyped", "bert", a=implied, b=bert(saves=("classifier",)))
    yield _case("untyped-and-implied", "bert", a=bert(saves=("classifier",)), b=implied)
    yield _case(
        "typed-pooler-second",
        "bert",
        a=declared,
        b=bert(saves=("pooler",), stored=("classifier", "pooler"), task_type="SEQ_CLS"),
    )
    yield _case("features", "bert", a=headless, b=headless)
    token = bert(saves=("classifier", "score"), stored=("classifier",), task_type="TOKEN_CLS")
    yield _case("typed-tokens", "bert", a=token, b=token)


def _llama_saved() -> Iterator[Case]:
    for base in ("llama", "tied"):
        embed, head = heads("embed_tokens", base=base), _saved_head()
        yield _case(f"llama-embed-equal-{base}", base, a=embed, b=embed)
        yield _case(f"llama-head-equal-{base}", base, a=head, b=head)
        yield _case(f"llama-head-none-{base}", base, a=head, b=llama())
        yield _case(f"llama-none-head-{base}", base, a=llama(), b=head)
        yield _case(f"llama-embed-head-{base}", base, a=embed, b=head)
        both = Member(lora_config(modules_to_save=["embed_tokens", "lm_head"]), {**embed.tensors, **head.tensors})
        yield _case(f"llama-both-equal-{base}", base, a=both, b=both)
    norm = heads("model.norm")
    yield _case("llama-norm-equal", "llama", a=norm, b=norm)
    yield _case("llama-norm-none", "llama", a=norm, b=llama())
    norms = heads("norm")
    yield _case("llama-norms-equal", "llama", a=norms, b=norms)
    mlp = heads("layers.0.mlp")
    yield _case("llama-mlp-equal", "llama", a=mlp, b=mlp)
    down = heads("layers.0.mlp.down_proj")
    yield _case("llama-down-equal", "llama", a=down, b=down)
    full = Member(llama().config, {**llama().tensors, **_saved_head().tensors})
    yield _case("llama-undeclared-head", "llama", a=full, b=llama())


def _saved_head() -> Member:
    member = llama(modules_to_save=["lm_head"])
    return Member(member.config, {**member.tensors, f"{PREFIX}lm_head.weight": ("F32", (48, 16))})


def _rows() -> Iterator[Case]:
    for base in ("llama", "tied"):
        rows = llama(more=tokens(), trainable_token_indices={"embed_tokens": [3, 5, 7]})
        listed = llama(more=tokens(), trainable_token_indices=[3, 5, 7])
        others = llama(more=tokens(2), trainable_token_indices={"embed_tokens": [4, 6]})
        yield _case(f"rows-equal-{base}", base, a=rows, b=rows)
        yield _case(f"rows-list-{base}", base, a=listed, b=rows)
        yield _case(f"rows-differ-{base}", base, a=rows, b=others)
        yield _case(f"rows-second-{base}", base, a=llama(), b=rows)
    norm = heads("model.norm", trainable_token_indices={"embed_tokens": [3, 5, 7]})
    yield _case("rows-and-norm", "llama", a=Member(norm.config, {**norm.tensors, **tokens()}), b=rows)


def _names() -> Iterator[Case]:
    head = bert(saves=("classifier",))
    for first, second in (
        ("foo", "foobar"),
        ("default", "other"),
        ("other", "default"),
        ("q", "query"),
        ("lora", "model"),
        ("weight", "other"),
        ("lora_A", "other"),
        ("bert", "encoder"),
        ("query", "value"),
        ("0", "1"),
        ("A", "B"),
        ("lora_B", "lora"),
    ):
        yield Case(f"names-{first}-{second}", "bert", {first: bert(), second: bert()})
        yield Case(f"names-heads-{first}-{second}", "bert", {first: head, second: head})
    yield Case("names-reversed", "llama", {"b": llama(), "a": llama()})
    yield Case("names-target-head", "bert", {"query": head, "chat": bert()})
    yield Case("names-target-heads", "bert", {"query": head, "chat": bert(saves=("pooler.dense",))})
    yield Case("names-target-last", "bert", {"chat": bert(), "query": head})


def _others() -> Iterator[Case]:
    """Other methods, as far as a few tensors make an adapter."""
    root = f"{PREFIX}model.layers"
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": "x", "modules_to_save": None, "inference_mode": True}
    ia3 = Member(
        {
            **common,
            "peft_type": "IA3",
            "target_modules": ["k_proj", "v_proj"],
            "feedforward_modules": [],
            "fan_in_fan_out": False,
            "init_ia3_weights": True,
        },
        {f"{root}.{n}.self_attn.{leaf}.ia3_l": ("F32", (16, 1)) for n in range(2) for leaf in ("k_proj", "v_proj")},
    )
    yield _case("ia3-two", "llama", a=ia3, b=ia3)
    loha = Member(
        {
            **common,
            "peft_type": "LOHA",
            "target_modules": ["q_proj"],
            "r": 4,
            "alpha": 8,
            "module_dropout": 0.0,
            "rank_dropout": 0.0,
            "use_effective_conv2d": False,
            "init_weights": True,
            "alpha_pattern": {},
            "rank_pattern": {},
        },
        {
            f"{root}.{n}.self_attn.q_proj.hada_w{k}_{s}": ("F32", (16, 4) if s == "a" else (4, 16))
            for n in range(2)
            for k in (1, 2)
            for s in "ab"
        },
    )
    yield _case("loha-two", "llama", a=loha, b=loha)
    prompt = Member(
        {
            **common,
            "peft_type": "PROMPT_TUNING",
            "num_virtual_tokens": 3,
            "token_dim": 16,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_transformer_submodules": 1,
            "prompt_tuning_init": "RANDOM",
            "prompt_tuning_init_text": None,
            "tokenizer_name_or_path": None,
        },
        {"prompt_embeddings": ("F32", (3, 16))},
    )
    yield _case("prompts-two", "llama", a=prompt, b=prompt)
    head = Member(
        {**ia3.config, "modules_to_save": ["lm_head"]}, {**ia3.tensors, f"{PREFIX}lm_head.weight": ("F32", (48, 16))}
    )
    yield _case("ia3-heads", "llama", a=head, b=head)
    yield _case("ia3-head-none", "llama", a=head, b=ia3)


_NAMES = ("sentiment", "legal-de", "toxicity", "medical", "billing_v2", "chat", "sql", "summaries", "v2", "zh")


def _random() -> Iterator[Case]:
    """Two to four adapters whose targets, ranks and saved modules are drawn at random."""
    dice = random.Random(7)
    for number in range(40):
        names = dice.sample(_NAMES, dice.choice((2, 2, 3, 3, 4)))
        saving = dice.random() < 0.6
        members = {}
        for name in names:
            leaves = dice.choice((("query", "value"), ("query", "value"), ("query",), ("value",), ("key", "query")))
            saves = (
                dice.choice((None, ("classifier",), ("pooler.dense",), ("classifier", "pooler.dense")))
                if saving
                else None
            )
            members[name] = bert(leaves, r=dice.choice((4, 4, 8)), saves=saves)
        yield Case(f"random-{number:02}", "bert", members)


def _mixtures() -> Iterator[Case]:
    """Two or three adapters for the tiny Llama, each with a few features drawn at random."""
    dice = random.Random(11)
    for number in range(60):
        base = dice.choice(("llama", "llama", "tied"))
        names = dice.sample(_NAMES, dice.choice((2, 2, 3)))
        odd = dice.choice((0.0, 0.15, 0.3))
        yield Case(f"mixture-{number:02}", base, {name: _drawn(dice, base, odd) for name in names})


def _drawn(dice: random.Random, base: str, odd: float) -> Member:
    """An adapter; ``odd`` is the probability of each unusual feature."""

    def rarely() -> bool:
        return dice.random() < odd

    leaves = (
        dice.choice((("q_proj", "v_proj"), ("k_proj",), ("down_proj", "q_proj"))) if rarely() else ("q_proj", "v_proj")
    )
    config: dict[str, Any] = {"r": dice.choice((2, 8)) if rarely() else 4, "lora_alpha": dice.choice((4, 8, 32))}
    more: Shapes = {}
    for key, value in (
        ("use_rslora", True),
        ("use_dora", True),
        ("lora_dropout", 0.1),
        ("alpha_pattern", {"q_proj": 3}),
    ):
        if rarely():
            config[key] = value
    if rarely():
        config["layers"] = (1,)
        config["layers_to_transform"] = [1]
    if rarely():
        config["target_modules"] = rf".*\.({'|'.join(leaves)})"
        config.pop("layers_to_transform", None)
        config["layers"] = (0, 1)
    saves = [module for module in ("lm_head", "embed_tokens", "model.norm") if rarely()]
    if saves:
        config["modules_to_save"] = saves
        more |= saved_tensors("llama", tuple(saves))
    elif rarely():
        config["trainable_token_indices"] = {"embed_tokens": [3, 5, 7]}
        more |= tokens()
    return llama(leaves, more=more, **config)


def _outlived() -> Iterator[Case]:
    """Defects of one member that some operations outlive, and features that only some operations mind."""
    broken = Member(
        llama().config, {name.replace(PREFIX, f"module.{PREFIX}"): e for name, e in llama().tensors.items()}
    )
    yield _case("outlived-prefix-first", "llama", a=broken, b=llama())
    yield _case("outlived-prefix-last", "llama", a=llama(), b=llama(), c=broken)
    bare = Member(llama().config, {name.removeprefix(PREFIX): e for name, e in llama().tensors.items()})
    yield _case("outlived-no-prefix", "llama", a=llama(), b=bare)
    yield _case("outlived-unknown-bias", "llama", a=llama(), b=llama(bias="foo"))
    head = f"{PREFIX}lm_head.weight"
    inside = {**pairs(("query", "value")), **_pair("bert.pooler.dense")}
    whole, deep = bert(saves=("pooler",)), bert(target_modules=["query", "value", "pooler.dense"])
    yield _case("outlived-block", "bert", a=whole, b=Member(deep.config, inside))
    undeclared = Member(llama().config, {**llama().tensors, head: ("F32", (48, 16))})
    yield _case("outlived-undeclared-first", "llama", a=undeclared, b=llama(), c=heads("lm_head"))


def _pair(module: str) -> Shapes:
    stem = f"{PREFIX}{module}"
    return {f"{stem}.lora_A.weight": ("F32", (4, 16)), f"{stem}.lora_B.weight": ("F32", (16, 4))}
