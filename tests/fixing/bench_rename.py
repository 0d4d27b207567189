"""How long it takes to rename every tensor of a large adapter, proof included, against a plain copy of its file.

    python tests/fixing/bench_rename.py [--megabytes 168] [--runs 7] [--directory DIR]

Three are timed in turn: ``cp FILE COPY && sync COPY``, the fix in place (new file, proof, sync, replace), and what one
would do by hand (``load_file``, rename, ``save_file`` of safetensors.torch, sync), if torch is there. The
peak of memory is that of a fresh process that does the fix once. Exit status 1 if a limit is not kept. Where ``cp``
shares extents instead of copying (xfs, btrfs), the ratio says nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from adapterlint.findings import CONFIG_FILE, SAFETENSORS_FILE, RenameTensor
from adapterlint.fixing.apply import AdapterEdits, apply_all

TIME_LIMIT = 1.3
"""Times ``cp`` and ``sync``."""

BY_HAND_LIMIT = 1.0
"""Times loading, renaming and saving."""

MEMORY_LIMIT = 60
"""MB of 10**6 bytes."""

PREFIXES = ("base_model.model.model.", "base_model.model.")


def make(directory: Path, size: int) -> str:
    """An adapter of 448 tensors as PEFT names them, ``size`` bytes of bfloat16 noise together."""
    directory.mkdir()
    modules = [f"self_attn.{m}_proj" for m in "qkvo"] + [f"mlp.{m}_proj" for m in ("gate", "up", "down")]
    stems = [f"{PREFIXES[0]}layers.{layer}.{module}" for layer in range(32) for module in modules]
    names = [f"{stem}.lora_{side}.weight" for stem in stems for side in "AB"]
    columns = size // len(names) // 2 // 16
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    step = 16 * columns * 2
    for number, name in enumerate(names):
        offsets = [number * step, (number + 1) * step]
        header[name] = {"dtype": "BF16", "shape": [16, columns], "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(directory / SAFETENSORS_FILE, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in names:
            file.write(os.urandom(step))
        os.fsync(file.fileno())
    (directory / CONFIG_FILE).write_text('{"peft_type": "LORA", "r": 16}')
    return str(directory)


def names_in(path: str) -> list[str]:
    """The tensors' names."""
    with open(os.path.join(path, SAFETENSORS_FILE), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [name for name in header if name != "__metadata__"]


def plan_for(path: str) -> AdapterEdits:
    """Takes ``model.`` out of every name, or puts it in again."""
    names = names_in(path)
    old, new = PREFIXES if names[0].startswith(PREFIXES[0]) else PREFIXES[::-1]
    return AdapterEdits(path, tuple(RenameTensor(name, new + name.removeprefix(old)) for name in names))


def apply(plan: AdapterEdits) -> None:
    """What is measured."""
    proof = apply_all([plan])[0]
    size = os.path.getsize(os.path.join(plan.path, SAFETENSORS_FILE))
    assert proof.renamed == len(plan.edits) == 448 and size - 300_000 < proof.bytes_compared < size


def apply_in_a_child(plan: AdapterEdits) -> None:
    """:func:`apply` in a process of its own, as ``cp`` has one: a scheduler under load favours new ones."""
    in_a_child(lambda: apply(plan))


def by_hand(path: str) -> float:
    """Seconds of the same without a proof, in a process of its own, the import of torch apart."""
    os.sync()
    done = subprocess.run([sys.executable, __file__, "--by-hand", path], check=True, capture_output=True, text=True)
    return float(done.stdout)


def load_and_save(path: str) -> None:
    """Prints how long it takes to load, rename, save and sync."""
    from safetensors.torch import load_file, save_file

    file = os.path.join(path, SAFETENSORS_FILE)
    names = {edit.old: edit.new for edit in plan_for(path).edits if isinstance(edit, RenameTensor)}
    start = time.perf_counter()
    save_file({names[name]: tensor for name, tensor in load_file(file).items()}, f"{file}.new", {"format": "pt"})
    with open(f"{file}.new", "rb") as saved:
        os.fsync(saved.fileno())
    os.replace(f"{file}.new", file)
    print(time.perf_counter() - start)


def in_a_child(work: Callable[[], None]) -> None:
    """Does the work in a forked process. Raises RuntimeError if it fails."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the fix failed")


def copy_and_sync(plan: AdapterEdits) -> None:
    """What it is compared with."""
    command = 'cp "$0" "$1" && sync "$1"'
    subprocess.run(["sh", "-c", command, os.path.join(plan.path, SAFETENSORS_FILE), f"{plan.path}.copy"], check=True)


def timed(work: Callable[[AdapterEdits], None], path: str) -> float:
    """Seconds, with nothing else waiting to be written."""
    Path(f"{path}.copy").unlink(missing_ok=True)
    plan = plan_for(path)
    os.sync()
    start = time.perf_counter()
    work(plan)
    return time.perf_counter() - start


def peak_memory(path: str) -> float:
    """MB that a fresh process has had at most."""
    done = subprocess.run([sys.executable, __file__, "--once", path], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1000 * 1.024


def once(path: str) -> None:
    """Prints the peak of this process in KiB. (Not ru_maxrss, which counts the parent until exec.)"""
    apply(plan_for(path))
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> int:
    """See the module's first lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=168)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--directory")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--by-hand", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(options.once)
        return 0
    if options.by_hand:
        load_and_save(options.by_hand)
        return 0
    with tempfile.TemporaryDirectory(dir=options.directory) as home:
        path = make(Path(home, "adapter"), options.megabytes * 10**6)
        ways: dict[str, Callable[[], float]] = {
            "cp + sync": lambda: timed(copy_and_sync, path),
            "rename all, with proof": lambda: timed(apply_in_a_child, path),
        }
        if importlib.util.find_spec("torch"):
            ways["load, rename, save, sync"] = lambda: by_hand(path)
        times: dict[str, list[float]] = {label: [] for label in ways}
        for label, way in [*ways.items()] * (options.runs + 1):
            times[label].append(way())
        times = {label: found[1:] for label, found in times.items()}  # the first round warms up
        peak = peak_memory(path)
    print(f"file                      {options.megabytes} MB, 448 tensors, {options.runs} runs in turn")
    for label, found in times.items():
        middle, least, most = (round(1000 * each) for each in (statistics.median(found), min(found), max(found)))
        print(f"{label:25} median {middle} ms ({least} to {most})")
    copied, fixed, *others = (statistics.median(found) for found in times.values())
    print(f"ratio to cp + sync        {fixed / copied:.2f} (limit {TIME_LIMIT})")
    slow = fixed > TIME_LIMIT * copied
    for other in others:
        print(f"ratio to load and save    {fixed / other:.2f} (limit {BY_HAND_LIMIT})")
        slow = slow or fixed > BY_HAND_LIMIT * other
    print(f"peak memory               {peak:.0f} MB (limit {MEMORY_LIMIT})")
    return int(slow or peak > MEMORY_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
