"""The base model: loaded once, handed out as fresh copies, and run on one fixed batch of tokens."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapterlint.verifying.libraries import Libraries, VerifyError

_SEED = 0
_ROWS, _LENGTH = 2, 12


class BaseModel:
    """A base model in evaluation mode.

    A pristine copy stays in main memory, since PEFT changes the model it is given and cannot be trusted to undo it;
    so verifying on the CPU needs room for the model twice.

    Attributes:
        architecture: the transformers class that config.json names.
        quantised: whether the checkpoint says it is quantised: weights cannot be merged by hand then.
    """

    def __init__(self, libraries: Libraries, path: str, device: str, dtype: str) -> None:
        """Load the model from a local directory.

        Raises:
            VerifyError: there is no usable config.json, or transformers cannot load the model.
        """
        self._libraries = libraries
        self._device = device
        config = _read_config(Path(path))
        self.architecture = _architecture(config)
        self.quantised = config.get("quantization_config") is not None
        model_class = getattr(libraries.transformers, self.architecture, None)
        if model_class is None:
            raise VerifyError(f"transformers {libraries.transformers.__version__} has no class {self.architecture}")
        libraries.torch.manual_seed(_SEED)  # a head that the checkpoint lacks is drawn at random
        try:
            self._pristine = model_class.from_pretrained(path, **self._arguments(dtype)).eval()
        except Exception as error:
            raise VerifyError(f"the base cannot be loaded: {type(error).__name__}: {error}") from error
        self._inputs: dict[str, Any] = {}

    def _arguments(self, dtype: str) -> dict[str, Any]:
        # 4.56 renamed torch_dtype; 4.36 brought attn_implementation
        version = tuple(int(part) for part in re.findall(r"\d+", self._libraries.transformers.__version__)[:2])
        arguments = {"dtype" if version >= (4, 56) else "torch_dtype": getattr(self._libraries.torch, dtype)}
        return arguments | ({"attn_implementation": "eager"} if version >= (4, 36) else {})

    def fresh(self) -> Any:
        """A new copy on the device, which the caller may change."""
        return copy.deepcopy(self._pristine).to(self._device)

    def parameters(self) -> dict[str, Any]:
        """Parameters of the pristine model by path, on the CPU; tied ones once."""
        return dict(self._pristine.named_parameters())

    def prepare(self, indices: Iterable[int] = ()) -> None:
        """Draw the batch of tokens, the same each time; ``indices`` are tokens that must occur in it, if they fit."""
        torch, config = self._libraries.torch, self._pristine.config
        rows = token_batch(config, int(self._pristine.get_input_embeddings().weight.shape[0]), indices)
        ids = torch.tensor(rows, device=self._device)
        self._inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if getattr(config, "is_encoder_decoder", False):
            self._inputs["decoder_input_ids"] = ids[:, :4]

    def output(self, model: Any) -> Any:
        """What the model answers to the batch: one flat float32 tensor on the CPU."""
        torch = self._libraries.torch
        with torch.no_grad():
            result = model.eval()(**self._inputs)
        named = [value for key, value in result.items() if key.endswith("logits")]
        answers = named or [next(value for value in result.values() if torch.is_tensor(value))]
        return torch.cat([answer.float().flatten().cpu() for answer in answers])


def token_batch(config: Any, vocabulary: int, indices: Iterable[int] = ()) -> list[list[int]]:
    """Token ids, one list a row: padding and end-of-sequence occur only where a model wants them."""
    draw = random.Random(_SEED)
    ends = _as_list(getattr(config, "eos_token_id", None))
    avoided = {*_as_list(getattr(config, "pad_token_id", None)), *ends}
    usable = [token for token in range(min(vocabulary, 1 << 20)) if token not in avoided] or [0]
    length = max(1, min(_LENGTH, (getattr(config, "max_position_embeddings", None) or _LENGTH + 2) - 2))
    # Sequence classifiers of decoder models find the last token by the padding id, and refuse a batch without one.
    count = 1 if getattr(config, "pad_token_id", None) is None else _ROWS
    flat = [draw.choice(usable) for _ in range(count * length)]
    for place, token in zip(range(len(flat) - 1, -1, -1), dict.fromkeys(indices), strict=False):
        flat[place] = token if 0 <= token < vocabulary else flat[place]
    rows = [flat[start : start + length] for start in range(0, len(flat), length)]
    if getattr(config, "is_encoder_decoder", False) and ends:
        rows = [[*row[:-1], ends[0]] for row in rows]
    return rows


def _as_list(value: Any) -> list[int]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VerifyError(f"the base has no readable config.json: {path}: {error}") from error
    if not isinstance(config, dict):
        raise VerifyError(f"config.json of the base is not an object: {path}")
    return config


def _architecture(config: dict[str, Any]) -> str:
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise VerifyError("config.json of the base names no architecture")
    return architectures[0]
