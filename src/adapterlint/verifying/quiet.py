"""Keep libraries from printing and from reaching the network while they work."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

_LOGGERS = ("", "transformers", "peft", "accelerate", "huggingface_hub", "torch")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_LONGEST = 400


class _Recorder(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(f"{record.name}: {record.getMessage()}")


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    """Collect warnings, log records and printed lines instead of showing them.

    The list is complete, and holds every message once, when the block ends.
    """
    messages: list[str] = []
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, _logging_to(messages):
        warnings.simplefilter("always")
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield messages
    messages += [f"{each.category.__name__}: {each.message}" for each in caught]
    # Progress bars redraw their line; only what reads as a message is kept.
    messages += [line for line in printed.getvalue().split("\n") if line.strip() and "\r" not in line]
    messages[:] = dict.fromkeys(_shorten(message) for message in messages)


def _shorten(message: str) -> str:
    flat = " ".join(message.split())
    return flat if len(flat) <= _LONGEST else f"{flat[:_LONGEST]}..."


@contextlib.contextmanager
def _logging_to(messages: list[str]) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    recorder = _Recorder(messages)
    for logger in loggers:
        logger.handlers, logger.propagate = [recorder], False
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Forbid the Hub: a missing local file must be an error, not a download."""
    hub: Any = _hub_constants()
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(_OFFLINE)
    flag = getattr(hub, "HF_HUB_OFFLINE", None)
    if hub is not None:
        hub.HF_HUB_OFFLINE = True  # the variable is read at import, which lies behind
    try:
        yield
    finally:
        if hub is not None:
            hub.HF_HUB_OFFLINE = flag
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _hub_constants() -> object:
    try:
        return importlib.import_module("huggingface_hub.constants")
    except ImportError:
        return None
