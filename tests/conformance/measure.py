"""What the installed PEFT does with every fixture, against what adapterlint predicts for exactly that release.

    python tests/conformance/measure.py [--record] [--only GLOB]

Prints every cell that disagrees, with a closing count, and exits 1 if there is one, or if what was measured is no
longer what ``measured/<release>.json`` says. ``--record`` writes that file instead.
"""

from __future__ import annotations

import argparse
import fnmatch
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import peft
import torch
import transformers
from cases import Fixture, base_files, fixtures, place_base
from meanings import DEEPER, meaning
from records import Cell, agrees, installed, plain, predictions, read, title, write
from reference import NoMeaningError, answer, expected, fresh_base
from untold import KNOWN, SKIPPED, UNTOLD

RELEASE = installed(peft.__version__, transformers.__version__)
TOLERANCE = 1e-3  # right answers are within 1e-5 of the reference, wrong ones usually off by more than 0.1


class RaisedError(Exception):
    """An exception that a user of PEFT would see."""


def attempt(action: Callable[[], Any]) -> Any:
    """Run a step of PEFT's; what it raises becomes :class:`RaisedError`."""
    try:
        return action()
    except Exception as error:
        raise RaisedError(f"{type(error).__name__}: {error}") from None


def observe(fixture: Fixture, paths: list[Path], base: Path) -> Cell:
    """Load the adapters as a user would, and compare every answer with the reference."""
    torch.manual_seed(0)
    names = list(fixture.members) if fixture.together else ["default"]
    try:
        outputs = [(name, output.clone()) for name, output in _answers(names, paths, base)]
    except RaisedError as raised:
        return Cell("raises", plain(str(raised), paths[0].parent))
    if fixture.name in UNTOLD:
        return Cell("undefined")
    own = place_base(base_files(DEEPER[fixture.name]), base.parent) if fixture.name in DEEPER else base
    members = zip(names, fixture.members, paths, strict=True)
    references = {name: expected(own, meaning(fixture, member, path)) for name, member, path in members}
    wrong = [(name, output) for name, output in outputs if not near(output, references[name])]
    if not wrong:
        return Cell("loads")
    return Cell("inert" if near(wrong[0][1], answer(fresh_base(base))) else "wrong")


def _answers(names: list[str], paths: list[Path], base: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The first adapter right after loading; in a set then each one, twice, after switching to it."""
    load = peft.PeftModel.from_pretrained
    model = attempt(lambda: load(fresh_base(base), str(paths[0]), adapter_name=names[0]))
    for name, path in zip(names[1:], paths[1:], strict=True):
        attempt(lambda name=name, path=path: model.load_adapter(str(path), adapter_name=name))
    yield names[0], attempt(lambda: answer(model))
    for name in names * 2 if len(names) > 1 else ():
        attempt(lambda name=name: model.set_adapter(name))
        yield name, attempt(lambda: answer(model))


def near(output: torch.Tensor, reference: torch.Tensor) -> bool:
    """Whether two answers are the same; never for NaN or another shape."""
    return output.shape == reference.shape and bool((output - reference).abs().max() <= TOLERANCE)


def run(only: str = "*") -> tuple[dict[str, Cell], list[str]]:
    """Measure, and list what disagrees."""
    measured: dict[str, Cell] = {}
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for fixture in fixtures():
            if not fnmatch.fnmatch(fixture.name, only) or fixture.name in {**SKIPPED, **KNOWN}:
                continue
            paths, base = fixture.write(root / fixture.name), fixture.write_base(root)
            try:
                found = observe(fixture, paths, base)
            except NoMeaningError as error:
                lines.append(f"{fixture.name}: what it means is not said: {error}")
                continue
            said = predictions(fixture, paths, base, [RELEASE])[RELEASE]
            measured[fixture.name] = found
            if not agrees(said, found):
                lines.append(f"{fixture.name}: predicted {' '.join(said)}, measured {' '.join(found)}")
    return measured, lines


def main() -> int:
    """Measure, compare, and check or write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", default="*", metavar="GLOB")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    measured, lines = run(args.only)
    release = RELEASE
    if args.record:
        stack = {
            "peft": release,
            "transformers": transformers.__version__,
            "torch": torch.__version__.partition("+")[0],
        }
        digests = {fixture.name: fixture.digest for fixture in fixtures()}
        kept = read(release) if args.only != "*" else {}
        write(release, stack, kept | {name: (digests[name], cell) for name, cell in measured.items()})
    elif args.only == "*" and (recorded := {name: cell for name, (_, cell) in read(release).items()}):
        lines += [
            f"{name}: not as recorded"
            for name in sorted(measured.keys() | recorded.keys())
            if measured.get(name) != recorded.get(name)
        ]
    print("\n".join(lines))
    bad = sum(cell.outcome != "loads" for cell in measured.values())
    print(f"peft {title(release)}: {len(measured)} fixtures measured, {bad} not loads, {len(lines)} disagree")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
