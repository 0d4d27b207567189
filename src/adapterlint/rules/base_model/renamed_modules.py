"""AL408."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Safety, Severity, inert, raises, unknown, wrong
from adapterlint.model import layouts, peft
from adapterlint.model.adapter import Adapter
from adapterlint.model.base import Base
from adapterlint.model.subject import Subject, first_names
from adapterlint.releases import parts_of
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, BaseExample, Example, llama_base, llama_tensors, lora_config, renamed

_MISSING = ("transformers",)
_SAY = Fix(
    "Load it with transformers before 4.52, or give the tensors the names that the base has since", Safety.DISPLAY
)


class RenamedModules(Rule):
    """## What it does
    Looks for adapters of vision-language models whose modules have another path before or after transformers 4.52: the
    wrapper's `language_model.model.` became `model.language_model.`, Qwen2-VL's `model.` became
    `model.language_model.`. Which release of transformers loads the base no adapter says. For a target that names none,
    verdicts are for those of PEFT's time, before 4.52 up to PEFT 0.14, 4.57 from 0.16 on, and `unknown` where they may
    not be kept to.

    ## Why is this bad?
    Old names load with transformers before 4.52. With later ones PEFT up to 0.15 finds none of them and the base
    answers alone. From 0.16 on PEFT renames them in `from_pretrained`, but not in `load_adapter`, so that the second
    adapter of a set is lost; with transformers 5 it renames the LoRA tensors of LLaVA and its kin from 0.19 on, those
    of Qwen2-VL never, and saved modules never (a KeyError). A `target_modules` that spells the old path out matches
    nothing (a ValueError). New names load with transformers 4.52 and later only.

    ## Example
    `base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight` on LLaVA.

    ## Fix
    None in the files that serves every release: keep to the transformers of the time, or rename the tensors.

    ## References
    - transformers#38627; peft#2566; PEFT `utils/save_and_load.py`, `load_peft_weights`.
    - Measured for LLaVA and Qwen2-VL on 0.6.2 to 0.21.2 with transformers 4.48.3, 4.57.1 and 5.23.0.
    """

    code = "AL408"
    name = "renamed-modules"
    needs = ("config", "header", "base")

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("a text model", lora_config(), llama_tensors(), llama_base()),
            Example("a part that was never moved", _config(["lm_head"]), _head(), _qwen()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        path = r"language_model\.model\..*\.(q_proj|v_proj)"
        return [
            Example("old names", _config(), _old(), _llava()),
            Example("new names", _config(), _new(), _llava()),
            Example("the old path spelt out", _config(path), _old(), _llava()),
            Example("beside the vision tower", _config(), llama_tensors(), _qwen()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base = subject.base
        other = layouts.twin(base) if base is not None else None
        if base is None or other is None:
            return
        beginnings = layouts.moves(base.model_type)
        present = [key for key in subject.adapter.keys if key.module in base.modules]
        new = layouts.is_new((key.module for key in present), beginnings)
        if new:
            moving = [key for key in present if layouts.is_new((key.module + ".",), beginnings)]
            effects = tuple(_new_effects(subject.adapter, other))
            text = "so only since transformers 4.52; before, it answers without them"
        else:
            moving = [key for key in present if layouts.moved(key.module, beginnings) != key.module]
            modules = dict.fromkeys(key.module for key in moving if key.module in subject.adapter.modules)
            selection = peft.Selection(subject.adapter, other)
            lost = [module for module in modules if not selection(layouts.moved(module, beginnings))]
            saved = any(key.module not in modules for key in moving)
            effects = tuple(_old_effects(subject.adapter, other, bool(lost), saved))
            text = "otherwise since transformers 4.52" + (", and the targets spell the old path out" if lost else "")
        if moving:
            yield self.finding(
                f"{first_names(dict.fromkeys(key.module for key in moving), 1)} of {base.model_type} is called {text}",
                subject.at_tensor(moving[0].name),
                effects=effects,
                fix=None if new else _SAY,
                severity=Severity.NOTE if new else Severity.WARNING,
            )


def _new_effects(adapter: Adapter, base: Base) -> Iterator[Effect]:
    """The model, ``base``, had the old paths before 4.52."""
    yield unknown("peft<0.16", missing=_MISSING)
    old = "peft,transformers<4.52"
    yield from _unmatched(adapter, base, old) or (inert(old),)


def _old_effects(adapter: Adapter, base: Base, spelt: bool, saved: bool) -> Iterator[Effect]:
    """The model, ``base``, has the new paths since 4.52."""
    if spelt:
        yield unknown("peft>=0.15", missing=_MISSING)
        new = "peft,transformers>=4.52"
        yield from _unmatched(adapter, base, new) or (wrong(new),)
        return
    yield unknown("peft>=0.15" if saved else "peft>=0.15,<0.16", missing=_MISSING)
    yield unknown("peft>=0.16", missing=_MISSING, scope="set")
    yield inert("peft<0.16,transformers>=4.52")
    if saved:
        yield unknown("peft>=0.16,transformers>=4.52")
        return
    yield wrong("peft>=0.16,transformers>=4.52,<5", scope="set")
    since = "0.19" if layouts.renamed_by_five(base.model_type) else ""
    yield inert(f"peft>=0.16{f',<{since}' if since else ''},transformers>=5")


def _unmatched(adapter: Adapter, base: Base, targets: str) -> list[Effect]:
    """What PEFT raises where none of the model's modules is a target."""
    if any(map(peft.Selection(adapter, base), base.modules)):
        return []
    text, (own, bounds) = peft.not_found(adapter.get("target_modules")), parts_of(targets)
    return [
        raises(f"{own}<0.21,{bounds}", f"ValueError: {text}"),
        raises(f"{own}>=0.21,{bounds}", f"NoMatchingPeftModuleError: {text}"),
    ]


def _config(targets: str | list[str] | None = None) -> dict[str, object]:
    return lora_config(target_modules=targets or ["q_proj", "v_proj"])


def _old() -> dict[str, tuple[str, tuple[int, ...]]]:
    return renamed(
        llama_tensors(), lambda name: name.replace("model.model.model.", "model.model.language_model.model.")
    )


def _new() -> dict[str, tuple[str, tuple[int, ...]]]:
    return renamed(
        llama_tensors(), lambda name: name.replace("model.model.model.", "model.model.model.language_model.")
    )


def _head() -> dict[str, tuple[str, tuple[int, ...]]]:
    stem = "base_model.model.lm_head"
    return {f"{stem}.lora_A.weight": ("F32", (4, 16)), f"{stem}.lora_B.weight": ("F32", (48, 4))}


_TOWER = {"intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "projection_dim": 16}


def _llava() -> BaseExample:
    text = llama_base()
    tower = {"multi_modal_projector.linear_1.weight": ("F32", (16, 16))}
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": text.config,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "image_size": 8,
            "patch_size": 4,
            **_TOWER,
        },
        "image_token_index": 47,
    }
    return BaseExample(config, {**renamed(text.tensors, lambda name: f"language_model.{name}"), **tower})


def _qwen() -> BaseExample:
    text = llama_base()
    config = {
        **text.config,
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vision_config": {
            "depth": 1,
            "embed_dim": 16,
            "hidden_size": 16,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        **{f"{name}_token_id": 40 + n for n, name in enumerate(("image", "video", "vision_start", "vision_end"))},
    }
    return BaseExample(config, {**text.tensors, "visual.merger.mlp.0.weight": ("F32", (64, 64))})
