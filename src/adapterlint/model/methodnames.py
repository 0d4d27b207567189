"""Which PEFT method wrote a file, as far as the names of its tensors tell."""

from __future__ import annotations

from adapterlint.model.adapter import Adapter
from adapterlint.model.keys import LORA_KINDS, METHOD_PREFIXES, PAIR_KINDS, Key, Kind

_SHARED = {
    "vera_": "VERA",
    "pvera_": "PVERA",
    "randlora_": "RANDLORA",
    "vblora_": "VBLORA",
    "unilora_": "UNILORA",
    "tinylora_": "TINYLORA",
    "frod_": "FROD",
}


def told_type(adapter: Adapter) -> str | None:
    """The only ``peft_type`` that names its tensors like the stored ones; None if none does, or several."""
    own = [key for key in adapter.keys if key.kind in LORA_KINDS or key.kind in (Kind.METHOD, Kind.SHARED)]
    found = {_type(key) for key in own}
    if found == {"LORA", "ADALORA"} or found == {"ADALORA"}:
        return "ADALORA" if any(key.suffix.startswith("lora_E") for key in own) else None
    return found.pop() if len(found) == 1 else None


def _type(key: Key) -> str | None:
    if key.kind in PAIR_KINDS:
        # AdaLoRA's halves are parameters, LoRA's are modules with a weight.
        bare = key.kind in (Kind.LORA_A, Kind.LORA_B) and not key.suffix.endswith("weight")
        return "ADALORA" if bare else "LORA"
    if key.kind in LORA_KINDS:
        return "LORA"
    if key.kind is Kind.SHARED:
        return next((name for prefix, name in _SHARED.items() if key.parameter.startswith(prefix)), None)
    if key.suffix.startswith("lora_E"):
        return "ADALORA"
    fitting = [name for name, prefix in METHOD_PREFIXES.items() if key.suffix.startswith(prefix)]
    return fitting[0] if len(fitting) == 1 else None
