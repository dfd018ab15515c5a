"""Whether there is time left for what is to be done before the deadline. Pure: knows a clock, and what was done how fast.

A wave has two halves: *staging*, which can be broken off between items and even in the middle of a copy, and *finishing*
(syncs, flips, putting the sources away), which cannot. So staging stops early enough for what is staged to be finished. Rates
are those of this run; until enough was done to know them, nothing is refused in advance, and finishing is taken to be slow.

Calling sequence: `admits` before a wave; `begin_wave`, `begin_group`, `moved`, `end_group`, `end_staging`, `end_wave`.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Callable

    from upgradeconverter.engine.progress import Load

# Finishing takes at least so long (seconds, but no more than this part of what was granted), and goes at so many bytes a second
# before anything is known: a slow flash memory.
GRACE, _SHARE = 1.0, 0.25
SLOWEST = 16 << 20
# So many bytes must have gone by before a rate means something: syncs of a few small files say nothing about large ones.
_ENOUGH = 256 << 20
# A forecast by the rate of a run may be off by so much.
_MARGIN = 1.25
# One file is given up early when after so many seconds it looks as if it took this many times the time that is left.
_PATIENCE = 10.0
_HOPELESS = 2.0


class _Speed(Struct):
    """What was done so far of one half, in how many seconds."""

    size: int = 0
    work: int = 0
    seconds: float = 0.0

    def add(self, size: int, work: int, seconds: float) -> None:
        self.size, self.work, self.seconds = self.size + size, self.work + work, self.seconds + seconds

    def time_for(self, work: int) -> float | None:
        """Return the seconds that so much work takes, None while nobody knows."""
        return work * self.seconds / self.work * _MARGIN if self.size >= _ENOUGH else None


class Budget(Struct, kw_only=True):
    """The time that is left.

    Attributes:
        seconds: what was granted, for people; infinite without a deadline.
        ends: when it is over, by `clock`.
    """

    seconds: float = math.inf
    ends: float = math.inf
    clock: Callable[[], float] = time.monotonic
    _staging: _Speed = field(default_factory=_Speed)
    _finishing: _Speed = field(default_factory=_Speed)
    _staged: int = 0
    _staged_size: int = 0
    _since: float = 0.0
    _file: int = 0
    _file_since: float = 0.0
    _file_done: int = 0

    @property
    def is_over(self) -> bool:
        """Whether no wave may begin any more."""
        return self._left() <= self._grace()

    def admits(self, work: int) -> bool:
        """Return whether so much can be staged and finished in the time that is left, as far as anybody knows."""
        if math.isinf(self.ends):
            return True
        staging = self._staging.time_for(work)
        return self._left() >= (self._grace() if staging is None else staging + self._to_finish(work))

    def begin_wave(self) -> None:
        """Begin to measure."""
        self._since, self._staged, self._staged_size = self.clock(), 0, 0

    def begin_group(self, load: Load) -> bool:
        """Return whether what flips together can still be staged; a single file is then watched while it is copied."""
        self._file = load.size if load.entries == 1 else 0
        self._file_since, self._file_done = self.clock(), 0
        return not self._must_finish()

    def moved(self, size: int) -> bool:
        """Take note of so many more bytes; returns whether the group has to be broken off."""
        if math.isinf(self.ends):
            return False
        self._file_done += size
        return self._must_finish() or self._is_hopeless()

    def end_group(self, load: Load) -> None:
        """Take note that a group is staged."""
        self._staged += load.work
        self._staged_size += load.size

    def end_staging(self) -> None:
        """Take note that all of the wave is staged that will be."""
        now = self.clock()
        self._staging.add(self._staged_size, self._staged, now - self._since)
        self._since = now

    def end_wave(self) -> None:
        """Take note that the wave is through."""
        now = self.clock()
        self._finishing.add(self._staged_size, self._staged, now - self._since)
        self._since, self._staged, self._staged_size = now, 0, 0

    def _grace(self) -> float:
        return min(GRACE, self.seconds * _SHARE)

    def _left(self) -> float:
        return self.ends - self.clock()

    def _to_finish(self, work: int) -> float:
        measured = self._finishing.time_for(work)
        return self._grace() + (work / SLOWEST if measured is None else measured)

    def _must_finish(self) -> bool:
        return self._left() < self._to_finish(self._staged)

    def _is_hopeless(self) -> bool:
        """Return whether a file would not be done by far: then what is left of the time is better spent on others."""
        passed = self.clock() - self._file_since
        if not self._file_done or passed < _PATIENCE:
            return False
        return (self._file - self._file_done) * passed / self._file_done > self._left() * _HOPELESS
