"""What the tables say about keys and values, against the releases taken one by one and against measured exceptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterlint.model import schema
from adapterlint.model.target import bundled
from adapterlint.releases import covers, version_key

ORACLE = Path(__file__).parents[3] / "shared" / "oracle" / "dev"
LORA = schema.config_type("LORA")
assert LORA is not None
FIELDS = sorted(LORA.fields)
RELEASES = [target.version for target in bundled()]


def knows(kind: schema.ConfigType, key: str, release: str) -> bool:
    """Whether a release has a key, asked of every stretch on its own."""
    if key == "runtime_config":
        return version_key(release) >= (0, 12)
    at = version_key(release)
    return any(
        version_key(item.since) <= at and (item.before is None or at < version_key(item.before))
        for item in kind.fields.get(key, ())
    )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["LORA", "ADALORA", "LOKR", "OFT", "PROMPT_TUNING", "PREFIX_TUNING", "BOFT", "VBLORA", "BONE"]),
    st.lists(st.sampled_from([*FIELDS, "zzz", "rank_dropout_scale", "tokenizer_kwargs"]), unique=True, max_size=8),
)
def test_refusals_name_the_first_unknown_key_of_each_release(peft_type: str, keys: list[str]) -> None:
    kind = schema.config_type(peft_type)
    assert kind is not None
    found = schema.refusals(peft_type, keys)
    for release in RELEASES:
        at = version_key(release)
        exists = version_key(kind.since) <= at and (kind.before is None or at < version_key(kind.before))
        strict = (0, 6) <= at < (0, 14)
        expected = next((key for key in keys if not knows(kind, key, release)), None) if exists and strict else None
        said = [refusal.key for refusal in found if covers(refusal.targets, "peft", release)]
        assert said == ([expected] if expected else []), release


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FIELDS))
def test_the_releases_that_ignore_a_key_are_those_that_neither_know_nor_refuse_it(key: str) -> None:
    assert LORA is not None
    spans = [schema.span_text(span) for span in schema.ignoring_spans(LORA, key)]
    for release in RELEASES:
        ignored = any(covers(span, "peft", release) for span in spans)
        strict = (0, 6) <= version_key(release) < (0, 14)
        assert ignored == (not knows(LORA, key, release) and not strict), release


@pytest.mark.skipif(not ORACLE.is_dir(), reason="the measured cases are not here")
def test_refusals_have_the_measured_texts() -> None:
    truth = json.loads((ORACLE / "truth.json").read_text())
    seen = 0
    for case_id, results in truth.items():
        path = ORACLE / "cases" / case_id / "adapter" / "adapter_config.json"
        try:
            config = json.loads(path.read_text("utf-8"))
            found = schema.refusals(config["peft_type"], config)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for release, result in results.items():
            said = next((item.exception for item in found if covers(item.targets, "peft", release)), None)
            error = result.get("error", "")
            if "unexpected keyword argument" in error or said is not None:
                assert said == error, (case_id, release)
                seen += 1
    print(f"{seen} measured refusals")
    assert seen > 100


@pytest.mark.parametrize(
    ("value", "default", "same"),
    [
        (None, None, True),
        (None, False, True),
        ([], None, True),
        ({}, {}, True),
        ("", None, True),
        (0, None, False),
        (0, False, True),
        (0.0, 0, False),
        (16, 16, True),
        (True, False, False),
        (True, 1, False),
        ("megatron.core", "megatron.core", True),
    ],
)
def test_same_value(value: object, default: object, same: bool) -> None:
    assert schema.same_value(value, default) is same


def test_a_later_initialisation_fits_later_releases_only() -> None:
    assert LORA is not None
    stretches = LORA.fields["init_lora_weights"]
    assert schema.misfits(stretches, "eva") == [("0.7.0", "0.14.0")]
    assert schema.misfits(stretches, "gaussian") == []
    assert schema.misfits(stretches, "pissa_niter_16") == [("0.7.0", "0.11.0")]
    assert schema.misfits(stretches, "kaiming") == [("0.7.0", None)]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("lora_aplha", "lora_alpha"), ("target-modules", "target_modules"), ("Rank_pattern", "rank_pattern"), ("x", None)],
)
def test_similar(word: str, meant: str | None) -> None:
    assert schema.similar(word, FIELDS) == meant
