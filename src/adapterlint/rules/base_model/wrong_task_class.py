"""AL407."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adapterlint.findings import Effect, Finding, Fix, Outcome, Safety, SetConfig, Severity, raises, unknown
from adapterlint.model.base import Base
from adapterlint.model.keys import PROMPT_TYPES
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.base_model.unsuited_transformers import DROPPED
from adapterlint.rules.examples import (
    AnyExample,
    BaseExample,
    Example,
    bert_base,
    bert_config,
    bert_tensors,
    llama_base,
    llama_tensors,
    lora_config,
    renamed,
)

_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification", "ForMultipleChoice", "ForImageClassification")
_ANSWERS = "ForQuestionAnswering"
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_MASKED = "ForMaskedLM"
_ENCODERS_TEXT = (
    "bert roberta xlm-roberta camembert distilbert deberta deberta-v2 electra albert mpnet xlm roformer "
    "rembert longformer big_bird mobilebert squeezebert funnel fnet ibert megatron-bert convbert "
    "nystromformer "
)
_ENCODERS = frozenset(_ENCODERS_TEXT.split())
# Encoders whose masked language model can generate up to transformers 5.0.
_MASKED_GENERATES = frozenset(["bert", "roformer", "rembert", "big_bird", "megatron-bert"])
_ENCODER_DECODERS = frozenset(
    ["t5", "mt5", "umt5", "bart", "mbart", "pegasus", "blenderbot", "m2m_100", "led", "longt5", "marian"]
)
# Decoders, and the release of transformers since which their causal models take any argument.
_DECODERS = {
    **dict.fromkeys(("llama", "mixtral", "phi"), "4.46"),
    "mistral": "4.48",
    **dict.fromkeys(("gpt2", "gptj", "gpt_neo", "gpt_neox", "opt", "falcon", "gpt_bigcode", "codegen"), "4.48.3"),
}
_CLASSIFY_ALIKE = frozenset(["llama", "mistral", "mixtral", "phi", "gpt_bigcode", "persimmon"])
"""Decoders whose classifiers take any argument since 4.54; all others' since 5."""
_ANSWER_ALIKE = frozenset(["llama", "mistral", "mixtral"])
"""Decoders whose classes for question answering take any argument since 4.46; all others' since 5."""
_MISSING = ("model class",)
# Bloom looks at what it is given itself, all of it.
_GIVEN = {
    "decoder_input_ids": "'decoder_input_ids': None, 'decoder_attention_mask': None, 'decoder_inputs_embeds': None",
    "start_positions": "'start_positions': None, 'end_positions': None",
}
# What the PEFT class of a task hands to the model, and where models take it.
_HANDED = {
    "SEQ_CLS": "labels",
    "TOKEN_CLS": "labels",
    "CAUSAL_LM": "labels",
    "SEQ_2_SEQ_LM": "decoder_input_ids",
    "QUESTION_ANS": "start_positions",
}


class WrongTaskClass(Rule):
    """## What it does
    Compares `task_type` with the base's architecture.

    ## Why is this bad?
    PEFT has a class for each task, which calls the model with that task's arguments, empty or not: a model of another
    task raises a TypeError when it is run, unless its transformers takes any argument, as all models do since 5. The
    classes of generating tasks ask the base for `prepare_inputs_for_generation` and raise when it has none: since
    transformers 4.52 (that of the time of PEFT 0.15) only models that generate do. Whoever trains on a checkpoint of
    pre-training (`BertForMaskedLM`) may load it with the class of the task: then it cannot be told.

    ## Example
    `"task_type": "CAUSAL_LM"` on `BertForSequenceClassification`; `"QUESTION_ANS"` on a classifier.

    ## Fix
    Unsafe: set `task_type` to null.

    ## References
    - PEFT `peft_model.py`; measured on 0.4.0 to 0.21.2 with transformers 4.36.2, 4.48.3, 4.57.1 and 5.23.0; what lies
      between by the signatures in the sources.
    """

    code = "AL407"
    name = "wrong-task-class"
    needs = ("config", "header", "base")

    @staticmethod
    def valid() -> list[AnyExample]:
        feature = bert_config(task_type="FEATURE_EXTRACTION")
        return [
            Example("generates", lora_config(), llama_tensors(), llama_base()),
            Example("feature extraction", feature, bert_tensors(), bert_base()),
            Example(
                "another task with the same arguments", lora_config(task_type="SEQ_CLS"), llama_tensors(), llama_base()
            ),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        answers = _architecture(bert_base(), "BertForQuestionAnswering")
        return [
            Example("classifier", bert_config(task_type="CAUSAL_LM"), bert_tensors(), bert_base()),
            Example("no spans", bert_config(task_type="QUESTION_ANS"), bert_tensors(), bert_base()),
            Example("no labels", bert_config(task_type="TOKEN_CLS"), bert_tensors(), answers),
            Example("no decoder", lora_config(task_type="SEQ_2_SEQ_LM"), llama_tensors(), llama_base()),
            Example("a masked language model", bert_config(task_type="CAUSAL_LM"), *_masked()),
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base, task = subject.base, subject.adapter.get("task_type")
        if base is None or not isinstance(task, str) or subject.adapter.peft_type in PROMPT_TYPES:
            return
        effects = tuple(effect._replace(scope="alone") for effect in task_effects(base, task))  # in a set: AL509
        if effects:
            message, ceiling = mismatch(base, task, effects)
            fix = Fix("Set task_type to null", Safety.UNSAFE, (SetConfig("/task_type", None),))
            yield self.finding(
                message,
                subject.at_field("task_type"),
                effects=effects,
                fix=fix if ceiling is Severity.ERROR else None,
                ceiling=ceiling,
            )


def mismatch(base: Base, task: str, effects: Sequence[Effect]) -> tuple[str, Severity]:
    """What is wrong with a task, of which :func:`task_effects` said what it leads to, and the worst that it can be."""
    if any(effect.outcome is not Outcome.UNKNOWN for effect in effects):
        return f"task_type {task} is for another kind of model than {base.architecture}", Severity.ERROR
    return f"task_type {task} wants a model class for that task; the base names {base.architecture}", Severity.NOTE


def task_effects(base: Base, task: object) -> Iterator[Effect]:
    """What a task's PEFT class does with a model of this architecture, where it does not work."""
    if task in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
        yield from _not_generating(base, str(task))
    argument = _HANDED.get(str(task))
    if argument == "decoder_input_ids" and base.model_type in _ENCODER_DECODERS:
        argument = "labels"  # handed over as well
    since = _takes(base, argument) if argument else None
    if argument is None or since is None:
        return
    if base.architecture.endswith(_MASKED) and argument == "start_positions":
        yield unknown(f"peft,transformers<{since}", missing=_MISSING)
        return
    text = f"TypeError: {base.architecture}.forward() got an unexpected keyword argument {argument!r}"
    if base.model_type == "bloom":
        text = f"ValueError: Got unexpected arguments: {{{_GIVEN[argument]}}}"
    yield raises(f"peft,transformers<{since}", text, stage="after_load")


def _not_generating(base: Base, task: str) -> Iterator[Effect]:
    """Classes of models lost the methods of generation in transformers 4.52, unless they generate."""
    text = f"AttributeError: '{base.architecture}' object has no attribute 'prepare_inputs_for_generation'"
    if base.architecture.endswith((*_CLASSIFIERS, _ANSWERS)):
        yield raises("peft,transformers>=4.52", text)
    elif base.architecture.endswith(_MASKED) and base.model_type in _ENCODERS:
        span = f"peft,transformers>={'5.1' if base.model_type in _MASKED_GENERATES else '4.52'}"
        # A checkpoint of pre-training: who wants a task of his own loads it with that task's class.
        yield unknown(span, missing=_MISSING) if task == "CAUSAL_LM" else raises(span, text)
        if task == "SEQ_2_SEQ_LM" and base.model_type in _MASKED_GENERATES:
            # It prepares its inputs itself, and has nothing else of generation.
            yield raises("peft<0.21,transformers>=4.52,<5.1", text.replace("prepare_inputs_for_generation", DROPPED))


def _takes(base: Base, argument: str) -> str | None:
    """The release of transformers since which the model takes an argument; None for all, or where it is not known."""
    kind, architecture = base.model_type, base.architecture
    answers, encoder = architecture.endswith(_ANSWERS), kind in _ENCODERS or kind in _ENCODER_DECODERS
    if argument == "labels":
        return _answering(kind) if answers and (encoder or kind in _DECODERS) else None
    if (answers and argument == "start_positions") or not base.is_task_class:
        return None
    if encoder:
        return "5"
    if kind == "bloom":
        return "5" if architecture.endswith(_CAUSAL) else None
    if architecture.endswith(_CLASSIFIERS) and (kind in _DECODERS or kind in _CLASSIFY_ALIKE):
        return "4.54" if kind in _CLASSIFY_ALIKE else "5"
    if answers and kind in _DECODERS:
        return _answering(kind)
    return _DECODERS.get(kind) if architecture.endswith(_CAUSAL) else None


def _answering(kind: str) -> str:
    return "4.46" if kind in _ANSWER_ALIKE else "5"


def _architecture(base: BaseExample, name: str) -> BaseExample:
    """A base of another architecture, whose head has another name."""
    tensors = {key: entry for key, entry in base.tensors.items() if not key.startswith("classifier.")}
    config = {key: value for key, value in base.config.items() if key not in ("id2label", "label2id", "num_labels")}
    return base._replace(config={**config, "architectures": [name]}, tensors=tensors)


def _masked() -> tuple[dict[str, Any], BaseExample]:
    """An adapter's tensors and its base, as most encoders are published: with the head of its pre-training."""
    base = _architecture(bert_base(), "RobertaForMaskedLM")
    config = {**base.config, "model_type": "roberta"}
    tensors = renamed(base.tensors, lambda name: name.replace("bert.", "roberta."))
    return renamed(bert_tensors(), lambda name: name.replace("bert.", "roberta.")), BaseExample(config, tensors)
