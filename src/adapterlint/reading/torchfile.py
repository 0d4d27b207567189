"""A file of ``torch.save``, opened as ``torch.load(weights_only=True)`` of torch 2.13 opens it."""

from __future__ import annotations

import struct
from typing import BinaryIO

from .picklevalues import GaveUpError, RefusedError
from .torchcontent import TorchFile
from .torchlegacy import read_legacy
from .torchzip import read_zipped

# Exceptions whose text torch's unpickler and this one get from the same operation of Python.
_SAME_TEXT = (EOFError, IndexError, KeyError, UnicodeDecodeError, struct.error)


def read_torch_file(file: BinaryIO, file_bytes: int, head: bytes, lenient: bool = False) -> TorchFile:
    """Read a torch file whose first bytes are ``head``; OSError is the only exception."""
    is_zip = head.startswith(b"PK\x03\x04")
    content = TorchFile(legacy=not is_zip, lenient=lenient)
    try:
        if is_zip:
            read_zipped(file, file_bytes, content)
        else:
            read_legacy(file, file_bytes, head, content)
    except RefusedError as refusal:
        content.add(refusal.kind, refusal.message, refusal.detail)
    except GaveUpError as surrender:
        content.add(surrender.kind, surrender.message, fatal=False)
        content.complete = False
    except OSError:
        raise
    except _SAME_TEXT as error:
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".strip()
        content.add("broken-pickle", f"the pickle is broken ({_said(error)})", detail)
    # The machine does with a hostile pickle what torch does with it, so anything can come out, RecursionError included.
    except Exception as error:
        content.add("broken-pickle", f"the pickle is broken ({_said(error)})", type(error).__name__)
    return content


def _said(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "it ends before its last opcode"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
