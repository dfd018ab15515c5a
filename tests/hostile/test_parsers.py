"""Whatever bytes somebody wrote, each reader understands them or refuses them in its own words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.parsers import TARGETS

DEEP = (
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"a = " + b"[" * 5_000,
    b'{"sequence": 1e999}',
    b'{"sequence": Infinity}',
    b"\0" * 4096,
)


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_examples(name: str, data: st.DataObject) -> None:
    """Examples with bytes changed, lost, added or repeated, and bytes that are nothing, lead to no mistake."""
    parser, seeds = TARGETS[name]
    content = data.draw(st.sampled_from(seeds) | st.binary(max_size=200))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = start + data.draw(st.integers(0, 8))
        content = content[:start] + data.draw(st.binary(max_size=8)) + content[end:]
    parser(content)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("number", range(len(DEEP)))
def test_nesting_and_extreme_numbers(name: str, number: int) -> None:
    """Nesting that no recursion survives, and numbers that no integer is, are refused like everything else."""
    TARGETS[name][0](DEEP[number])
