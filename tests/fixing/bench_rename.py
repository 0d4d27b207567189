"""How long it takes to rename every tensor of a large adapter, proof included, against a plain copy of its file.

    python tests/fixing/bench_rename.py [--megabytes 168] [--runs 7] [--directory DIR]

The two are timed in turn: ``cp FILE COPY && sync COPY``, and the fix in place (new file, proof, sync, replace). The
peak of memory is that of a fresh process that does the fix once. Exit status 1 if a limit is not kept. Where ``cp``
shares extents instead of copying (xfs, btrfs), the ratio says nothing.
"""

from __future__ import annotations

import argparse
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

TIME_LIMIT = 2.0
"""Times ``cp`` and ``sync``."""

MEMORY_LIMIT = 80
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
    child = os.fork()
    if child == 0:
        code = 1
        try:
            apply(plan)
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
    options = parser.parse_args()
    if options.once:
        once(options.once)
        return 0
    with tempfile.TemporaryDirectory(dir=options.directory) as home:
        path = make(Path(home, "adapter"), options.megabytes * 10**6)
        timed(copy_and_sync, path), timed(apply_in_a_child, path)  # one round to warm up
        pairs = [(timed(copy_and_sync, path), timed(apply_in_a_child, path)) for _ in range(options.runs)]
        peak = peak_memory(path)
    copies, fixes = zip(*pairs, strict=True)
    ratio = statistics.median(fixes) / statistics.median(copies)
    paired = statistics.median(fix / copy for copy, fix in pairs)
    print(f"file                      {options.megabytes} MB, 448 tensors, {options.runs} runs in turn")
    for label, times in (("cp + sync", copies), ("rename all, with proof", fixes)):
        middle, least, most = (round(1000 * each) for each in (statistics.median(times), min(times), max(times)))
        print(f"{label:25} median {middle} ms ({least} to {most})")
    print(f"ratio of the medians      {ratio:.2f} (limit {TIME_LIMIT}; median of the ratios {paired:.2f})")
    print(f"peak memory               {peak:.0f} MB (limit {MEMORY_LIMIT})")
    return int(ratio > TIME_LIMIT or peak > MEMORY_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
