"""The base model, as far as its config and tensor headers tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adapterlint.model.keys import SOFT_WRAPPER, WRAPPERS
from adapterlint.model.tensor import FLOAT_DTYPES, Tensor

_OWN_NAME = (
    "beit biogpt canine clip convbert data2vec-text deit ernie fnet funnel hubert ibert layoutlm "
    "layoutlmv2 led lilt longformer luke markuplm mobilebert mra nezha nystromformer rembert "
    "roberta-prelayernorm roc_bert roformer splinter swin swinv2 wav2vec2 wav2vec2-bert wavlm yoso "
)
# Attribute under which a task class keeps the bare model (transformers: PreTrainedModel.base_model_prefix).
BASE_PREFIXES = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "deberta": "deberta",
    "deberta-v2": "deberta",
    "electra": "electra",
    "albert": "albert",
    "gpt2": "transformer",
    "gpt_neo": "transformer",
    "gptj": "transformer",
    "bloom": "transformer",
    "falcon": "transformer",
    "mpt": "transformer",
    "gpt_bigcode": "transformer",
    "gpt_neox": "gpt_neox",
    "vit": "vit",
    "mpnet": "mpnet",
    "esm": "esm",
    "big_bird": "bert",
    "megatron-bert": "bert",
    "xlm-roberta-xl": "roberta",
    "dinov2": "dinov2",
    **{name: name.replace("-", "_") for name in _OWN_NAME.split()},
    **dict.fromkeys(
        ("codegen", "ctrl", "dbrx", "flaubert", "openai-gpt", "squeezebert", "xlm", "xlnet"), "transformer"
    ),
}
# Encoder-decoders: T5 and its kin keep their parts without a prefix, and their classifiers have other names.
_T5 = frozenset(("t5", "mt5", "umt5", "longt5", "switch_transformers"))
_OTHER_HEADS = _T5 | {"bart", "mbart", "mvp", "plbart", "bigbird_pegasus", "led", "flaubert", "xlm", "xlnet"}
_BARE_DECODER = ("layers.", "embed_tokens.", "decoder.layers.", "decoder.embed_tokens.")
_HEADS = {"distilbert": ("pre_classifier", "classifier"), "gpt2": ("score",), "gpt_neo": ("score",), "gptj": ("score",)}
_DECODER_HEADS = ("score",)
# Encoders whose classifier of sequences is a block of two layers, ``dense`` and ``out_proj``.
_BLOCK_HEADS = {"camembert", "electra", "data2vec-text", "esm", "mpnet", "longformer", "ibert", "convbert", "roformer"}
_BLOCK_HEADS |= {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "big_bird"}
_BLOCK_PARTS = ("dense", "out_proj")
# Encoders whose heads, unless they are such a block, are linear layers with biases.
_PLAIN_CLASSIFIERS = {"bert", "distilbert", "albert", "deberta", "deberta-v2", "big_bird", "rembert"}
# Types whose config classes say ``tie_word_embeddings=False`` where a config.json says nothing (transformers 4.57).
_UNTIED_TYPES = (
    "apertus arcee aria_text bamba bitnet blt code_llama codegen dbrx deepseek_v2 deepseek_v3 diffllama doge dots1 "
    "exaone4 falcon_h1 flex_olmo fsmt fuyu git glm glm4 glm4_moe gpt_neox gpt_oss gptj granite granitemoe "
    "granitemoehybrid granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe jamba llama llama4 llama4_text "
    "longcat_flash mamba2 minimax ministral mistral mixtral moshi mt5 nemotron olmo olmo2 olmo3 olmoe open-llama "
    "persimmon phi phi3 phi4_multimodal phimoe qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next reformer rembert rwkv "
    "seed_oss stablelm xlstm "
)
_UNTIED = frozenset(_UNTIED_TYPES.split())
# Masked language models: a tensor that shows the kind of head, and its layer that shares the embedding's weight.
_MASKED_HEADS = {
    "cls.predictions.bias": "cls.predictions.decoder",
    "predictions.bias": "predictions.decoder",
    "lm_head.dense.weight": "lm_head.decoder",
    "vocab_projector.bias": "vocab_projector",
    "generator_lm_head.bias": "generator_lm_head",
}
_EMBEDDING_WORDS = ("embed", "wte", "wpe", "shared", "word_embeddings", "relative_attention_bias")
VOCABULARY_LEAVES = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings", "shared")
HEAD_LEAVES = ("lm_head", "embed_out", "classifier", "score", "qa_outputs", "pre_classifier")


@dataclass(frozen=True, eq=False, repr=False)
class Base:
    """The base model: config and parameter headers, names as the model class has them.

    Attributes:
        path: the directory it was read from.
        config: its config.json.
        stored: tensors of the checkpoint by stored name.
    """

    path: str
    config: Mapping[str, Any]
    stored: Mapping[str, Tensor]

    @cached_property
    def wrappers(self) -> frozenset[str]:
        """Components of its own names that look like those that training wrappers put in."""
        owned = {part for name in self.parameters for part in name.split(".")}
        return frozenset(owned & (WRAPPERS | {SOFT_WRAPPER}))

    @cached_property
    def model_type(self) -> str:
        """``model_type`` of the config, or an empty text."""
        return str(self.config.get("model_type") or "")

    @cached_property
    def architecture(self) -> str:
        """First entry of ``architectures``, or an empty text."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    @cached_property
    def prefix(self) -> str:
        """What the task class puts in front of the bare model's parameters, with the dot."""
        default = "transformer" if self.model_type in _T5 else "model"
        return BASE_PREFIXES.get(self.model_type, default) + "."

    @cached_property
    def is_task_class(self) -> bool:
        """Whether the architecture is a bare model with a head on top (``…For…``, ``…LMHeadModel``)."""
        return "For" in self.architecture or self.architecture.endswith("LMHeadModel")

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """Checkpoint tensors by the name that the model class gives them; a missing class prefix is added."""
        if not self._lacks_prefix:
            return dict(self.stored)
        renamed = {}
        for name, tensor in self.stored.items():
            leaf = name.split(".")[0]
            renamed[name if leaf in HEAD_LEAVES else self.prefix + name] = tensor
        return renamed

    @property
    def _lacks_prefix(self) -> bool:
        """Whether the checkpoint is of the bare model, and the task class puts a prefix before its names."""
        if not self.is_task_class or any(name.startswith(self.prefix) for name in self.stored):
            return False
        if self.model_type in _T5:
            return self.architecture.endswith(("ForSequenceClassification", "ForTokenClassification"))
        return self.model_type in BASE_PREFIXES or any(name.startswith(_BARE_DECODER) for name in self.stored)

    @cached_property
    def modules(self) -> dict[str, dict[str, Tensor]]:
        """Module path -> its own parameters; containers have none. Tied and missing heads are there, empty."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.parameters.items():
            module, _, parameter = name.rpartition(".")
            found.setdefault(module, {})[parameter] = tensor
        for module in list(found):
            while "." in module:
                module = module.rpartition(".")[0]
                found.setdefault(module, {})
        for head in (*self.tied_heads, *self.missing_heads, *self._parts_of_missing_heads):
            found.setdefault(head, {})
        found.pop("", None)
        return found

    @cached_property
    def tied(self) -> bool:
        """Whether input embeddings and language-model head are one tensor."""
        text = self.config.get("text_config")
        nested = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        value = self.config.get("tie_word_embeddings", nested)
        if value is None:
            value = self.model_type not in _UNTIED
        return bool(value)

    @cached_property
    def tied_heads(self) -> tuple[str, ...]:
        """The language-model head, where the checkpoint leaves it out because it is tied."""
        if not self.tied:
            return ()
        if self.architecture.endswith(("ForMaskedLM", "ForPreTraining")):
            found = (head for sign, head in _MASKED_HEADS.items() if sign in self.stored)
            return tuple(head for head in found if f"{head}.weight" not in self.stored)
        generates = "CausalLM" in self.architecture or self.architecture.endswith(
            ("LMHeadModel", "ConditionalGeneration")
        )
        stored = any(".lm_head." in f".{name}" or ".embed_out." in f".{name}" for name in self.stored)
        if generates and not stored:
            return ("lm_head",)
        return ()

    @cached_property
    def quantised(self) -> dict[str, str]:
        """Linear layers that bitsandbytes has packed, and the tensor beside the weight that says so."""
        if not isinstance(self.config.get("quantization_config"), dict):
            return {}
        found = {}
        for name in self.parameters:
            module, _, state = name.rpartition(".")
            if state == "SCB":
                found[module] = name
            elif state == "absmax" and module.endswith(".weight"):
                found[module.removesuffix(".weight")] = name
        return found

    def quantised_within(self, module: str) -> str | None:
        """The tensor that says that a module, or a layer in it, is packed; None if none is."""
        start = f"{module}."
        return next((state for layer, state in self.quantised.items() if f"{layer}.".startswith(start)), None)

    @cached_property
    def missing_heads(self) -> tuple[str, ...]:
        """Heads that the task class has and the checkpoint lacks: they are random at every load."""
        return tuple(head for head in self._heads if not any(name.split(".")[0] == head for name in self.stored))

    @cached_property
    def _heads(self) -> tuple[str, ...]:
        """Names of the heads of the task class, where it is one with a head of its own."""
        if self.model_type in _OTHER_HEADS:
            return ()
        if self.architecture.endswith("ForSequenceClassification"):
            decoder = self.model_type not in BASE_PREFIXES or self.prefix in ("model.", "transformer.", "gpt_neox.")
            return _HEADS.get(self.model_type, _DECODER_HEADS if decoder else ("classifier",))
        if self.architecture.endswith("ForTokenClassification"):
            return ("score",) if self.prefix == "model." else ("classifier",)
        return ("qa_outputs",) if self.architecture.endswith("ForQuestionAnswering") else ()

    @property
    def _has_block_heads(self) -> bool:
        return self.architecture.endswith("ForSequenceClassification") and self.model_type in _BLOCK_HEADS

    @property
    def _parts_of_missing_heads(self) -> tuple[str, ...]:
        """Layers inside heads that the checkpoint lacks, where the head is a block."""
        block = self._has_block_heads
        return tuple(f"{head}.{part}" for head in self.missing_heads if block for part in _BLOCK_PARTS)

    def made_for(self, head: str) -> tuple[str, ...]:
        """Parameters of a head that the task class makes and the checkpoint lacks, in the class's order.

        Of a class that is not known only the weight of a linear layer.
        """
        if head not in self.missing_heads:
            return ()
        if self._has_block_heads:
            return tuple(f"{head}.{layer}.{parameter}" for layer in _BLOCK_PARTS for parameter in ("weight", "bias"))
        biased = self.model_type in _PLAIN_CLASSIFIERS or head == "qa_outputs"
        return (f"{head}.weight", f"{head}.bias") if biased else (f"{head}.weight",)

    @cached_property
    def embedding(self) -> str | None:
        """Path of the input embedding, if it can be told."""
        for module, parameters in self.modules.items():
            leaf = module.rpartition(".")[2]
            if "weight" in parameters and leaf in ("embed_tokens", "word_embeddings", "wte", "embed_in", "shared"):
                return module
        return None

    def under(self, module: str) -> dict[str, Tensor]:
        """All parameters of a module and what it contains, by full name."""
        start = module + "."
        found = {name: tensor for name, tensor in self.parameters.items() if name.startswith(start)}
        for head in self.tied_heads if self.embedding else ():
            if f"{head}.".startswith(start):
                found[f"{head}.weight"] = self.parameters[f"{self.embedding}.weight"]
                bias = self.parameters.get(f"{head.rpartition('.')[0]}.bias")  # of masked language models
                found |= {f"{head}.bias": bias} if bias is not None and "." in head else {}
        return found

    def kind(self, module: str) -> str:
        """``linear``, ``embedding``, ``conv``, ``norm`` or ``container``, from the weight's shape and the names."""
        weight = self.modules.get(module, {}).get("weight")
        if weight is None:
            if module in self.missing_heads:
                return "container" if f"{module}.dense" in self._parts_of_missing_heads else "linear"
            return "linear" if module in (*self.tied_heads, *self._parts_of_missing_heads) else "container"
        if len(weight.shape) == 2:
            leaf = module.rpartition(".")[2]
            words = any(word in leaf for word in _EMBEDDING_WORDS) and leaf not in HEAD_LEAVES
            return "embedding" if words else "linear"
        return "norm" if len(weight.shape) == 1 else "conv"

    def features(self, module: str) -> tuple[int, int] | None:
        """How many features a linear layer takes and gives; None where its weight does not tell."""
        weight = self.modules.get(module, {}).get("weight")
        if weight is None or weight.dtype not in FLOAT_DTYPES or self.kind(module) != "linear":
            return None
        rows, columns = weight.shape
        return (rows, columns) if self.is_conv1d(module) else (columns, rows)

    def is_conv1d(self, module: str) -> bool:
        """Whether a 2-D weight is stored (in, out), as GPT-2's Conv1D does."""
        return self.model_type in ("gpt2", "openai-gpt") and module.rpartition(".")[2] in (
            "c_attn",
            "c_proj",
            "c_fc",
            "q_attn",
        )
