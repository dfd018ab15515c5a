"""What is told of times that were measured: medians, quartiles, ratios. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle of some numbers, and between what the middle half of them lies."""

    median: float
    low: float
    high: float


def spread(numbers: Sequence[float]) -> Spread:
    """Return median and quartiles of at least one number."""
    if len(numbers) == 1:
        return Spread(median=numbers[0], low=numbers[0], high=numbers[0])
    low, _, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(median=statistics.median(numbers), low=low, high=high)


def ratio(mine: Mapping[int, float], theirs: Mapping[int, float]) -> float | None:
    """Return the median of mine over theirs, round by round; None where no round has both.

    Rounds and not medians are compared, since a machine that others use is slow for a while and then fast again.
    """
    both = [mine[each] / theirs[each] for each in mine.keys() & theirs.keys() if theirs[each] > 0]
    return statistics.median(both) if both else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One way in one round.

    `largest` is the resident size of the largest process, `together` that of all of them with shared pages counted once, None
    where it was over before anybody looked; both in bytes. `allocated` is what the result occupies. `problem` says why it does
    not count.
    """

    seconds: float
    cpu: float = 0.0
    largest: int = 0
    together: int | None = None
    allocated: int = 0
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class Found:
    """What was found of one way: a sample for each round, the ratio that counts in its case, and system calls per file.

    `phases` are the seconds that each part of the work took, in a run of its own.
    """

    name: str
    samples: dict[int, Sample]
    ratio: float | None = None
    calls_per_file: float | None = None
    calls: dict[str, int] | None = None
    phases: dict[str, float] | None = None
    about: str = ""

    def seconds(self) -> dict[int, float]:
        """Return the times of the rounds that count."""
        return {number: each.seconds for number, each in self.samples.items() if not each.problem}

    def problem(self) -> str:
        """Return why a round does not count, "" where all do."""
        return next((each.problem for each in self.samples.values() if each.problem), "")

    def most(self, what: str) -> int | None:
        """Return the largest of a number of the rounds that count."""
        numbers = [getattr(each, what) for each in self.samples.values() if not each.problem]
        return max((each for each in numbers if each is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found of one case on one ground; `ratio` says in words what the ratios of `found` are, `size` is bytes."""

    case: str
    about: str
    ground: str
    ratio: str
    cache: str
    scale: float
    files: int
    size: int
    found: list[Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of every case: how large, how often, and whether calls are counted and the parts of our work timed."""

    scale: float = 1.0
    rounds: int | None = None
    count: bool = True
