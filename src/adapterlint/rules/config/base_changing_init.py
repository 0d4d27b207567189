"""AL110."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Safety, SetConfig, Severity, raises, unknown
from adapterlint.model import schema
from adapterlint.model.newer import BASE_CHANGING, makes_linear
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_EIGENS = (
    "ValueError: `eigens` attribute not found for layer, please run `preprocess_corda` first. "
    "More information can be found at examples/corda_finetuning/README.md."
)
_SCIPY = "ImportError: The required package 'scipy' is not installed. Please install it to continue."
_CONVERT = "Save it again with path_initial_model_for_weight_conversion, which makes a plain LoRA of it"


class BaseChangingInit(Rule):
    """## What it does
    Looks for `init_lora_weights` that take a part of the base's weights into the adapter: PiSSA, OLoRA, CorDA, LoftQ,
    LoRA-GA.

    ## Why is this bad?
    PEFT takes the base apart again whenever such an adapter is loaded. That is right for a file saved as it was trained
    and wrong for one that was converted to plain LoRA but kept the word, and the file does not say which it is. CorDA
    needs data that is not in the file, LoftQ a quantised base: they raise. Serving engines ignore the word, or refuse.

    ## Example
    `"init_lora_weights": "pissa_niter_16"`

    ## Fix
    Unsafe, for CorDA only: `init_lora_weights` becomes `true`. No release loads such a file as it is, so nothing that
    works can break; the result is right if the adapter was converted when it was saved, which no file tells. None for
    the others: the word alone must not be changed, that would break an unconverted file, which is right now. Convert
    the adapter with `save_pretrained(path_initial_model_for_weight_conversion=…)` where it was trained.

    ## References
    - PEFT `tuners/lora/layer.py`, `pissa_init`, `olora_init`, `corda_init`, `loftq_init`; measured on 0.4.0 to 0.21.2.
    """

    code = "AL110"
    name = "base-changing-init"
    severity = Severity.WARNING

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("plain", lora_config(init_lora_weights=True), llama_tensors()),
            Example("the base stays", lora_config(init_lora_weights="eva"), llama_tensors()),
            Example("not this word", lora_config(init_lora_weights="PiSSA"), llama_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example(word, lora_config(init_lora_weights=word), llama_tensors())
            for word in ("pissa", "pissa_niter_4", "OLoRA", "corda", "loftq", "lora_ga")
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        value = subject.adapter.get("init_lora_weights")
        if not subject.adapter.is_lora or not isinstance(value, str):
            return
        word, kind = value.lower(), schema.config_type("LORA")
        if not word.startswith(BASE_CHANGING) or kind is None or not makes_linear(subject):
            return
        if not schema.fits(value, kind.fields["init_lora_weights"][-1].kind):
            return
        yield self.finding(
            f"init_lora_weights {value!r} took a part of the base's weights into the adapter; whether the file was "
            "converted back cannot be seen in it",
            subject.at_field("init_lora_weights"),
            effects=tuple(_effects(word)),
            fix=_plain() if word.startswith("corda") else Fix(_CONVERT, Safety.DISPLAY),
        )


def _plain() -> Fix:
    title = "Set init_lora_weights to true, right if the adapter was converted when it was saved"
    return Fix(title, Safety.UNSAFE, (SetConfig("/init_lora_weights", True),))


def _effects(word: str) -> Iterator[Effect]:
    if word.startswith("corda"):
        yield raises("peft>=0.15", _EIGENS)
    elif word == "loftq":
        yield raises("peft>=0.7", _SCIPY)
    else:
        since = {"p": "0.11", "o": "0.12", "l": "0.19"}[word[0]]
        yield unknown(f"peft>={since}", missing=("weights",))
        # Up to 0.6 any text counts as true: right for a converted file only.
        yield unknown("peft<0.7", missing=("weights",))
