"""AL111."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapterlint.findings import Finding, Fix, Safety, Severity
from adapterlint.model.subject import Subject
from adapterlint.rules.base import Rule
from adapterlint.rules.examples import AnyExample, Example, llama_tensors, lora_config

_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\|~")
_RELATIVE = re.compile(r"\.\.?([\\/]|$)")
_QUANTISED = re.compile(r"[-_](bnb[-_]?[48]bit|4bit|8bit|int[48]|gptq|awq)\b", re.IGNORECASE)
_SAY = Fix("Name the base by its id on the Hub in base_model_name_or_path", Safety.DISPLAY)


class UnportableBase(Rule):
    """## What it does
    Looks at `base_model_name_or_path`: absent, null, a path on one machine, or a quantised copy of the model.

    ## Why is this bad?
    `PeftModel.from_pretrained` is handed the base and does not read it. Everything that finds the base by itself does:
    `AutoPeftModel`, the transformers integration, converters, and whoever gets the adapter. A quantised copy makes them
    load that copy although the adapter fits the full model, too.

    ## Example
    `"base_model_name_or_path": "/content/drive/MyDrive/llama"`

    ## Fix
    None: which model on the Hub it is, no file says. Write its id.

    ## References
    - PEFT `auto.py`; transformers `integrations/peft.py`; sglang#374, unsloth#6504.
    """

    code = "AL111"
    name = "unportable-base"
    severity = Severity.NOTE

    @staticmethod
    def valid() -> list[AnyExample]:
        return [
            Example("an id", lora_config(base_model_name_or_path="meta-llama/Llama-3.1-8B"), llama_tensors()),
            Example("an id without owner", lora_config(base_model_name_or_path="gpt2"), llama_tensors()),
            Example("a revision is not needed", lora_config(revision=None), llama_tensors()),
        ]

    @staticmethod
    def invalid() -> list[AnyExample]:
        return [
            Example(title, lora_config(base_model_name_or_path=value), llama_tensors())
            for title, value in (
                ("absent", ...),
                ("null", None),
                ("a notebook's path", "/content/llama"),
                ("a Windows path", "D:\\models\\llama"),
                ("a relative path", "../llama"),
                ("a quantised copy", "unsloth/llama-3-8b-bnb-4bit"),
            )
        ]

    def check(self, subject: Subject) -> Iterator[Finding]:
        adapter = subject.adapter
        if adapter.config is None or "peft_type" not in adapter.config:
            return
        value = adapter.get("base_model_name_or_path")
        place = subject.at_field("base_model_name_or_path")
        if value is None or value == "":
            yield self.finding("the config does not say which base the adapter is for", place, fix=_SAY)
        elif not isinstance(value, str):
            message = f"base_model_name_or_path is {value!r}, no text"
            yield self.finding(message, place, fix=_SAY, severity=Severity.WARNING)
        elif _ABSOLUTE.match(value) or _RELATIVE.match(value):
            here = subject.base is not None and subject.base.path.rstrip("/") == value.rstrip("/")
            message = f"the base is {value!r}, a path {'on this machine' if here else 'that other machines lack'}"
            severity = Severity.WARNING if _ABSOLUTE.match(value) and not here else Severity.NOTE
            yield self.finding(message, place, fix=_SAY, severity=severity)
        elif _QUANTISED.search(value):
            message = f"the base is {value!r}, a quantised copy: who follows it loads that one"
            yield self.finding(message, place, fix=_SAY)
