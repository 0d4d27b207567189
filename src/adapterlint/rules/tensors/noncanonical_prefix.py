"""AL201."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import Effect, Finding, Fix, Outcome, RenameTensor, Safety, Severity, raises, wrong
from adapterlint.model import peft
from adapterlint.model.keys import LORA_KINDS, PREFIX, PROMPT_TYPES, SHARED_PREFIX, Key, Kind
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config, renamed

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding

VERA = lora_config(peft_type="VERA", r=4, save_projection=True)


class NoncanonicalPrefix(Rule):
    """## What it does
    Looks for tensor names that do not start with exactly one `base_model.model.`, or that hold a wrapper which a
    training framework left behind: `module.`, `_orig_mod.`, `_fsdp_wrapped_module.`, `_checkpoint_wrapped_module.`.

    ## Why is this bad?
    PEFT drops a tensor whose name it does not find, without a word before 0.14 and with a warning about *missing*
    keys since. The adapter loads and the base model answers.

    ## Example
    `base_model.model._orig_mod.model.layers.0.self_attn.q_proj.lora_A.weight`.

    ## Fix
    Safe: the tensors are renamed; their bytes stay. Refused where two names would become one.

    ## References
    - peft#2957, peft#2699, Automodel#3595.
    - Measured on 0.4.0 to 0.21.2: no release finds such a tensor.
    """

    code = "AL201"
    name = "noncanonical-prefix"
    needs = ("config", "header")
    damage = "peft_model"

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("canonical", lora_config(), llama_tensors()),
            Example(
                "prompt tuning has no prefix",
                {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "token_dim": 16},
                {"prompt_embeddings": ("F32", (4, 16))},
            ),
            Example("shared tensors stand one level higher", VERA, vera_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        def change(old: str, new: str) -> dict[str, tuple[str, tuple[int, ...]]]:
            return renamed(llama_tensors(), lambda name: name.replace(old, new, 1))

        return [
            Example("no prefix", lora_config(), change(PREFIX, "")),
            Example("doubled prefix", lora_config(), change(PREFIX, PREFIX * 2)),
            Example("DistributedDataParallel", lora_config(), change(PREFIX, "module." + PREFIX)),
            Example("torch.compile", lora_config(), change(PREFIX, PREFIX + "_orig_mod.")),
            Example("FSDP, inside", lora_config(), change("self_attn.", "_fsdp_wrapped_module.self_attn.")),
            Example("one layer only", lora_config(), change("model.layers.0.", "model.module.layers.0.")),
            Example("another method", VERA, renamed(vera_tensors(), lambda name: "module." + name)),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        held = subject.held
        if held is not None:
            yield from self._of_method(subject, held)
            return
        if not adapter.is_lora:
            return
        bad = [key for key in adapter.unusual if not key.has_canonical_prefix and _belongs(subject, key)]
        if not bad:
            return
        trained = [key for key in adapter.keys if key.kind in LORA_KINDS or key.kind is Kind.METHOD]
        everything = all(not key.has_canonical_prefix for key in trained)
        example = bad[0]
        count = f"all {len(bad)}" if len(bad) == len(adapter.keys) else f"{len(bad)} of {len(adapter.keys)}"
        yield self.finding(
            f"{_what(bad)} in {count} tensor names, so PEFT drops them: {first_names(key.name for key in bad)}",
            subject.at_tensor(example.name),
            effects=tuple(_effects(subject, bad, everything)),
            fix=rename_fix(subject, bad, "canonical names"),
            severity=Severity.ERROR,
        )

    def _of_method(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """A method's own tensors, and those of saved modules beside them."""
        full = [key for key in subject.adapter.full_keys if _misplaced(subject, key)]
        bad = [*held.prefixed, *full]
        if not bad:
            return
        count = f"all {len(bad)}" if len(bad) == len(subject.adapter.keys) else f"{len(bad)}"
        yield self.finding(
            f"{_what(bad)} in {count} tensor names, so PEFT does not find them: "
            + first_names(key.name for key in bad),
            subject.at_tensor(bad[0].name),
            effects=tuple(_method_effects(subject, held, full)),
            fix=rename_fix(subject, bad, "canonical names"),
            severity=Severity.ERROR,
        )


def _misplaced(subject: Subject, key: Key) -> bool:
    return key.name != canonical_name(subject, key) and key.infix is None and _belongs(subject, key)


def canonical_name(subject: Subject, key: Key) -> str:
    """The name under which PEFT reads a tensor; a prompt leaves the base unwrapped, one level higher."""
    if subject.adapter.peft_type in PROMPT_TYPES and key.kind is Kind.FULL:
        return SHARED_PREFIX + key.full_name
    return key.canonical


def _method_effects(subject: Subject, held: Holding, full: list[Key]) -> Iterator[Effect]:
    """Since 0.21 PEFT also finds a shared tensor behind a doubled prefix, unless it is one of several."""
    shared = [key for key in held.prefixed if key.kind is Kind.SHARED and "." not in key.parameter]
    doubled = [key for key in shared if key.name == PREFIX + key.canonical]
    inert = not held.finds_something and held.method.idle(held.options)
    for range_, unread, found in (
        ("peft<0.21", held.prefixed, list(held.exact)),
        ("peft>=0.21", [k for k in held.prefixed if k not in doubled], [*held.exact, *(k.canonical for k in doubled)]),
    ):
        if held.lost(unread) or full:
            yield wrong(range_, inert=inert)
        exception = held.lacks(found)
        if exception is not None and held.lacks([*found, *(key.canonical for key in unread)]) is None:
            yield raises(range_, exception)
    lost = lost_saved(subject, full)
    if lost:
        yield raises("peft>=0.15", f"KeyError: '{lost[0]}'")


def _belongs(subject: Subject, key: Key) -> bool:
    """Whether the tensor is of this adapter at all: bare words such as ``scale`` are AL204's.

    Other methods share tensors that belong to no module (VeRA's ``base_model.vera_A``); only per-module ones count.
    """
    if key.kind is Kind.FULL and not subject.adapter.is_lora:
        return peft.saved_root(subject.saved_names, key.module) is not None
    if key.kind is Kind.FULL:
        return bool(key.module) and named_like_a_parameter(subject, key)
    return key.kind in LORA_KINDS or bool(key.module)


def named_like_a_parameter(subject: Subject, key: Key) -> bool:
    """Whether a full tensor can be one of a model: a ``step`` or an ``epoch`` that a trainer added cannot."""
    parameters = subject.base.parameters if subject.base else ()
    return key.parameter in ("weight", "bias") or any(name.endswith(f".{key.parameter}") for name in parameters)


def _what(bad: list[Key]) -> str:
    wrappers = sorted({wrapper for key in bad for wrapper in key.wrappers})
    if wrappers:
        return "wrapper " + ", ".join(f"{wrapper!r}" for wrapper in wrappers)
    prefixes = sorted({key.prefix for key in bad})
    if prefixes == [""]:
        return f"no {PREFIX!r} in front"
    return "prefix " + ", ".join(f"{prefix!r}" for prefix in prefixes) + f" instead of {PREFIX!r}"


def _effects(subject: Subject, bad: list[Key], everything: bool) -> Iterator[Effect]:
    yield Effect(Outcome.WRONG, "peft", stage="after_load", inert=everything)
    dropped = _dropped_natively(bad)
    if dropped is not None:
        yield Effect(Outcome.WRONG, dropped, stage="after_load", inert=everything, operation="native")
    lost = lost_saved(subject, bad)
    if lost:
        yield raises("peft>=0.15", f"KeyError: '{lost[0]}'")
    lost = lost_saved(subject, [key for key in bad if key.prefix or key.wrappers])
    if lost:
        yield raises("peft>=0.15", f"KeyError: '{lost[0].removeprefix(PREFIX)}'", operation="native")


def _dropped_natively(bad: list[Key]) -> str | None:
    """Where transformers' own loader drops the tensors; None if nowhere.

    It takes one prefix away, if there is one, and PEFT since 0.20 another one.
    """
    if any(key.wrappers for key in bad) or {key.prefix for key in bad} - {"", PREFIX * 2}:
        return "peft"
    return "peft<0.20" if any(key.prefix for key in bad) else None


def lost_saved(subject: Subject, keys: list[Key]) -> list[str]:
    """Canonical names of declared saved-module tensors among the keys, which PEFT 0.15 and later look up by name."""
    stored = subject.adapter.tensors
    return [
        canonical_name(subject, key)
        for key in keys
        if key.kind is Kind.FULL
        and key.infix != "original_module"
        and canonical_name(subject, key) not in stored
        and peft.saved_root(subject.saved_names, key.module) is not None
    ]


def rename_fix(subject: Subject, keys: list[Key], what: str, safety: Safety = Safety.SAFE) -> Fix:
    """Rename tensors to their canonical names; display only where two would become one."""
    stored = set(subject.adapter.tensors)
    names = [(key.name, canonical_name(subject, key)) for key in keys]
    renames = [(old, new) for old, new in names if old != new]
    staying = stored - {old for old, _ in renames}
    clash = next(
        (name for name, count in Counter(new for _, new in renames).items() if count > 1 or name in staying), None
    )
    if clash is not None:
        return Fix(f"Remove one of the tensors that would both be named {clash}", Safety.DISPLAY)
    return Fix(f"Rename {len(renames)} tensors to {what}", safety, tuple(RenameTensor(a, b) for a, b in renames))


def vera_tensors() -> dict[str, tuple[str, tuple[int, ...]]]:
    """VeRA for the modules of the tiny Llama: two vectors each, and the projections of the whole model."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "base_model.vera_A": ("F32", (4, 16)),
        "base_model.vera_B": ("F32", (16, 4)),
    }
    for name in llama_tensors():
        if name.endswith("lora_A.weight"):
            stem = name.removesuffix("lora_A.weight")
            tensors |= {f"{stem}vera_lambda_b": ("F32", (16,)), f"{stem}vera_lambda_d": ("F32", (4,))}
    return tensors
