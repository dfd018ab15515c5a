"""How far a run has come, in items and bytes of the plan, how fast it goes and how long it may still take. Pure.

An item counts once its part of the wave is made; it lasts once the wave is through. What was left alone counts until then as
something to be done, and no more after that.

Must not know who is told: whoever wants to show a `Reading` is a watcher, and decides how often.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from upgradeconverter.engine.report import is_shown
from upgradeconverter.model.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from upgradeconverter.model.plan import Step

# What an item costs beside its bytes, as bytes that take as long: opening, making, naming (about 0.15 ms against 70 to 100 MB/s).
ITEM = 16 << 10
# Watchers are told no more often than this (seconds); the rate is that of the last so many seconds.
_BEAT = 0.1
_WINDOW = 15.0
_SAMPLE = 1.0
# Before that (seconds) it would be a guess what is left.
_SOON = 2.0


class Load(NamedTuple):
    """How much there is to do: items as the report has them, bytes that have to be read, and entries in them."""

    items: int = 0
    size: int = 0
    entries: int = 0

    @property
    def work(self) -> int:
        """All of it as one number, in bytes: what the time that it takes is proportional to, more or less."""
        return self.size + self.entries * ITEM


_NOTHING = Load()


def load_of(steps: Iterable[Step], *, reads: bool = True) -> Load:
    """Return how much there is to do for some steps; nothing is read where they are only put back or brought to their end."""
    items, size, entries = 0, 0, 0
    for step in steps:
        is_read = reads and _is_read(step)
        items += is_shown(step)
        # Holes are not read, and an inode of a small file may have more room than content.
        size += min(step.size, step.allocated) if is_read else 0
        entries += step.entries if is_read else 1
    return Load(items, size, entries)


def _is_read(step: Step) -> bool:
    if step.shape is Shape.STREAM:
        return True
    if step.shape is Shape.COPY:
        return step.method != "link" or step.sha256 is not None
    return (step.shape is Shape.RENAME and step.sha256 is not None) or (step.shape is Shape.CREATE and step.made_of == "copy")


class Reading(Struct, frozen=True, kw_only=True):
    """How far it has come at one moment.

    Attributes:
        what: the phase, or the command; doing: what happens right now.
        items, size: done so far; of_items, of_size: in all (`size` in bytes).
        rate: bytes a second of late; left: seconds that the rest may take, None while nobody can say.
        moves: how often something has moved so far: only a reading with more of them than another one is progress.
    """

    what: str
    doing: str
    items: int
    of_items: int
    size: int
    of_size: int
    rate: float
    left: float | None
    moves: int

    @property
    def percent(self) -> int:
        """How much of all that is done, from 0 to 100."""
        whole = self.of_size + self.of_items * ITEM
        return 100 * (self.size + self.items * ITEM) // whole if whole else 100


class Meter(Struct, kw_only=True):
    """Counts what goes by and tells the watchers.

    Calling sequence: `expect` once what is to be done is known; for each wave `moved` and `ended` as it goes, then `wave_over`.
    """

    clock: Callable[[], float] = time.monotonic
    watchers: tuple[Callable[[Reading], None], ...] = ()
    _what: str = ""
    _doing: str = ""
    _all: Load = _NOTHING
    _through: Load = _NOTHING
    _ended: dict[int, int] = field(default_factory=dict)
    _items: int = 0
    _size: int = 0
    _now: int = 0
    _moves: int = 0
    _next: float = -math.inf
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def expect(self, what: str, load: Load) -> None:
        """Begin anew with all that there is to do; what was counted before is over."""
        self._what, self._doing, self._all, self._through = what, "", load, _NOTHING
        self._forget_wave()
        self._samples.clear()
        self._next = -math.inf
        self._tell()

    def correct(self, planned: Load, real: Load) -> None:
        """Replace a part of what was expected by what it turned out to be."""
        self._all = Load(self._all.items - planned.items + real.items, self._all.size - planned.size + real.size)

    def moved(self, size: int) -> None:
        """Take note of so many more bytes of the step at work."""
        self._now += size
        self._move()

    def ended(self, step: Step, *, reads: bool = True) -> None:
        """Take note that a step is done; said again it only shows that something moves."""
        if step.number not in self._ended:
            load = load_of((step,), reads=reads)
            self._ended[step.number] = load.size
            self._items += load.items
            self._size += load.size
            self._now = 0
        self._move()

    def now(self, doing: str) -> None:
        """Say what happens from now on."""
        self._doing = doing
        self._next = -math.inf
        self._move()

    def broke_off(self) -> None:
        """Take note that the step at work is left alone."""
        self._now = 0

    def wave_over(self, planned: Load, load: Load) -> None:
        """Take note that a wave is through, and how much of what was planned it has done."""
        self.correct(planned, load)
        self._through = Load(self._through.items + load.items, self._through.size + load.size)
        self._forget_wave()
        self._move()

    def _forget_wave(self) -> None:
        self._ended.clear()
        self._items = self._size = self._now = 0

    def _move(self) -> None:
        self._moves += 1
        if self.watchers and self.clock() >= self._next:
            self._tell()

    def _tell(self) -> None:
        if not self.watchers:
            return
        now = self.clock()
        self._next = now + _BEAT
        reading = self.reading(now)
        for watcher in self.watchers:
            watcher(reading)

    def reading(self, now: float) -> Reading:
        """Return how far it has come by that time of the clock."""
        items = min(self._through.items + self._items, self._all.items)
        size = min(self._through.size + self._size + self._now, self._all.size)
        seconds, moved, done = self._of_late(now, size, size + items * ITEM)
        rest = self._all.size + self._all.items * ITEM - size - items * ITEM
        return Reading(
            what=self._what,
            doing=self._doing,
            items=items,
            of_items=self._all.items,
            size=size,
            of_size=self._all.size,
            rate=moved / seconds if seconds else 0.0,
            left=rest * seconds / done if done and seconds >= _SOON else None,
            moves=self._moves,
        )

    def _of_late(self, now: float, size: int, work: int) -> tuple[float, int, int]:
        """Return the seconds over which the rate is taken, and what was moved and done in them."""
        samples = self._samples
        if not samples or now - samples[-1][0] >= _SAMPLE:
            samples.append((now, size, work))
        while len(samples) > 1 and now - samples[0][0] > _WINDOW:
            samples.popleft()
        first, first_size, first_work = samples[0]
        return now - first, max(size - first_size, 0), max(work - first_work, 0)
