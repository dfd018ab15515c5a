"""Medians, quartiles and ratios are what they are called."""

from __future__ import annotations

import pytest

from benchmarks.figures import Found, Sample, Spread, ratio, spread
from benchmarks.running import read_table


def found(*samples: Sample) -> Found:
    """Return what was found of a way, round by round."""
    return Found(name="way", samples=dict(enumerate(samples)))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        pytest.param([2.0], (2.0, 2.0, 2.0), id="one"),
        pytest.param([1.0, 3.0], (1.5, 2.0, 2.5), id="two"),
        pytest.param([5.0, 1.0, 3.0, 2.0, 100.0], (2.0, 3.0, 5.0), id="one that was disturbed"),
    ],
)
def test_spread(numbers: list[float], expected: tuple[float, float, float]) -> None:
    """The middle half of the numbers lies between the quartiles, whatever their order."""
    low, median, high = expected
    assert spread(numbers) == Spread(median=median, low=low, high=high)


def test_ratio_is_of_rounds() -> None:
    """A round in which the machine was slow for both says as much as the others."""
    mine, theirs = {0: 1.0, 1: 100.0, 2: 1.0}, {0: 2.0, 1: 200.0, 2: 4.0}
    assert ratio(mine, theirs) == 0.5


def test_ratio_needs_the_same_round() -> None:
    """What only one of two did is compared with nothing."""
    assert ratio({0: 1.0}, {1: 2.0}) is None
    assert ratio({0: 1.0, 1: 4.0}, {1: 2.0, 2: 9.0}) == 2.0


def test_rounds_with_a_problem_do_not_count() -> None:
    """A result that is not equal has no time and no size, and its problem is told."""
    good = Sample(seconds=3.0, largest=5, together=None)
    bad = Sample(seconds=1.0, largest=9, together=7, problem="not equal: all of it")
    assert found(good, bad).seconds() == {0: 3.0}
    assert found(good, bad).most("largest") == 5
    assert found(good, bad).most("together") is None
    assert (found(good, bad).problem(), found(good).problem()) == ("not equal: all of it", "")


def test_table_of_strace() -> None:
    """Calls are counted by name, with and without a column of errors."""
    text = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.05    0.000105           3        31         2 openat
 38.95    0.000067          67         1           execve
------ ----------- ----------- --------- --------- ----------------
100.00    0.000172           5        32         2 total
"""
    assert read_table(text) == {"openat": 31, "execve": 1}
