"""Git LFS pointers, whole and damaged, and texts that are none."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterlint.reading.lfs import LfsPointer, parse_pointer
from adapterlint.reading.signatures import identify

OID = hashlib.sha256(b"weights").hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 13982248\n"


@pytest.mark.parametrize(
    "text",
    [
        POINTER,
        POINTER.replace("\n", "\r\n"),
        POINTER.rstrip("\n"),
        "\ufeff" + POINTER,
        POINTER.replace("git-lfs.github.com", "hawser.github.com"),
        POINTER.replace("oid", "ext-0-foo sha256:" + "0" * 64 + "\noid"),
        POINTER + "\n" * 2000,
    ],
    ids=["plain", "crlf", "no-last-newline", "bom", "hawser", "extension", "long"],
)
def test_pointer(text: str) -> None:
    assert parse_pointer(text.encode()) == LfsPointer(f"sha256:{OID}", 13982248)


def test_size_zero_is_a_size() -> None:
    assert parse_pointer(POINTER.replace("13982248", "0").encode()) == LfsPointer(f"sha256:{OID}", 0)


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("version https://git-lfs.github.com/spec/v1", LfsPointer("", None)),
        (POINTER.partition("size")[0], LfsPointer(f"sha256:{OID}", None)),
        (POINTER.replace(OID, OID[:10]), LfsPointer("", 13982248)),
        (POINTER.replace("13982248", "many"), LfsPointer(f"sha256:{OID}", None)),
        (POINTER.replace("13982248", "9" * 5000), LfsPointer(f"sha256:{OID}", None)),
    ],
    ids=["first-line", "no-size", "short-oid", "no-number", "endless-number"],
)
def test_damaged_pointer_stays_one(text: str, pointer: LfsPointer) -> None:
    assert parse_pointer(text.encode()) == pointer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version",
        " " + POINTER,
        "version https://example.org/spec/v1\n",
        "version https://git-lfs.github.com/spec/v1x\n",
    ],
)
def test_no_pointer(text: str) -> None:
    assert parse_pointer(text.encode()) is None


@given(st.binary(max_size=200), st.integers(0, len(POINTER)))
def test_never_raises(tail: bytes, keep: int) -> None:
    for head in (tail, POINTER.encode()[:keep] + tail):
        pointer = parse_pointer(head)
        signature = identify(head)
        assert (pointer is None) == (signature is None or signature.kind != "lfs-pointer")
