"""Small trees of sources, and the bundled schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = Path(str(files("adapterlint.schemas")))
PEFT = SCHEMAS / "peft"
SHARED = Path(__file__).resolve().parents[3] / "shared"
GENERATED = ("defs.json", "fields.json")

HEAD = """
from dataclasses import dataclass, field
from typing import Dict, List, Literal, Optional, Union
from .utils import PeftType, TaskType
"""
TYPES = """
import enum
class PeftType(str, enum.Enum):
    LORA = "LORA"
    OTHER = "OTHER"
class TaskType(str, enum.Enum):
    SEQ_CLS = "SEQ_CLS"
def register_peft_method(*, name, config_cls, model_cls):
    \"\"\"
        register_peft_method(name="not_this_one", config_cls=Nothing, model_cls=Nothing)
    \"\"\"
"""
BASE = f"""{HEAD}
@dataclass
class PeftConfigMixin(PushToHubMixin):
    peft_type: Optional[PeftType] = field(default=None, metadata={{"help": "The type."}})
@dataclass
class PeftConfig(PeftConfigMixin):
    task_type: Optional[Union[str, TaskType]] = field(default=None)
"""


def tree(body: str, version: str = "0.99.0", **modules: str) -> dict[str, str]:
    """A tree with the bases in ``peft/config.py`` and ``body``, which must register something, as a tuner's config."""
    return {
        "peft/__init__.py": f'__version__ = "{version}"\n',
        "peft/config.py": BASE,
        "peft/utils/__init__.py": "from .peft_types import PeftType, TaskType, register_peft_method\n",
        "peft/utils/peft_types.py": TYPES,
        "peft/mapping.py": "PEFT_TYPE_TO_CONFIG_MAPPING: dict[str, type] = {}\n",
        "peft/tuners/lora/__init__.py": (
            "from peft.utils import register_peft_method\nfrom .config import LoraConfig\n"
            'register_peft_method(name="lora", config_cls=LoraConfig, model_cls=LoraModel)\n'
        ),
        "peft/tuners/lora/config.py": HEAD.replace(".utils", "peft.utils")
        + "from peft.config import PeftConfig\n"
        + body,
        **{name.replace("__", "/") + ".py": text for name, text in modules.items()},
    }


def lora(fields: str, post_init: str = "self.peft_type = PeftType.LORA") -> str:
    """A LoraConfig with these fields and this ``__post_init__``."""
    lines = "\n".join(f"    {line}" for line in fields.splitlines())
    body = "\n".join(f"        {line}" for line in post_init.splitlines())
    return f"@dataclass\nclass LoraConfig(PeftConfig):\n{lines}\n    def __post_init__(self):\n{body}\n"


def registry(definitions: Mapping[str, Any] | None = None) -> Registry:
    """What resolves the references to ``defs.json``."""
    contents = definitions or json.loads((PEFT / "defs.json").read_text(encoding="utf-8"))
    return Registry().with_resource("defs.json", Resource.from_contents(contents))


@lru_cache(maxsize=64)
def validator(release: str) -> Draft202012Validator:
    """The bundled schema of a release."""
    schema = json.loads((PEFT / f"{release}.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema, registry=_bundled())


@lru_cache(maxsize=1)
def _bundled() -> Registry:
    return registry()


@lru_cache(maxsize=1)
def fields_json() -> dict[str, Any]:
    """The bundled ``fields.json``."""
    found: dict[str, Any] = json.loads((PEFT / "fields.json").read_text(encoding="utf-8"))
    return found
