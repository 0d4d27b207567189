"""AL508."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations

from adapterlint.findings import Finding, Severity
from adapterlint.model.subject import NoPayload, SetSubject, Subject
from adapterlint.model.tensor import Tensor
from adapterlint.rules.base import SetRule
from adapterlint.rules.examples import AnyExample, Example, SetExample, bert_base, bert_config, bert_tensors

_MOST_BYTES = 16 << 20  # beyond, looking would take longer than everything else


class DuplicateAdapter(SetRule):
    """## What it does
    Looks for two members of a set with the same tensors, byte for byte.

    ## Why is this bad?
    It is not wrong, but the second one takes memory and answers as the first, unless their configs scale it otherwise.
    Often a checkpoint and the final save of one training run.

    ## Example
    A directory and its copy.

    ## Fix
    None: leave one of them out.

    ## References
    - Adapters on the Hugging Face Hub: 32 groups of identical weights among 448.
    """

    code = "AL508"
    name = "duplicate-adapter"
    severity = Severity.NOTE
    loading = False

    needs = ("set", "payload")

    @staticmethod
    def valid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        zero = Example("b", bert_config(), bert_tensors(), fill="zero")
        return [SetExample("other numbers", {"a": plain, "b": zero}, bert_base())]

    @staticmethod
    def invalid() -> list[AnyExample]:
        plain = Example("a", bert_config(), bert_tensors())
        return [SetExample("twice the same", {"a": plain, "b": plain}, bert_base())]

    def check(self, subject: SetSubject) -> Iterator[Finding]:
        alike: dict[object, list[Subject]] = {}
        for member in subject.members:
            start = _start(member)
            if start is not None:
                alike.setdefault(start, []).append(member)
        for one, other in (pair for members in alike.values() for pair in combinations(members, 2)):
            if _same(one, other):
                yield self.finding(
                    f"{other.adapter.name} holds the same tensors as {one.adapter.name}",
                    other.at_file(other.adapter.weights_file or ""),
                    related=(one.at_file(one.adapter.weights_file or "", one.adapter.name),),
                    adapters=subject.paths,
                )


def _start(member: Subject) -> tuple[int, str, bytes] | None:
    """What two adapters with the same tensors have in common, told quickly: how many, one's name, its first bytes."""
    tensors = member.adapter.tensors
    if isinstance(member.payload, NoPayload) or not tensors or not member.adapter.readable:
        return None
    name = min(tensors)
    head = member.payload.head(tensors[name])
    return None if head is None else (len(tensors), name, head)


def _same(one: Subject, other: Subject) -> bool:
    """Whether both store the same names, types, shapes and bytes; False where that cannot be told at little cost."""
    mine, theirs = one.adapter.tensors, other.adapter.tensors
    if not mine or not one.adapter.readable or not other.adapter.readable or mine.keys() != theirs.keys():
        return False
    where = os.path.relpath(other.adapter.path, one.adapter.path)
    pairs = [(mine[name], theirs[name]) for name in mine]
    shift = pairs[0][1].offset - pairs[0][0].offset
    if any(a.offset < 0 or b.offset - a.offset != shift or a[1:3] != b[1:3] for a, b in pairs):
        return False  # laid out otherwise, or not in one run
    size = sum(a.nbytes for a, _ in pairs)
    smallest = min(pairs, key=lambda pair: pair[0].nbytes)
    if size > _MOST_BYTES or not one.payload.equal(smallest[0], _seen_from(smallest[1], where)):
        return False
    begin = min(a.offset for a, _ in pairs)
    if max(a.offset + a.nbytes for a, _ in pairs) != begin + size:
        return False
    whole = pairs[0][0]._replace(dtype="U8", shape=(size,), offset=begin, nbytes=size)
    copy = whole._replace(file=theirs[whole.name].file, offset=begin + shift)
    return one.payload.equal(whole, _seen_from(copy, where)) is True


def _seen_from(tensor: Tensor, where: str) -> Tensor:
    """A tensor of another directory, as the payload of this one finds it."""
    return tensor._replace(file=os.path.join(where, tensor.file))
