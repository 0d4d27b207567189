"""AL205."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from adapterlint.findings import Effect, Finding, Fix, Outcome, Safety, SetConfig, raises, wrong
from adapterlint.model import peft
from adapterlint.model.patterns import error_in
from adapterlint.model.subject import Subject, first_names
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_base, llama_tensors, lora_config
from adapterlint.rules.tensors.noncanonical_prefix import VERA, vera_tensors

if TYPE_CHECKING:
    from adapterlint.model.holding import Holding

# Methods that look for their layers before anything else does.
_FINDERS = {"VERA": "VeRA", "PVERA": "PVeRA", "RANDLORA": "RandLora", "FROD": "FRoD"}


class UncoveredTensor(Rule):
    """## What it does
    Looks for LoRA tensors of modules that `target_modules` (with `exclude_modules`, `layers_to_transform`,
    `layers_pattern`) does not select, as PEFT matches: a list entry is a name or a suffix after a dot, a text is a
    regular expression that must match the whole path.

    ## Why is this bad?
    PEFT builds no layer there and drops the tensors without any warning, in every release. If nothing matches at all,
    the load raises.

    ## Example
    `"target_modules": ["q_proj"]` beside tensors of `v_proj`; `"target_modules": "q_proj"` (a text, so it must match
    the whole path).

    ## Fix
    Safe: the list is rebuilt from the stored tensors, when it then selects exactly their modules.

    ## References
    - PEFT `tuners/tuners_utils.py`, `check_target_module_exists`; measured on 0.4.0 to 0.21.2; peft#758.
    """

    code = "AL205"
    name = "uncovered-tensor"
    needs = ("config", "header")
    drops = True

    @staticmethod
    def valid() -> list[AnyExample]:
        regex = r".*\.(q_proj|v_proj)"
        return [
            Example("list", lora_config(), llama_tensors()),
            Example("regular expression", lora_config(target_modules=regex), llama_tensors()),
            Example("default targets", lora_config(target_modules=None), llama_tensors()),
            Example("some layers", lora_config(layers_to_transform=[0]), llama_tensors(layers=1), llama_base()),
            Example(
                "wider than the tensors", lora_config(target_modules=["q_proj", "v_proj", "o_proj"]), llama_tensors()
            ),
            Example("all-linear", lora_config(target_modules="all-linear"), llama_tensors(), llama_base()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example("one name is missing", lora_config(target_modules=["q_proj"]), llama_tensors()),
            Example(
                "a text that should be a list", lora_config(target_modules="q_proj"), llama_tensors(), llama_base()
            ),
            Example("no regular expression", lora_config(target_modules=".*(q_proj"), llama_tensors(), llama_base()),
            Example("nothing matches", lora_config(target_modules=["to_q", "to_v"]), llama_tensors(), llama_base()),
            Example("empty list", lora_config(target_modules=[]), llama_tensors()),
            Example("excluded", lora_config(exclude_modules=["v_proj"]), llama_tensors(), llama_base()),
            Example("layers left out", lora_config(layers_to_transform=[0]), llama_tensors(), llama_base()),
            Example("another method", {**VERA, "target_modules": ["q_proj"]}, vera_tensors(), llama_base()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if subject.held is not None:
            yield from self._of_method(subject, subject.held)
        if not adapter.is_lora or not adapter.modules or adapter.get("target_parameters"):
            return
        if len(subject.covered) == len(adapter.modules) and not _by_layer(subject):
            return
        lost = _lost(subject, subject.selection)
        earlier = [] if lost else [m for _, selection in _by_layer(subject) for m in _lost(subject, selection)]
        if not lost and not earlier:
            return
        total = len(adapter.modules)
        leaving = list(dict.fromkeys(lost or earlier))
        field = "exclude_modules" if any(subject.selection.excluded(module) for module in lost) else "target_modules"
        what = f"{field} leaves out {len(leaving)} of {total} modules that the file has LoRA tensors for: "
        if not lost:
            what = "before PEFT 0.20 layers_to_transform means another number in the paths of "
        yield self.finding(
            what + first_names(leaving),
            subject.at_field(field if lost else "layers_to_transform"),
            effects=tuple(_effects(subject, lost)),
            related=tuple(
                subject.at_tensor(key.name, "dropped") for key in list(adapter.modules[leaving[0]].by_kind.values())[:1]
            ),
            fix=_fix(subject),
        )

    def _of_method(self, subject: Subject, held: Holding) -> Iterator[Finding]:
        lost = list(dict.fromkeys(key.module for key in held.uncovered))
        if not lost and not held.method.prompt and subject.base is not None and matches_nothing(subject):
            yield self.finding(
                f"target_modules selects no module of {subject.base.path}",
                subject.at_field("target_modules"),
                effects=tuple(_method_effects(subject, held, lost)),
            )
        if not lost:
            return
        field = "exclude_modules" if any(subject.selection.excluded(module) for module in lost) else "target_modules"
        yield self.finding(
            f"{field} leaves out {len(lost)} modules that the file has {subject.adapter.peft_type} tensors for: "
            + first_names(lost),
            subject.at_field(field),
            effects=tuple(_method_effects(subject, held, lost)),
            related=(subject.at_tensor(held.uncovered[0].name, "dropped"),),
            fix=_method_fix(subject, held),
        )


def _method_effects(subject: Subject, held: Holding, lost: list[str]) -> Iterator[Effect]:
    if matches_nothing(subject):
        name = _FINDERS.get(subject.adapter.peft_type or "")
        if name is None:
            yield from nothing_matches(subject)
        else:
            text = f"ValueError: No layer{'' if name == 'FRoD' else 's'} types compatible with {name} were found."
            yield raises("peft", text)
        return
    inert = not held.finds_something and held.method.idle(held.options)
    yield wrong("peft>=0.6", inert=inert)
    for targets, selection in _early_selections(subject):
        if not all(selection(module) for module in lost):
            yield wrong(targets, inert=inert)


def _method_fix(subject: Subject, held: Holding) -> Fix:
    """What a method works out from all of its targets together is not restored by naming them in another order."""
    title = "List the trained modules in target_modules"
    shares = any(not slot.module for slot in held.slots.values()) or not held.method.idle(held.options)
    # Tensors that are dropped for another reason stay in modules that are selected, or the next fix undoes this one.
    stray = [key for key in held.stray if subject.module_exists(key.module) is not False]
    stored = [key.module for key in (*held.exact.values(), *held.uncovered, *stray) if key.module]
    names = derive_targets(subject, list(dict.fromkeys(stored)))
    if shares or names is None or held.options("feedforward_modules"):
        return Fix(title, Safety.DISPLAY)
    return list_targets(subject, names)


def _lost(subject: Subject, selection: peft.Selection) -> list[str]:
    """Modules with LoRA tensors that a selection leaves out."""
    return [
        module
        for module in subject.adapter.modules
        if not selection(module)
        and peft.saved_root(subject.saved_names, module) is None
        and subject.module_exists(module) is not False
    ]


def _effects(subject: Subject, lost: list[str]) -> Iterator[Effect]:
    adapter = subject.adapter
    if matches_nothing(subject):
        yield from nothing_matches(subject)
        return
    now = "peft>=0.20" if _by_layer(subject) else "peft>=0.6"
    if lost:
        yield Effect(Outcome.WRONG, now, stage="after_load", inert=len(adapter.modules) == len(lost))
    for early, selection in (*_by_layer(subject), *_early_selections(subject)):
        left = _lost(subject, selection)
        if left and not any(selection(module) for module in _universe(subject)):
            yield raises(early, f"ValueError: {peft.not_found(_as_set(adapter.get('target_modules')))}")
        elif left:
            yield Effect(Outcome.WRONG, early, stage="after_load", inert=len(adapter.modules) == len(left))


def _by_layer(subject: Subject) -> tuple[tuple[str, peft.Selection], ...]:
    """How releases before 0.20 select, where their choice of the layer's number may matter."""
    if subject.adapter.get("layers_to_transform") is None:
        return ()
    return (
        ("peft>=0.6,<0.8", peft.Selection(subject.adapter, subject.base, numbering="common")),
        ("peft>=0.8,<0.20", peft.Selection(subject.adapter, subject.base, numbering="last")),
    )


def _early_selections(subject: Subject) -> Iterator[tuple[str, peft.Selection]]:
    """How the releases before 0.6 match targets."""
    yield "peft<0.5", peft.Selection(subject.adapter, subject.base, legacy=True)
    yield "peft>=0.5,<0.6", peft.Selection(subject.adapter, subject.base, legacy=True, dotted=True)


def _universe(subject: Subject) -> Iterable[str]:
    """Modules of the base or, without one, those that have tensors."""
    if subject.base is not None:
        return subject.base.modules
    return subject.adapter.modules if subject.held is None else {key.module for key in subject.adapter.keys}


def matches_nothing(subject: Subject) -> bool:
    """Whether the targets select no module at all, as far as base (or, without one, stored names) tell."""
    return not any(subject.selection(module) for module in _universe(subject))


def nothing_matches(subject: Subject) -> Iterator[Effect]:
    """The exceptions of targets that select no module, by release.

    From 0.14 to 0.20 the check counts the modules of earlier adapters too, so that it is silent for a later one in a
    set; :mod:`adapterlint.rules.sets.unmatched_targets` says so there.
    """
    targets = subject.adapter.get("target_modules")
    if isinstance(targets, str) and (broken := error_in(targets)):
        yield raises("peft", broken)
        return
    old = repr(targets) if isinstance(targets, list) else str(targets)
    new = _as_set(targets)
    empty = (
        "No `target_modules` passed but also no `target_parameters` found. Please check the values for these arguments."
    )
    for early, selection in _early_selections(subject):
        if not any(selection(module) for module in _universe(subject)):
            yield raises(early, f"ValueError: {peft.not_found(old)}")
        elif not all(selection(module) for module in subject.adapter.modules):
            yield wrong(early)
    yield raises("peft>=0.6,<0.14", f"ValueError: {peft.not_found(new)}")
    yield raises("peft>=0.14,<0.17", f"ValueError: {peft.not_found(new)}", scope="alone")
    text = empty if targets == [] else peft.not_found(new)
    yield raises("peft>=0.17,<0.21", f"ValueError: {text}", scope="alone")
    yield raises("peft>=0.21", f"NoMatchingPeftModuleError: {text}")


def _as_set(targets: object) -> str:
    if not isinstance(targets, list):
        return str(targets)
    return "{" + ", ".join(repr(name) for name in targets) + "}" if targets else "set()"


def _fix(subject: Subject) -> Fix:
    names = derive_targets(subject)
    if names is None:
        return Fix("List the trained modules in target_modules", Safety.DISPLAY)
    return list_targets(subject, names)


def list_targets(subject: Subject, names: list[str]) -> Fix:
    """Set ``target_modules`` to these names alone; what else narrows the choice of modules is emptied."""
    edits = [SetConfig("/target_modules", names)]
    for field in ("exclude_modules", "layers_to_transform", "layers_pattern"):
        if subject.adapter.get(field) not in (None, []):  # layers_to_transform 0 is the first layer
            edits.append(SetConfig(f"/{field}", None))
    return Fix(
        f"Set target_modules to {names if len(names) <= 4 else f'{len(names)} names'}", Safety.SAFE, tuple(edits)
    )


def derive_targets(subject: Subject, trained: list[str] | None = None) -> list[str] | None:
    """Names that select exactly the modules with stored tensors: leaf names where they do, else full paths."""
    modules = trained or list(subject.adapter.modules)
    if not modules or "" in modules:  # no name selects the tensors of a module without a path
        return None
    return peft.names_for(modules, subject.base.modules if subject.base else modules)
