"""AL207."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from adapterlint.findings import Effect, Finding, Fix, Safety, Severity, pointer_to, raises
from adapterlint.model import peft
from adapterlint.model.adapter import stored_rank
from adapterlint.model.keys import PAIR_KINDS, Key
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, lora_pair


class RankMismatch(Rule):
    """## What it does
    Compares the rank of every stored LoRA pair with the rank that the config gives its module (`r`, or the entry of
    `rank_pattern` that matches it).

    ## Why is this bad?
    PEFT builds the layers from the config and then copies the tensors in: another rank is a size mismatch, and the
    load raises on every release.

    ## Example
    `"r": 8` beside tensors `lora_A.weight` of shape `[4, 16]`.

    ## Fix
    Unsafe: `r`, or `rank_pattern` where ranks differ, is set to what the shapes prove, and every module keeps the alpha
    that the config gives it. So the scale is the written alpha over the stored rank, which is a choice: the file does
    not say which of the two is the typing error. Safe: pattern keys that old releases do not match become full names.
    None where the halves of a pair disagree, or `lora_alpha` is absent.

    ## References
    - PEFT `tuners/lora/model.py`, `_create_and_replace`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL207"
    name = "rank-mismatch"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        mixed = {
            **llama_tensors(4, layers=1),
            **lora_pair("model.layers.1.self_attn.q_proj", 2),
            **lora_pair("model.layers.1.self_attn.v_proj", 4),
        }
        return [
            Example("rank as configured", lora_config(r=4), llama_tensors(4)),
            Example("rank_pattern by suffix", lora_config(rank_pattern={"layers.1.self_attn.q_proj": 2}), mixed),
            Example("embedding", lora_config(target_modules=["embed_tokens"]), _embedding(4)),
            Example("adalora has ranks of its own", lora_config(peft_type="ADALORA", r=8), llama_tensors(4)),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("r is too large", lora_config(r=8), llama_tensors(4)),
            Example("r is absent and the rank is not 8", lora_config(r=...), llama_tensors(4)),
            Example(
                "rank_pattern was lost",
                lora_config(),
                {**llama_tensors(4, 1), **lora_pair("model.layers.1.self_attn.q_proj", 2)},
            ),
            Example("embedding", lora_config(target_modules=["embed_tokens"], r=2), _embedding(4)),
            Example(
                "anchored, which only PEFT 0.15 and newer match",
                lora_config(rank_pattern={"^model.layers.1.self_attn.q_proj": 2}),
                {**llama_tensors(4), **lora_pair("model.layers.1.self_attn.q_proj", 2)},
            ),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        if not subject.adapter.is_lora or subject.adapter.get("use_bdlora"):
            return  # block-diagonal halves have other shapes
        if _uniform(subject):
            return
        wrong: dict[tuple[Any, int], list[Key]] = {}
        eras: Counter[str] = Counter()
        for key in subject.adapter.lora_keys:
            stored = stored_rank(key.kind, subject.adapter.shape(key))
            if stored is None or stored == 0 or key.module not in subject.covered:
                continue
            if not (is_read(key) or read_by_name(key)):
                continue
            expected = peft.rank(subject.adapter, key.module)
            if not isinstance(expected, int) or expected <= 0:
                continue  # AL106 and AL107 say it
            if expected != stored:
                wrong.setdefault((expected, stored), []).append(key)
                continue
            if subject.adapter.get("rank_pattern"):
                eras.update(
                    era for era in ("combined", "dotted") if peft.rank(subject.adapter, key.module, era) != stored
                )
        for (expected, stored), found in wrong.items():
            yield self._mismatch(subject, expected, stored, found)
        if eras and not wrong:
            yield self._old_patterns(subject, eras)

    def _mismatch(self, subject: Subject, expected: Any, stored: int, found: list[Key]) -> Finding:
        adapter = subject.adapter
        source, pointer = _source(subject, found[0].module)
        modules = dict.fromkeys(key.module for key in found)
        message = (
            f"{source} {expected!r} but {len(modules)} "
            f"{'module stores' if len(modules) == 1 else 'modules store'} rank {stored}: {first_names(modules)}"
        )
        return self.finding(
            message,
            subject.at_config(pointer),
            related=(subject.at_tensor(found[0].name, f"shape {list(adapter.shape(found[0]))}"),),
            # Up to 0.5 there is no rank_pattern: r alone decides.
            effects=tuple(_effects(subject, stored, found)),
            fix=rank_fix(subject),
        )

    def _old_patterns(self, subject: Subject, eras: Counter[str]) -> Finding:
        effects = []
        if eras["combined"]:
            effects.append(raises("peft>=0.6,<0.14", peft.size_mismatch(peft.model_class(subject.adapter))))
        if eras["dotted"]:
            effects.append(raises("peft>=0.14,<0.15", peft.size_mismatch(peft.model_class(subject.adapter))))
        return self.finding(
            "rank_pattern has keys that PEFT before 0.15 does not match (anchors, or a rank and an alpha key that "
            "compete)",
            subject.at_field("rank_pattern"),
            effects=tuple(effects),
            fix=_full_names(subject),
            severity=Severity.WARNING,
        )


def _uniform(subject: Subject) -> bool:
    """Whether every matrix is stored with the one rank that the config names."""
    ranks = subject.adapter.ranks
    return len(ranks) == 1 and subject.adapter.get("r") in (*ranks,) and not subject.adapter.get("rank_pattern")


def rank_fix(subject: Subject) -> Fix:
    """The ranks that the tensors have, with the alphas that the config has."""
    from adapterlint.model.ranks import rank_edits  # needed for a broken adapter only

    edits = rank_edits(subject)
    if edits is None:
        return Fix("Set r to the stored rank, and lora_alpha so that the scale is the trained one", Safety.DISPLAY)
    return Fix("Set the ranks to those of the stored tensors, each alpha as it is", Safety.UNSAFE, edits)


def _full_names(subject: Subject) -> Fix | None:
    from adapterlint.model.ranks import full_patterns

    edits = full_patterns(subject)
    return Fix("Name the modules of the patterns in full", Safety.SAFE, edits) if edits else None


def _effects(subject: Subject, stored: int, found: list[Key]) -> Iterator[Effect]:
    """What is read by name alone is looked for since 0.21, as ``default`` or under the adapter's own name."""
    read = next((key for key in found if is_read(key)), None)
    if read is not None:  # up to 0.5 there is no rank_pattern: r alone decides
        yield size_mismatch(subject, read, "peft" if subject.adapter.get("r", 8) != stored else "peft>=0.6")
        return
    names = {key.adapter: key for key in reversed(found)}
    if "default" in names:
        yield size_mismatch(subject, names["default"], "peft>=0.21")._replace(scope="alone")
    if subject.adapter.name in names:
        yield size_mismatch(subject, names[subject.adapter.name], "peft>=0.21")._replace(scope="set")


def read_by_name(key: Key) -> bool:
    """Whether a LoRA tensor's name is canonical but for the adapter's in it."""
    return key.has_canonical_prefix and key.adapter is not None and key.kind in PAIR_KINDS


def is_read(key: Key) -> bool:
    """Whether PEFT finds the parameter of a LoRA tensor by its name: what it does not find has no shape to be wrong.

    A name that holds the adapter's is read since 0.21, under that very name (AL202).
    """
    return key.has_canonical_prefix and key.name == key.canonical


def size_mismatch(subject: Subject, key: Key, targets: str = "peft") -> Effect:
    """The exception of a LoRA tensor whose shape is not the layer's."""
    tail = next((end for end in (".weight", ".bias") if key.canonical.endswith(end)), "")
    name = key.canonical.removesuffix(tail)
    owner, shape = peft.model_class(subject.adapter), subject.adapter.shape(key)
    return raises(targets, peft.size_mismatch(owner, f"{name}.default{tail}", shape))


def _source(subject: Subject, module: str) -> tuple[str, str]:
    adapter = subject.adapter
    patterns = adapter.get("rank_pattern")
    if isinstance(patterns, dict) and peft.rank(adapter, module) != adapter.get("r", peft.DEFAULT_RANK):
        name = next((name for name, value in patterns.items() if value == peft.rank(adapter, module)), "")
        return f"rank_pattern[{name!r}] is", pointer_to("rank_pattern", name)
    if "r" in (adapter.config or {}):
        return "r is", "/r"
    return "r is absent, so PEFT takes", ""


def _embedding(r: int) -> dict[str, Any]:
    stem = "base_model.model.model.embed_tokens"
    return {f"{stem}.lora_embedding_A": ("F32", (r, 48)), f"{stem}.lora_embedding_B": ("F32", (16, r))}
