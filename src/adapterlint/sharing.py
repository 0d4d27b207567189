"""Work in several processes that are forked from this one, and that does its own part of it.

``concurrent.futures`` would cost 40 ms to import, and every result a way through a pipe; here only those of the other
processes are sent, and many at a time.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_NUMBER_BYTES = 4
_MOST_CHUNKS = 1024  # their numbers fit a pipe at once
_BATCH = 5
"""Chunks whose results are sent at once: what they have in common is sent once."""


def able() -> bool:
    """Whether this system has what it takes."""
    return all(hasattr(os, name) for name in ("fork", "memfd_create", "sched_getaffinity"))


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Items in parts of about that size; in larger ones if there were too many."""
    size = max(size, -(-len(items) // _MOST_CHUNKS))
    return [items[start : start + size] for start in range(0, len(items), size)]


def share(
    parts: Sequence[Item],
    work: Callable[[Item], Result],
    packed: Callable[[Result], Result],
    processes: int,
    begun: Callable[[int], None] = lambda number: None,
) -> list[Result]:
    """The results of all parts, in order. What a process that dies has not sent is done here.

    Args:
        parts: as :func:`chunks` makes them; whoever is free takes the next.
        work: what to do with one.
        packed: applied, in another process, to a result before it is sent: it must be one that pickle knows.
        processes: how many there should be, this one included.
        begun: is told, now and then, how many parts have been taken.
    """
    queue, entry = os.pipe()
    helpers: list[tuple[int, int]] = []
    done: dict[int, Result] = {}
    try:
        os.write(entry, b"".join(number.to_bytes(_NUMBER_BYTES, "little") for number in range(len(parts))))
        os.close(entry)
        for _ in range(processes - 1):
            helpers.append(_start(queue, parts, work, packed))
        for number in _numbers(queue):
            done[number] = work(parts[number])
            begun(number + 1)
        while helpers:
            helper, results = helpers.pop()
            os.waitpid(helper, 0)
            done.update(_sent(results))
    finally:
        os.close(queue)
        for helper, results in helpers:
            os.kill(helper, signal.SIGKILL)
            os.waitpid(helper, 0)
            os.close(results)
    return [done[number] if number in done else work(part) for number, part in enumerate(parts)]


def _numbers(queue: int) -> Iterator[int]:
    """The numbers of parts that nobody else has taken."""
    while taken := os.read(queue, _NUMBER_BYTES):
        yield int.from_bytes(taken, "little")


def _start(
    queue: int, parts: Sequence[Item], work: Callable[[Item], Result], packed: Callable[[Result], Result]
) -> tuple[int, int]:
    """Another process, and the file into which it writes its results."""
    results = os.memfd_create("adapterlint")
    parent = os.getpid()
    helper = os.fork()
    if helper:
        return helper, results
    try:
        with os.fdopen(results, "wb") as file:
            batch = []
            for number in _numbers(queue):
                batch.append((number, packed(work(parts[number]))))
                if len(batch) == _BATCH:
                    pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
                    batch.clear()
                if os.getppid() != parent:
                    break
            pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)  # whatever went wrong: the other process does again what is missing, and meets it too


def _sent(results: int) -> Iterator[tuple[int, Result]]:
    """What another process has written, up to where it was cut off."""
    with os.fdopen(results, "rb") as file:
        file.seek(0)
        try:
            while True:
                yield from pickle.load(file)
        except (EOFError, pickle.UnpicklingError):
            return
