"""Fixtures of which nobody can say what they were trained to be, those that are not loaded, and known faults."""

from __future__ import annotations

_INIT = "training began with changed base weights, which the fixture does not say"
_ALPHA = "the scale that it was trained with is not said"
_BIASES = "whether the biases were ever trained is not said"
_DECLARED = "whether the declared module was ever trained is not said"
_OFT = "no reference by hand for OFT; tests/methods has it, with PEFT's own answer as reference"
_OTHER_TEXT = "raises as predicted, but on some releases with another exception than claimed"
_UNTOLD = "adapterlint says that it cannot tell"
_STRAY = "what a tensor of no module was for is not said"
UNTOLD: dict[str, str] = {
    "AL005-valid-an-empty-tensor": _STRAY,
    "AL012-invalid-misaligned": _STRAY,
    "AL012-invalid-a-recent-dtype": _STRAY,
    "AL103-invalid-misspelt": _ALPHA,
    "AL107-invalid-no-alpha": _ALPHA,
    "AL108-valid-a-later-initialisation": _INIT,
    **{f"AL110-invalid-{word}": _INIT for word in ("pissa", "pissa-niter-4", "olora", "lora-ga")},
    "AL109-valid-lora-bias": _BIASES,
    "AL113-invalid-of-0-15": _OFT,
    "AL113-invalid-of-0-17": _OFT,
    "AL113-invalid-of-0-18": _OFT,
    "AL115-invalid-the-same-in-a-key": "the pattern matches nothing here, and elsewhere PEFT may never come back from it",
    "AL207-valid-adalora-has-ranks-of-its-own": "half an adapter: no singular values",
    "AL210-invalid-no-tensor-at-all": _DECLARED,
    "AL210-invalid-a-head-that-every-language-model-has": _DECLARED,
    "AL210-invalid-one-end-of-tied-embeddings": _DECLARED,
    "AL223-valid-twice-the-same": _UNTOLD,
    "AL223-invalid-both": _UNTOLD,
    "AL223-invalid-both-without-a-base": _UNTOLD,
    "AL519-invalid-the-part-second": _UNTOLD,
    **{
        f"AL513-{name}": "no reference by hand for TRAINABLE_TOKENS; measured with PEFT's own answers"
        for name in ("valid-nothing-but-rows", "invalid-nothing-but-rows-and-tied")
    },
    "AL213-invalid-lora-bias-without-biases": _BIASES,
    "AL213-invalid-nor-by-another-method": _BIASES,
    "AL215-invalid-nothing-stored": _DECLARED,
    "AL215-invalid-without-a-base": _DECLARED,
    "AL215-invalid-another-module-s-classifier": _DECLARED,
    "AL215-valid-another-head-without-a-base": _DECLARED,
    "AL218-invalid-half-a-vb-lora": "no reference by hand for VB-LoRA; tests/methods has it",
    "AL302-valid-another-method": "no adapter: IA3 in name, LoRA in its tensors",
    "AL409-invalid-one-of-two-that-are-one-now": _UNTOLD,
    "AL409-invalid-single-experts": _UNTOLD,
    "AL402-invalid-a-parameter-that-the-base-lacks": "what the base it was trained on does with it is not said",
}
"""Why nobody can say what is right. A release that raises is held against the prediction all the same."""

SKIPPED: dict[str, str] = {
    "AL104-valid-known-since-the-type-exists": "no weights and no targets: which of the two is met first is not claimed",
    "AL114-invalid-unknown-base": "no weights and no length: which of the two is met first is not claimed",
    "AL301-valid-no-elements": "a tensor of a module that no base has",
    "AL001-valid-a-directory-above-adapters": "no adapter itself; PEFT is not asked to load it",
    "AL115-invalid-a-repeat-inside-a-repeat": "PEFT may never come back from matching the pattern",
    "AL221-invalid-x-lora": _UNTOLD,
    **{
        f"AL408-{name}": "depends on the release of transformers; tests/conformance/test_beside_transformers.py has it"
        for name in (
            *("valid-a-part-that-was-never-moved", "invalid-old-names", "invalid-new-names"),
            *("invalid-the-old-path-spelt-out", "invalid-beside-the-vision-tower"),
        )
    },
    "AL407-invalid-a-masked-language-model": _UNTOLD,
    "AL409-valid-stacked-in-the-checkpoint-too": "transformers 5 reads such a checkpoint; measured there",
    "AL409-invalid-stacked-experts": _UNTOLD,
    **{
        f"AL410-{name}": "needs bitsandbytes; measured with it"
        for name in (
            *("valid-a-head-that-stays-as-it-is", "valid-lora-on-quantised-layers", "invalid-a-quantised-layer"),
        )
    },
}
"""Why a fixture is not loaded at all."""

KNOWN: dict[str, str] = {}
"""Where adapterlint and a release disagree, and how: rows that the table lacks until the rule is mended."""
