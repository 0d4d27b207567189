"""The parts of verifying that need no torch: batch, quiet, report, and what happens when torch is absent."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from adapterlint.verifying import (
    AdapterReference,
    MissingExtra,
    OrderResult,
    Step,
    Tolerance,
    VerifyReport,
    render_table,
)
from adapterlint.verifying.base import token_batch
from adapterlint.verifying.quiet import offline, recorded


def report(*orders: OrderResult) -> VerifyReport:
    return VerifyReport(
        device="cpu",
        device_name=None,
        versions={"peft": "0.17.1", "transformers": "4.57.1", "torch": "2.13.0"},
        base="base",
        architecture="BertModel",
        dtype="float32",
        tolerance=Tolerance(1e-4, 1e-4),
        adapters=(
            AdapterReference("a", "set/a", "merged", 3.16, None, 0),
            AdapterReference("long", "set/long", "none", None, "PEFT cannot\nload it alone", 2),
        ),
        orders=orders,
        warnings=("UserWarning: x",),
        seconds=1.25,
    )


SWITCH_RAISES = Step("long", "switch", "raises", exception="ValueError: Adapter long not found\nin dict_keys(['a'])")
MIXED = report(
    OrderResult(
        ("a", "long"),
        (
            Step("a", "after_load", "wrong", 2.837),
            Step("a", "after_switch", "ok", 1e-7),
            SWITCH_RAISES,
            Step("a", "after_switch", "inert", 3.16),
            SWITCH_RAISES,
        ),
    ),
    OrderResult(("long", "a"), (Step("a", "load", "raises", exception="KeyError: 'x'"),)),
)

TABLE = """\
peft 0.17.1, transformers 4.57.1, torch 2.13.0, cpu
base base (BertModel, float32); equal within 0.0001 + 0.0001 * max|reference|

adapter  reference  effect  note
a        merged     3.16
long     none       -       PEFT cannot load it alone

order   after load  to a   to long
a long  wrong 2.8   inert  raises
long a  raises      -      -

switch of long raises (2 times): ValueError: Adapter long not found in dict_keys(['a'])
load of a raises: KeyError: 'x'

not every adapter answers as trained: 0 of 2 loading orders right, in 1.2 s
"""


def test_the_table() -> None:
    assert render_table(MIXED) == TABLE


def test_the_table_of_a_single_adapter() -> None:
    whole = report(OrderResult(("default",), (Step("default", "after_load", "ok", 0.0),)))
    lines = render_table(replace(whole, adapters=whole.adapters[:1])).splitlines()
    assert "order    after load" in lines
    assert lines[-1] == "every adapter answers as trained: 1 of 1 loading order right, in 1.2 s"


def test_outcomes_are_the_worst_of_the_steps() -> None:
    assert not MIXED.ok
    assert [order.outcome for order in MIXED.orders] == ["raises", "raises"]
    assert MIXED.outcomes == {"a": "raises", "long": "raises"}
    assert MIXED.orders[0].first_failure == Step("a", "after_load", "wrong", 2.837)


def test_the_report_is_plain_data() -> None:
    plain = json.loads(json.dumps(MIXED.as_dict()))
    assert plain["summary"] == {
        "ok": False,
        "orders": 2,
        "orders_ok": 0,
        "outcomes": {"a": "raises", "long": "raises"},
    }
    assert plain["orders"][1]["steps"] == [
        {"adapter": "a", "stage": "load", "outcome": "raises", "difference": None, "exception": "KeyError: 'x'"}
    ]
    assert plain["tolerance"] == {"absolute": 1e-4, "relative": 1e-4}


def config(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**({"pad_token_id": 0, "max_position_embeddings": 32} | values))


def test_the_batch_is_fixed_and_avoids_padding() -> None:
    rows = token_batch(config(eos_token_id=[2, 3]), 6)
    assert rows == token_batch(config(eos_token_id=[2, 3]), 6)
    assert [len(row) for row in rows] == [12, 12]
    assert {token for row in rows for token in row} == {1, 4, 5}


def test_the_batch_holds_the_tokens_that_an_adapter_changes() -> None:
    rows = token_batch(config(), 48, [40, 9, 40, 99])
    assert {9, 40} <= {token for row in rows for token in row}
    assert all(token < 48 for row in rows for token in row)
    crowded = token_batch(config(), 4096, range(100, 1000))
    assert all(token >= 100 for row in crowded for token in row)


def test_the_batch_fits_the_model() -> None:
    assert [len(row) for row in token_batch(config(max_position_embeddings=8), 48)] == [6, 6]
    assert len(token_batch(config(pad_token_id=None), 48)) == 1
    encoder_decoder = token_batch(config(eos_token_id=1, is_encoder_decoder=True), 48)
    assert [row.count(1) for row in encoder_decoder] == [1, 1]
    assert [row[-1] for row in encoder_decoder] == [1, 1]


def test_everything_printed_is_recorded_once(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("transformers.models")
    with recorded() as messages:
        for _ in range(2):
            warnings.warn("first\nline", RuntimeWarning, stacklevel=1)
            logger.warning("logged %d", 1)
            print("printed")
        print("\r 50%|#####     |\r100%|##########|", file=sys.stderr)
        warnings.warn("x" * 1000, RuntimeWarning, stacklevel=1)
    assert capfd.readouterr() == ("", "")
    assert messages[:3] == ["transformers.models: logged 1", "RuntimeWarning: first line", messages[2]]
    assert messages[2].endswith("x...")
    assert messages[3:] == ["printed"]


def test_loggers_are_as_before(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("peft")
    before = list(logger.handlers), logger.propagate, list(logging.getLogger().handlers)
    with pytest.raises(ZeroDivisionError), recorded():
        raise ZeroDivisionError
    assert (list(logger.handlers), logger.propagate, list(logging.getLogger().handlers)) == before


def test_offline_is_only_for_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    with offline():
        assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in os.environ
    assert os.environ["TRANSFORMERS_OFFLINE"] == "0"


def test_the_missing_extra_says_what_to_install() -> None:
    assert str(MissingExtra("verify")) == "this needs further libraries: pip install 'adapterlint[verify]'"


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_importing_the_package_imports_no_library() -> None:
    heavy = ("torch", "transformers", "peft", "safetensors", "numpy")
    program = f"import adapterlint.verifying, sys; print([name for name in {heavy} if name in sys.modules])"
    assert python(program) == "[]"


@pytest.mark.parametrize("absent", ["torch", "transformers", "peft"])
def test_without_a_library_the_extra_is_named(absent: str) -> None:
    if absent != "torch":
        pytest.importorskip("torch")
    program = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "from adapterlint.verifying import MissingExtra, Recipe, verify\n"
        "try:\n    verify([Recipe('x', 'x', 'x')], 'x')\nexcept MissingExtra as error:\n    print(error)"
    )
    assert "pip install 'adapterlint[verify]'" in python(program)
