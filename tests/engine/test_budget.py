"""Whether there is time for something is decided by what went how fast in this very run, by a clock that the test holds."""

from __future__ import annotations

import math

import pytest

from upgradeconverter.engine.budget import GRACE, SLOWEST, Budget
from upgradeconverter.engine.progress import ITEM, Load

MIB = 1 << 20
GIB = 1 << 30


class World:
    """A budget, and a clock that moves with the work that is done."""

    def __init__(self, seconds: float) -> None:
        self.now = 1000.0
        self.budget = Budget(seconds=seconds, ends=self.now + seconds, clock=lambda: self.now)

    def wave(self, size: int, staging: float, finishing: float) -> None:
        """Carry out a wave of one file."""
        self.budget.begin_wave()
        assert self.budget.begin_group(Load(1, size, 1))
        self.now += staging
        self.budget.end_group(Load(1, size, 1))
        self.budget.end_staging()
        self.now += finishing
        self.budget.end_wave()


def test_without_a_deadline_there_is_always_time() -> None:
    """Nothing is ever refused, however slow it goes."""
    world = World(math.inf)
    world.wave(GIB, 1e6, 1e6)
    assert world.budget.admits(1 << 60)
    assert not world.budget.is_over
    assert world.budget.begin_group(Load(1, 1 << 60, 1))
    world.now += 1e9
    assert not world.budget.moved(1)


@pytest.mark.parametrize(
    ("seconds", "passed", "is_over"),
    [
        (0, 0, True),
        (1, 0, False),
        (1, 0.7, False),
        (1, 0.8, True),
        (100, 100 - GRACE * 1.1, False),
        (100, 100 - GRACE * 0.9, True),
    ],
)
def test_least_time(seconds: float, passed: float, is_over: bool) -> None:
    """With less time than any wave takes none is begun; of a short time a part will do, or it would never be for anything."""
    world = World(seconds)
    world.now += passed
    assert world.budget.is_over == is_over


def test_first_wave_is_begun_whatever_its_size() -> None:
    """While no rate is known nothing is refused in advance."""
    assert World(GRACE * 2).budget.admits(1 << 50)


def test_small_files_say_nothing_about_large_ones() -> None:
    """A wave of one small file, most of which was waiting for the disk, refuses nothing."""
    world = World(1000)
    world.wave(1000, 20, 20)
    assert world.budget.admits(4 * GIB)


def test_measured_rate_decides() -> None:
    """Once a gibibyte took twelve seconds, eight of them for copying, what takes longer than the rest is not begun."""
    world = World(100)
    world.wave(GIB, 8, 4)
    # 88 s are left; a gibibyte is taken to need 15 s, a quarter more than it did.
    assert world.budget.admits(5 * GIB)
    assert not world.budget.admits(6 * GIB)


def test_staging_stops_while_there_is_time_to_finish() -> None:
    """As long as nothing is known, what is staged is taken to need the time of a slow disk."""
    world = World(100)
    world.budget.begin_wave()
    staged = 50 * SLOWEST
    world.budget.end_group(Load(1, staged - ITEM, 1))
    world.now += 100 - 50 - GRACE - 0.5
    assert world.budget.begin_group(Load(1, 10, 1))
    world.now += 1
    assert not world.budget.begin_group(Load(1, 10, 1))
    assert world.budget.moved(1)


def test_nothing_staged_needs_no_time() -> None:
    """A copy goes on up to the deadline when nothing else is staged."""
    world = World(100)
    world.budget.begin_wave()
    world.budget.begin_group(Load(1, 100 * MIB, 1))
    world.now += 98.5
    assert not world.budget.moved(99 * MIB)
    world.now += 1
    assert world.budget.moved(MIB)


@pytest.mark.parametrize(("entries", "is_broken_off"), [(1, True), (1000, False)])
def test_hopeless_file_is_given_up_early(entries: int, is_broken_off: bool) -> None:
    """A file that would take more than twice the time that is left is not copied up to the deadline; of a tree nobody can say."""
    world = World(100)
    world.budget.begin_wave()
    world.budget.begin_group(Load(1, 100 * GIB, entries))
    world.now += 9
    assert not world.budget.moved(GIB)
    world.now += 2
    assert world.budget.moved(1) == is_broken_off


def test_file_that_may_just_fit_is_tried() -> None:
    """A file that looks as if it took a little longer than there is time for may still be done, if it goes faster later."""
    world = World(100)
    world.budget.begin_wave()
    world.budget.begin_group(Load(1, 12 * GIB, 1))
    for _ in range(50):
        world.now += 1
        assert not world.budget.moved(GIB // 10)
