"""AL218."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import Effect, Finding, Severity, raises, unknown, wrong
from adapterlint.model.subject import Subject, first_names
from adapterlint.releases import version_key
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, lora_config
from adapterlint.rules.tensors.noncanonical_prefix import VERA, vera_tensors

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding, Slot


class IncompleteMethod(Rule):
    """## What it does
    Looks for tensors that a method other than LoRA needs and the file lacks: one of the several that a module has, one
    that the whole model shares, or all of them.

    ## Why is this bad?
    PEFT keeps the start value, silently before 0.14 and with a warning since: the module does nothing, or answers at
    random. Shared tensors on which PEFT insists, and a prompt, raise.

    ## Example
    `hada_w1_a` without `hada_w2_b`; a VeRA adapter with `"save_projection": true` and no `base_model.vera_A`.

    ## Fix
    None: the tensors are lost. Projections that a seed makes again need `"save_projection": false` only.

    ## References
    - PEFT `tuners/<method>/model.py`, `_remap_adapter_state_dict_for_load`; measured for each method, 0.4.0 to 0.21.2.
    """

    code = "AL218"
    name = "incomplete-method"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        prompt = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "token_dim": 16, "task_type": "CAUSAL_LM"}
        unsaved = {name: entry for name, entry in vera_tensors().items() if "vera_lambda" in name}
        return [
            Example("complete", VERA, vera_tensors(), llama_base()),
            Example("projections from the seed", {**VERA, "save_projection": False}, unsaved, llama_base()),
            Example("a prompt", prompt, {"prompt_embeddings": ("F32", (4, 16))}),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        def without(part: str) -> dict[str, tuple[str, tuple[int, ...]]]:
            return {name: entry for name, entry in vera_tensors().items() if part not in name}

        prompt = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "token_dim": 16, "task_type": "CAUSAL_LM"}
        bank = lora_config(peft_type="VBLORA", r=2, num_vectors=8, vector_length=8)
        logits = {"base_model.model.model.layers.0.self_attn.q_proj.vblora_logits_A": ("F32", (2, 2, 8))}
        return [
            Example("one of two vectors", VERA, without("vera_lambda_d"), llama_base()),
            Example("no projections", VERA, without("vera_A"), llama_base()),
            Example("nothing but projections", VERA, without("vera_lambda"), llama_base()),
            Example("half a VB-LoRA", bank, logits),
            Example("no prompt", prompt, {"prompt_encoder.default.embedding.weight": ("F32", (4, 16))}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        held = subject.held
        if held is None or not (subject.adapter.tensors or subject.adapter.peft_type in ("PVERA", "FROD")):
            return
        bare = set(held.bare())
        stray = {key.module for key in held.stray if key.module}
        some = any(held.slots[name].module for name in held.spelt)
        if bare and not some and not stray and not held.uncovered and subject.adapter.tensors:
            yield self._nothing(subject, held)
        torn = [slot for slot in held.missing() if slot.module and slot.module not in bare | stray]
        if torn:
            yield self._torn(subject, held, torn)
        yield from self._shared(subject, held)
        yield from self._made_anew(subject, held)

    def _nothing(self, subject: Subject, held: Holding) -> Finding:
        return self.finding(
            f"none of the tensors of a {subject.adapter.peft_type} adapter is stored",
            subject.at_file(subject.adapter.weights_file or ""),
            effects=(wrong(inert=held.method.idle(held.options)),),
        )

    def _torn(self, subject: Subject, held: Holding, torn: list[Slot]) -> Finding:
        modules = list(dict.fromkeys(slot.module for slot in torn))
        parts = list(dict.fromkeys(slot.part for slot in torn))
        beside = next(key for name, key in held.spelt.items() if held.slots[name].module == modules[0])
        return self.finding(
            f"{len(modules)} modules lack {first_names(parts)} beside their other {subject.adapter.peft_type} tensors: "
            + first_names(modules),
            subject.at_tensor(beside.name),
            effects=tuple(_effects(held, torn)),
        )

    def _shared(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        spelt = held.spelt
        lacking = [slot.name for slot in held.slots.values() if not slot.module and slot.name not in spelt]
        exception = held.lacks(spelt)
        lost = [slot.name for slot in held.missing() if not slot.module]
        if exception is not None:
            yield self.finding(
                f"PEFT insists on {first_names(lacking)}, which the file lacks",
                subject.at_file(subject.adapter.weights_file or ""),
                effects=(raises("peft", exception),),
            )
        elif lost and held.exact:
            yield self.finding(
                f"the file lacks {first_names(lost)}, which all modules share",
                subject.at_file(subject.adapter.weights_file or ""),
                effects=(wrong(),),
            )

    def _made_anew(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """What PEFT can work out again only in some releases, or only if the targets are still the same."""
        layers, peft_type = held.options.layers, subject.adapter.peft_type
        if peft_type == "TINYLORA":
            unsaved = not held.options("save_projection") and any("tinylora_P" not in x.stored for x in layers)
            if unsaved or any(s.part == "tinylora_P" and s.name not in held.exact for s in held.slots.values()):
                writer = subject.adapter.get("peft_version")
                early = unsaved and isinstance(writer, str) and version_key(writer) < version_key("0.20.0")
                yield self.finding(
                    "projections are not stored, and PEFT 0.19 makes other ones each time",
                    subject.at_field("save_projection"),
                    effects=(wrong("peft" if early else "peft<0.20"),),
                    severity=Severity.NOTE,
                )
        bare = [layer.module for layer in layers if not layer.stored]
        shares = peft_type == "UNILORA" or (peft_type == "TINYLORA" and held.options("weight_tying"))
        if shares and 0 < len(bare) < len(layers):
            yield self.finding(
                f"{len(bare)} selected modules have no stored tensors, and what all modules share works there, too: "
                + first_names(bare),
                subject.at_field("target_modules"),
                effects=(unknown(),),
            )


def _effects(held: Holding, torn: list[Slot]) -> Iterator[Effect]:
    """VB-LoRA reads the chosen vectors' indices and weights together, and raises when one of them is missing.

    What modules share may be filled in from another module's copy.
    """
    halves = [slot.name for slot in torn if slot.part.endswith("_topk_weights")]
    if halves:
        yield raises("peft", f"KeyError: '{halves[0]}'")
    stored = {held.slots[name].part for name in held.spelt}
    if all(slot.part in stored and slot.part.startswith(held.method.pooled) for slot in torn):
        yield unknown()
        return
    yield wrong(inert=not held.finds_something)
