"""A plan as a person reads it: the config's texts as a unified diff, tensors and files by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from adapterlint.findings import ConvertWeights, CopyTensor, DropTensor, MakeTensor, RenameTensor, ZeroTensor
from adapterlint.fixing.layout import Placed
from adapterlint.fixing.resolve import AdapterEdits, ConfigChange, WeightsChange, resolve
from adapterlint.reporters.text import printable

SHOWN = 3
"""Tensors of a kind that are shown unless all are asked for."""


def render(plans: Iterable[AdapterEdits], *, verbose: bool = False) -> str:
    """What the plans would change, empty if nothing. With ``verbose`` every tensor is named.

    Characters that a terminal would act on are shown as escapes. Raises PlanError if the edits do not fit.
    """
    return "".join(line for plan in plans for line in _adapter(plan, verbose))


def _adapter(plan: AdapterEdits, verbose: bool) -> Iterator[str]:
    change = resolve(plan)
    for old, twin in change.twins:
        yield f"remove {printable(os.path.join(plan.path, old))}, whose tensors are all in {printable(twin)}\n"
    for old, new in change.moves:
        yield f"rename {printable(os.path.join(plan.path, old))} to {printable(new)}\n"
    if change.config is not None:
        yield from _config(plan.path, change.config)
    if change.weights is not None:
        yield from _weights(plan.path, change.weights, verbose)


def _config(path: str, change: ConfigChange) -> Iterator[str]:
    old, new = (printable(os.path.join(path, name)) for name in (change.old, change.new))
    before = [] if change.fresh else _lines(change.before)
    import difflib  # of use only where a plan is shown

    for line in difflib.unified_diff(before, _lines(change.after), os.devnull if change.fresh else old, new):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(data: bytes) -> list[str]:
    """Lines with their ends, CR LF included; difflib itself would also break at form feeds and the like."""
    lines = data.decode("utf-8", errors="backslashreplace").split("\n")
    ended = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
    return [printable(line.rstrip("\r\n"), keep="\t") + line[len(line.rstrip("\r\n")) :] for line in ended if line]


def _weights(path: str, change: WeightsChange, verbose: bool) -> Iterator[str]:
    yield f"--- {printable(os.path.join(path, change.old))}\n+++ {printable(os.path.join(path, change.new))}\n"
    if change.sources is not None:
        yield from _conversion(change)
    before, after = change.before.tensors, {tensor.name: tensor for tensor in change.after.tensors}
    order = {name: number for number, name in enumerate(before)}
    renames = [edit for edit in change.edits if isinstance(edit, RenameTensor) and edit.old != edit.new]
    renames.sort(key=lambda edit: order[edit.old])
    drops = sorted((edit.name for edit in change.edits if isinstance(edit, DropTensor)), key=order.__getitem__)
    copies = [edit for edit in change.edits if isinstance(edit, CopyTensor)]
    zeros = [edit for edit in change.edits if isinstance(edit, ZeroTensor)]
    computed = [edit for edit in change.edits if isinstance(edit, MakeTensor)]
    if not (renames or drops or copies or zeros or computed or change.sources is not None):
        yield "@@ write the header anew; names, shapes and data stay @@\n"
    yield from _group("rename", [f"-{printable(r.old)}\n+{printable(r.new)}\n" for r in renames], None, verbose)
    gone = [f"-{printable(name)}  {_form(before[name].dtype, before[name].shape)}\n" for name in drops]
    yield from _group("drop", gone, sum(before[name].end - before[name].begin for name in drops), verbose)
    copied = [f"{_added(after[edit.name])}  from {printable(edit.base_name)}\n" for edit in copies]
    yield from _group("copy from the base", copied, sum(after[edit.name].size for edit in copies), verbose)
    made = [f"{_added(after[edit.name])}\n" for edit in zeros]
    yield from _group("add, all zero,", made, sum(after[edit.name].size for edit in zeros), verbose)

    lines = [f"{_added(after[edit.name])}\n" for edit in computed]
    yield from _group("compute", lines, sum(after[edit.name].size for edit in computed), verbose)


def _conversion(change: WeightsChange) -> Iterator[str]:
    size = sum(entry.end - entry.begin for entry in change.before.tensors.values())
    conversion = next(edit for edit in change.edits if isinstance(edit, ConvertWeights))
    files = ", ".join(map(printable, conversion.files))
    yield f"@@ convert {len(change.before.tensors)} tensors of {files}, {size:,} bytes @@\n"


def _group(verb: str, lines: Sequence[str], size: int | None, verbose: bool) -> Iterator[str]:
    if not lines:
        return
    what = "1 tensor" if len(lines) == 1 else f"{len(lines)} tensors"
    yield f"@@ {verb} {what}{'' if size is None else f', {size:,} bytes'} @@\n"
    shown = len(lines) if verbose else SHOWN
    yield from lines[:shown]
    if len(lines) > shown:
        yield f"... and {len(lines) - shown} more\n"


def _added(tensor: Placed) -> str:
    return f"+{printable(tensor.name)}  {_form(tensor.dtype, tensor.shape)}"


def _form(dtype: str, shape: Sequence[int]) -> str:
    return f"{dtype} [{', '.join(map(str, shape))}]"
