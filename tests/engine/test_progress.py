"""What the meter says of a run is what went by, over the time of a clock that the test holds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from upgradeconverter.engine.progress import ITEM, Load, Meter, Reading, load_of
from upgradeconverter.model.plan import Shape, Step

MIB = 1 << 20
FILE = Step(number=1, group=1, migration="m", operation="Move", shape=Shape.COPY, source="a", target="b", size=MIB, allocated=MIB)


@dataclass
class Clock:
    """A clock that moves when told."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def _meter(clock: Clock, steps: int = 4) -> tuple[Meter, list[Reading]]:
    """Return a meter that expects so many files of a mebibyte, and the list of what it tells."""
    told: list[Reading] = []
    meter = Meter(clock=clock, watchers=(told.append,))
    meter.expect("post-vault", load_of(replace(FILE, number=number) for number in range(steps)))
    return meter, told


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(FILE, (1, MIB, 1), id="copy"),
        pytest.param(replace(FILE, size=20 << 30), (1, MIB, 1), id="holes are not read"),
        pytest.param(replace(FILE, size=10), (1, 10, 1), id="less than its block"),
        pytest.param(replace(FILE, entries=500), (1, MIB, 500), id="tree"),
        pytest.param(replace(FILE, shape=Shape.RENAME, entries=500), (1, 0, 1), id="a rename takes the same time for any tree"),
        pytest.param(replace(FILE, shape=Shape.RENAME, sha256="0"), (1, MIB, 1), id="a digest is compared"),
        pytest.param(replace(FILE, method="link"), (1, 0, 1), id="second name"),
        pytest.param(replace(FILE, shape=Shape.RETIRE), (1, 0, 1), id="put away"),
    ],
)
def test_load(step: Step, expected: tuple[int, int, int]) -> None:
    """The load of a step is what has to be read of it."""
    assert load_of((step,)) == expected
    assert load_of((step,), reads=False) == (1, 0, 1)


def test_total_is_known_before_the_start() -> None:
    """The first reading has nothing done of all that there is to do."""
    _, (first,) = _meter(Clock())
    assert (first.items, first.of_items, first.size, first.of_size) == (0, 4, 0, 4 * MIB)
    assert (first.percent, first.rate, first.left, first.moves) == (0, 0.0, None, 0)


def test_rate_and_time_left() -> None:
    """After half of it in two seconds the rate is that, and as much time is left."""
    clock = Clock()
    meter, told = _meter(clock)
    for number in range(2):
        clock.now += 1
        meter.moved(MIB)
        meter.ended(replace(FILE, number=number))
    clock.now += 0.2
    meter.now("syncing")
    last = told[-1]
    assert (last.items, last.size, last.percent, last.doing) == (2, 2 * MIB, 50, "syncing")
    assert last.rate == pytest.approx(2 * MIB / 2.2)
    assert last.left == pytest.approx(2.2)


def test_rate_is_that_of_late() -> None:
    """A minute in which nothing moved no longer counts once it is a while ago."""
    clock = Clock()
    meter, told = _meter(clock, steps=100)
    clock.now += 60
    for number in range(40):
        clock.now += 1
        meter.moved(MIB)
        meter.ended(replace(FILE, number=number))
    assert told[-1].rate == pytest.approx(MIB)
    assert told[-1].left == pytest.approx(60, rel=0.001)


def test_nothing_is_counted_twice() -> None:
    """Bytes of a step count once, as they move or when it has ended; a wave that is through counts as it was planned."""
    meter, _ = _meter(Clock())
    meter.moved(MIB // 2)
    assert meter.reading(0).size == MIB // 2
    meter.ended(FILE)
    meter.ended(FILE)
    assert meter.reading(0).size == MIB
    wave = load_of((FILE, replace(FILE, number=2)))
    meter.wave_over(wave, wave)
    assert (meter.reading(0).items, meter.reading(0).size) == (2, 2 * MIB)
    for number in range(9):
        meter.ended(replace(FILE, number=number))
    assert (meter.reading(0).items, meter.reading(0).size, meter.reading(0).percent) == (4, 4 * MIB, 100)


def test_what_is_left_alone_is_not_done() -> None:
    """The bytes of a copy that was broken off do not count, and once the wave is through nothing is expected of it any more."""
    meter, _ = _meter(Clock())
    meter.moved(MIB // 2)
    meter.broke_off()
    meter.ended(replace(FILE, number=2))
    assert (meter.reading(0).items, meter.reading(0).of_items, meter.reading(0).size) == (1, 4, MIB)
    meter.wave_over(load_of((FILE, replace(FILE, number=2))), load_of((FILE,)))
    assert (meter.reading(0).items, meter.reading(0).of_items) == (1, 3)
    assert (meter.reading(0).size, meter.reading(0).of_size) == (MIB, 3 * MIB)


def test_every_move_is_counted() -> None:
    """Readings tell progress from standing still."""
    meter, _ = _meter(Clock())
    before = meter.reading(0).moves
    assert meter.reading(0).moves == before
    meter.moved(1)
    assert meter.reading(0).moves == before + 1


def test_what_was_expected_is_corrected() -> None:
    """A part of the total is replaced by what it turned out to be."""
    meter, _ = _meter(Clock())
    meter.correct(Load(2, 2 * MIB, 2), Load(1, 0, 1))
    assert (meter.reading(0).of_items, meter.reading(0).of_size) == (3, 2 * MIB)


def test_watchers_are_not_drowned() -> None:
    """Of a thousand moves in a second, watchers are told ten times."""
    clock = Clock()
    meter, told = _meter(clock)
    for _ in range(1024):
        clock.now += 1 / 1024
        meter.moved(1)
    assert len(told) in (10, 11)


def test_nothing_to_do_is_all_of_it() -> None:
    """Where there is nothing to do all is done."""
    meter = Meter()
    meter.expect("pre-vault", Load())
    assert meter.reading(0).percent == 100


def test_work_counts_entries() -> None:
    """Many small files are more work than one file of that size."""
    assert Load(1, MIB, 1000).work == MIB + 1000 * ITEM
