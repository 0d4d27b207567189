"""AL219."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import Effect, Finding, Severity, raises
from adapterlint.model import peft
from adapterlint.model.keys import SHARED_PREFIX, Key
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base
from adapterlint.rules.tensors.noncanonical_prefix import VERA, vera_tensors
from adapterlint.rules.tensors.sharded_remnant import slot_mismatch

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding, Slot


class MethodShapeMismatch(Rule):
    """## What it does
    Compares the tensors of a method other than LoRA with the shapes that its config, and the base's layers, give them.

    ## Why is this bad?
    PEFT builds the layers from config and base and then copies the tensors in: another shape raises.

    ## Example
    `vera_lambda_d` of shape `[4]` beside `"r": 8`; a prompt of 20 rows beside `"num_virtual_tokens": 10`.

    ## Fix
    None that is sure: the config (or the base) is another one than the tensors were trained with.

    ## References
    - PEFT `tuners/<method>/layer.py`, `update_layer`; measured for each method, 0.4.0 to 0.21.2. VeRA's and PVeRA's
      projections are read since 0.21 only: before, they were made from the seed.
    """

    code = "AL219"
    name = "method-shape-mismatch"
    needs = ("config", "header")
    severity = Severity.ERROR

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("fits", VERA, vera_tensors(), llama_base()),
            Example("as far as the config tells", VERA, vera_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        prompt = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "token_dim": 16, "task_type": "CAUSAL_LM"}
        narrow = {
            name: (dtype, (8,) if "lambda_b" in name else shape) for name, (dtype, shape) in vera_tensors().items()
        }
        return [
            Example("another rank", {**VERA, "r": 8}, vera_tensors()),
            Example("another base", VERA, narrow, llama_base()),
            Example("a longer prompt", prompt, {"prompt_embeddings": ("F32", (6, 16))}),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        held = subject.held
        if held is None:
            return
        shapes = {name: tensor.shape for name, tensor in subject.adapter.tensors.items()}
        found = [(slot, key) for slot, key in held.misshapen(shapes) if 0 not in shapes[key.name]]
        if found:
            slot, key = found[0]
            shape = list(shapes[key.name])
            more = len(found) - 1
            yield self.finding(
                f"{key.name} is {shape}, but the config"
                f"{' and the base' if slot.module and subject.base else ''} make it {_shown(slot)}"
                + (f" (also {first_names([k.name for _, k in found[1:]], 2)})" if more else ""),
                subject.at_tensor(key.name),
                effects=tuple(_effects(subject, held, found)),
            )
        yield from self._half_precision(subject, held)
        yield from self._beside_prompt(subject, held)

    def _beside_prompt(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """A head saved beside a prompt, whose name other rules take for a misspelt one."""
        if not held.method.prompt or subject.base is None:
            return
        for name, key in subject.adapter.saved.items():
            stored, shape = subject.base.parameters.get(name), subject.adapter.shape(key)
            if key.prefix == SHARED_PREFIX and stored is not None and stored.shape != shape:
                text = peft.size_mismatch(peft.model_class(subject.adapter), SHARED_PREFIX + key.module)
                yield self.finding(
                    f"{name} is {list(shape)}, in the base {list(stored.shape)}",
                    subject.at_tensor(key.name),
                    effects=(raises("peft", text),),
                )
                return

    def _half_precision(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        """VB-LoRA scatters the chosen vectors' weights into a matrix of 32-bit numbers."""
        tensors = subject.adapter.tensors
        odd = [key for name, key in held.exact.items() if name.endswith("_topk_weights")]
        odd = [key for key in odd if tensors[key.name].dtype != "F32"]
        if odd:
            yield self.finding(
                f"{len(odd)} tensors are {tensors[odd[0].name].dtype}, which VB-LoRA cannot scatter into its matrix: "
                + first_names(key.name for key in odd),
                subject.at_tensor(odd[0].name),
                effects=(raises("peft", "RuntimeError: scatter(): Expected self.dtype to be equal to src.dtype"),),
            )


def _shown(slot: Slot) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in slot.shape) + "]"


def _effects(subject: Subject, held: Holding, found: list[tuple[Slot, Key]]) -> Iterator[Effect]:
    exact = [(slot, key) for slot, key in found if key.name == slot.name]
    plain = [(slot, key) for slot, key in exact if not _lately_read(slot) and slot.part != "shira_indices"]
    late = [(slot, key) for slot, key in exact if _lately_read(slot)]
    indices = [key for slot, key in exact if slot.part == "shira_indices"]
    if plain:
        yield slot_mismatch(subject, held, *plain[0])
    if late:
        yield slot_mismatch(subject, held, *late[0])._replace(targets="peft>=0.21")
    if indices:
        yield raises("peft", "RuntimeError", stage="after_load")
    named = [(slot, key) for slot, key in found if key in held.named]
    if named:
        yield slot_mismatch(subject, held, *named[0])._replace(targets="peft>=0.21")


def _lately_read(slot: Slot) -> bool:
    return slot.name.startswith(("base_model.vera_", "base_model.pvera_"))
