"""JSON comes out as Go writes it, byte for byte, and whatever is read survives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations.eve.gojson import Number, member, read, sorted_map, whole_number, write

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (
            {"Key": "a", "IntValue": 60, "BoolValue": True, "None": None},
            b'{"Key":"a","IntValue":60,"BoolValue":true,"None":null}',
        ),
        ('<a href="x">&</a>', b'"\\u003ca href=\\"x\\"\\u003e\\u0026\\u003c/a\\u003e"'),
        ("\b\f\n\r\t\x00\x1f\x7f", b'"\\u0008\\u000c\\n\\r\\t\\u0000\\u001f\x7f"'),
        ("\u2028\u2029 ä 🐧", '"\\u2028\\u2029 ä 🐧"'.encode()),
        ("half \ud800 a pair", '"half \ufffd a pair"'.encode()),
        (Number("1.50"), b"1.50"),
        ([], b"[]"),
        ({}, b"{}"),
    ],
)
def test_written(value: object, written: bytes) -> None:
    """Each rule of Go's encoder."""
    assert write(value) == written


@given(VALUES)
def test_survives(value: Any) -> None:
    """What is written reads as the same, with any reader."""
    assert json.loads(write(value)) == value
    assert write(read(write(value))) == write(value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"NaN", b"[Infinity]", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":01}', "{}".encode("utf-16")]
)
def test_not_read(content: bytes) -> None:
    """What Go would not read is refused, whatever it is."""
    with pytest.raises(ValueError):  # noqa: PT011 - the one error of the contract
        read(content)


def test_members() -> None:
    """Names are found in any case, the right one first; maps are sorted by bytes."""
    assert member({"key": 1, "Key": 2, "KEY": 3}, "Key") == 2
    assert member({"key": 1, "KEY": 3}, "Key") == 3
    assert member([], "Key") is None
    assert list(sorted_map({"ä": 1, "z": 2, "Z": 3})) == ["Z", "z", "ä"]


@pytest.mark.parametrize(
    ("value", "number"),
    [(Number("60"), 60), (Number("-1"), -1), (Number("1.0"), None), (Number("1e3"), None), ("60", None), (True, None)],
)
def test_whole_number(value: object, number: int | None) -> None:
    """Only what Go would take for an integer is one."""
    assert whole_number(value) == number
