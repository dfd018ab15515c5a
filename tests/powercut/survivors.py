"""Which disks may be left when the power goes: all that a flush covered, and any part of what was under way.

*Under way* is every write since the last flush of its disk. Of those a disk may have kept the first few, any selection, and of
one of them only some sectors. A *survivor* names such a choice by numbers, so that it can be made again; survivors whose disks
hold the same content are one. Sectors are torn only where a file system does not take a block for a whole: see `whole`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.powercut.blockdev import copy_sparse
from tests.powercut.recorder import Flush, Mark, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from random import Random

    from tests.powercut.recorder import Event

_BLOCK = 4096
_SECTOR = 512
_SUM = 1 << 128
_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
_TRIES = 3
_LEAST = 5  # selections between two flushes

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Survivor:
    """What was left: `cut` events had happened, of those under way the `chosen` were kept, of `torn` only these sectors.

    `form` is a word for the report: `flush` right after one, `prefix` for all writes up to one, else `subset` or `torn`.
    """

    cut: int
    form: str
    chosen: tuple[int, ...] = ()
    torn: int = -1
    sectors: tuple[int, ...] = ()


@dataclass(slots=True)
class Blocks:
    """The content of disks as far as it differs from what lies below, with a digest that does not depend on the way there."""

    below: Callable[[Key], bytes]
    origin: Callable[[Key], bytes]
    digest: int = 0
    content: dict[Key, bytes] = field(default_factory=dict)

    def read(self, key: Key) -> bytes:
        """Return one block."""
        found = self.content.get(key)
        return self.below(key) if found is None else found

    def put(self, disk: int, offset: int, data: bytes) -> None:
        """Write."""
        end = offset + len(data)
        for number in range(offset // _BLOCK, -(-end // _BLOCK)):
            start, key = number * _BLOCK, (disk, number)
            old = self.read(key)
            first, last = max(offset, start), min(end, start + _BLOCK)
            new = old[: first - start] + data[first - offset : last - offset] + old[last - start :]
            if new != old:
                self.digest = (self.digest - self._sum(key, old) + self._sum(key, new)) % _SUM
                self.content[key] = new

    def _sum(self, key: Key, content: bytes) -> int:
        if content == self.origin(key):
            return 0
        return int.from_bytes(hashlib.blake2b(content, digest_size=16, key=b"%d %d" % key).digest(), "big")


class Replay:
    """Walks along a record and makes the disks of survivors, in one direction."""

    def __init__(self, bases: Sequence[str], events: Sequence[Event], folder: str) -> None:
        """Begin with the images that the record began with; `folder` is for working copies."""
        self.events = events
        self.at = 0
        self.under_way: list[int] = []
        self.marks: list[str] = []
        self._base_fds = [os.open(path, os.O_RDONLY) for path in bases]
        self._now = [f"{folder}/now-{number}" for number in range(len(bases))]
        for base, path in zip(bases, self._now, strict=True):
            copy_sparse(base, path)
        self._now_fds = [os.open(path, os.O_RDWR) for path in self._now]
        self._durable = Blocks(below=self._origin, origin=self._origin)

    def close(self) -> None:
        """Let the images go."""
        for fd in (*self._base_fds, *self._now_fds):
            os.close(fd)
        for path in self._now:
            os.unlink(path)

    def _origin(self, key: Key) -> bytes:
        return os.pread(self._base_fds[key[0]], _BLOCK, key[1] * _BLOCK).ljust(_BLOCK, b"\0")

    def go_to(self, cut: int) -> None:
        """Let events happen until `cut` of them have."""
        while self.at < cut:
            event = self.events[self.at]
            if isinstance(event, Write):
                self.under_way.append(self.at)
            elif isinstance(event, Mark):
                self.marks.append(event.text)
            else:
                self._keep(event.disk)
            self.at += 1

    def _keep(self, disk: int) -> None:
        left = []
        for number in self.under_way:
            write = self._write(number)
            if write.disk == disk:
                self._durable.put(disk, write.offset, write.data)
                os.pwrite(self._now_fds[disk], write.data, write.offset)
            else:
                left.append(number)
        self.under_way = left

    def _write(self, number: int) -> Write:
        event = self.events[number]
        if not isinstance(event, Write):
            message = f"event {number} is no write"
            raise TypeError(message)
        return event

    def _parts(self, survivor: Survivor) -> Iterator[tuple[int, int, bytes]]:
        for number in survivor.chosen:
            write = self._write(number)
            if number != survivor.torn:
                yield write.disk, write.offset, write.data
                continue
            for sector in survivor.sectors:
                start = sector * _SECTOR
                yield write.disk, write.offset + start, write.data[start : start + _SECTOR]

    def digest(self, survivor: Survivor) -> int:
        """Return a number that tells the disks of a survivor from others of the same record."""
        blocks = Blocks(below=self._durable.read, origin=self._origin, digest=self._durable.digest)
        for part in self._parts(survivor):
            blocks.put(*part)
        return blocks.digest

    def make(self, survivor: Survivor, images: Sequence[str]) -> None:
        """Write the disks of a survivor; the replay must stand at its cut."""
        for now, image in zip(self._now, images, strict=True):
            copy_sparse(now, image)
        fds = [os.open(image, os.O_RDWR) for image in images]
        try:
            for disk, offset, data in self._parts(survivor):
                os.pwrite(fds[disk], data, offset)
        finally:
            for fd in fds:
                os.close(fd)


def survivors(
    replay: Replay,
    random: Random,
    *,
    quota: int,
    whole: Collection[Key] = (),
    seen: set[int] | None = None,
) -> Iterator[Survivor]:
    """Yield about `quota` different survivors of a record, while the replay stands at the cut of each.

    Half of them are cuts right after a write or a flush, after each if the quota is large enough; the others are selections
    by chance, as many for each time between two flushes. `whole` names blocks (disk, number) of which no sector is ever torn off:
    super blocks.
    """
    seen = set() if seen is None else seen
    events = replay.events
    points = [number for number, event in enumerate(events, start=1) if isinstance(event, Write | Flush)]
    cuts = set(points if 2 * len(points) <= quota else random.sample(points, quota // 2))
    # A flush right after another one finds nothing under way.
    ends = [n for n, event in enumerate(events) if n and isinstance(event, Flush) and isinstance(events[n - 1], Write | Mark)]
    ends.append(len(events))
    rest = quota - len(cuts)
    ends = ends if _LEAST * len(ends) <= rest else random.sample(ends, max(1, rest // _LEAST))
    share = -(-rest // len(ends))
    for cut in range(len(replay.events) + 1):
        replay.go_to(cut)
        found: list[Survivor] = []
        if cut in cuts:
            found.append(Survivor(cut, "flush" if isinstance(events[cut - 1], Flush) else "prefix", tuple(replay.under_way)))
        if cut in ends:
            found += _selections(replay, random, share, whole)
        for survivor in found:
            digest = replay.digest(survivor)
            if digest not in seen:
                seen.add(digest)
                yield survivor


def _selections(replay: Replay, random: Random, share: int, whole: Collection[Key]) -> list[Survivor]:
    """Return selections of what is under way: single ones kept and lost, then by chance, half of them with a torn write."""
    pending = tuple(replay.under_way)
    if not pending:
        return []
    found: dict[Survivor, None] = {Survivor(replay.at, "subset"): None}
    for one in random.sample(pending, min(len(pending), share // 6 + 1)):
        found[Survivor(replay.at, "subset", (one,))] = None
        found[Survivor(replay.at, "subset", tuple(number for number in pending if number != one))] = None
    for turn in range(share * _TRIES):
        if len(found) >= share:
            break
        part = random.choice(_SHARES)
        chosen = tuple(number for number in pending if random.random() < part)
        survivor = Survivor(replay.at, "subset", chosen)
        if turn % 2:
            survivor = _tear(replay, random, survivor, whole)
        found[survivor] = None
    return list(found)[:share]


def _tear(replay: Replay, random: Random, survivor: Survivor, whole: Collection[Key]) -> Survivor:
    """Return a survivor of which one write lost sectors: the last ones, the first ones, or any."""
    tearable = [number for number in survivor.chosen if _is_tearable(replay.events[number], whole)]
    if not tearable:
        return survivor
    torn = random.choice(tearable)
    event = replay.events[torn]
    count = len(event.data) // _SECTOR if isinstance(event, Write) else 0
    middle = random.randrange(1, count)
    some = tuple(number for number in range(count) if random.random() < random.choice(_SHARES))
    sectors = random.choice((tuple(range(middle)), tuple(range(middle, count)), some))
    return Survivor(survivor.cut, "torn", survivor.chosen, torn, sectors)


def _is_tearable(event: Event, whole: Collection[Key]) -> bool:
    if not isinstance(event, Write) or len(event.data) <= _SECTOR:
        return False
    blocks = range(event.offset // _BLOCK, (event.offset + len(event.data) - 1) // _BLOCK + 1)
    return not any((event.disk, number) in whole for number in blocks)
