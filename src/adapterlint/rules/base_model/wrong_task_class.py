"""AL407."""

from __future__ import annotations

from collections.abc import Iterator

from adapterlint.findings import Effect, Finding, Fix, Safety, SetConfig, raises
from adapterlint.model.base import Base
from adapterlint.model.keys import PROMPT_TYPES
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
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
)

_NOT_GENERATING = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
)
_ENCODERS_TEXT = (
    "bert roberta xlm-roberta camembert distilbert deberta deberta-v2 electra albert mpnet xlm roformer "
    "rembert longformer big_bird mobilebert squeezebert funnel fnet ibert megatron-bert convbert "
    "nystromformer "
)
_ENCODERS = frozenset(_ENCODERS_TEXT.split())
_ENCODER_DECODERS = frozenset(
    ["t5", "mt5", "umt5", "bart", "mbart", "pegasus", "blenderbot", "m2m_100", "led", "longt5", "marian"]
)
# transformers 4.36 (the stack of PEFT up to 0.8) against 4.48 and later: since then they take any argument
_DECODERS = frozenset(
    [
        "llama",
        "mistral",
        "mixtral",
        "gpt2",
        "gptj",
        "gpt_neo",
        "gpt_neox",
        "opt",
        "falcon",
        "phi",
        "gpt_bigcode",
        "codegen",
    ]
)
_HEADED_LATER = frozenset(
    ["llama", "mistral", "mixtral", "phi", "gpt_bigcode", "persimmon"]
)  # their classifiers: since 4.57
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
    task raises a TypeError when it is run. From 0.15 on, under the transformers releases of that time, the classes of
    generating tasks ask the base for `prepare_inputs_for_generation` and raise when it has none.

    ## Example
    `"task_type": "CAUSAL_LM"` on `BertForSequenceClassification`; `"QUESTION_ANS"` on a classifier.

    ## Fix
    Unsafe: set `task_type` to null.

    ## References
    - PEFT `peft_model.py`; measured on 0.4.0 to 0.21.2 with the transformers release of each one's time.
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
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        base, task = subject.base, subject.adapter.get("task_type")
        if base is None or not isinstance(task, str) or subject.adapter.peft_type in PROMPT_TYPES:
            return
        effects = tuple(effect._replace(scope="alone") for effect in task_effects(base, task))  # in a set: AL509
        if effects:
            yield self.finding(
                f"task_type {task} is for another kind of model than {base.architecture}",
                subject.at_field("task_type"),
                effects=effects,
                fix=Fix("Set task_type to null", Safety.UNSAFE, (SetConfig("/task_type", None),)),
            )


def task_effects(base: Base, task: object) -> Iterator[Effect]:
    """What a task's PEFT class does with a model of this architecture, where it does not work."""
    if task in ("CAUSAL_LM", "SEQ_2_SEQ_LM") and base.architecture.endswith(_NOT_GENERATING):
        text = f"AttributeError: '{base.architecture}' object has no attribute 'prepare_inputs_for_generation'"
        yield raises("peft>=0.15", text)
    argument = _HANDED.get(str(task))
    targets = _refused(base, argument) if argument else None
    if targets:
        text = f"TypeError: {base.architecture}.forward() got an unexpected keyword argument {argument!r}"
        yield raises(targets, text, stage="after_load")


def _refused(base: Base, argument: str) -> str | None:
    """The releases under which the model does not take an argument; None for no release, or where it is not known."""
    kind, architecture = base.model_type, base.architecture
    answers = architecture.endswith("ForQuestionAnswering")
    classifies = architecture.endswith(("ForSequenceClassification", "ForTokenClassification"))
    if argument == "labels":
        return "peft" if answers and kind in _ENCODERS | _ENCODER_DECODERS | _DECODERS else None
    if (argument == "start_positions" and answers) or not base.is_task_class:
        return None
    if kind in _ENCODER_DECODERS:
        return "peft" if argument == "start_positions" else None
    if kind in _ENCODERS or (kind in _DECODERS and (classifies or answers) and kind not in _HEADED_LATER):
        return "peft"
    if kind in _HEADED_LATER and classifies:
        return "peft<0.15"
    return "peft<0.9" if kind in _DECODERS and architecture.endswith(("ForCausalLM", "LMHeadModel")) else None


def _architecture(base: BaseExample, name: str) -> BaseExample:
    """A base of another architecture, whose head has another name."""
    tensors = {key: entry for key, entry in base.tensors.items() if not key.startswith("classifier.")}
    return base._replace(config={**base.config, "architectures": [name]}, tensors=tensors)
