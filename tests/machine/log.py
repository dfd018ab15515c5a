"""Reads what qemu's `blklogwrites` wrote down of a disk: each write, each discard and each flush, in their order.

The format is that of the kernel's dm-log-writes, version 1: a head of one sector, then entries, each with a head of one sector
and the sectors that were written. The number of entries in the head of the file lags behind, so the file is read until it has no
more: what follows an entry that is not there yet was under way when the power went, and is left out.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

from tests.powercut.recorder import Flush, Write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.powercut.recorder import Event

MAGIC = 0x6A736677736872
VERSION = 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
HEAD = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")
_UNIT = 512  # sectors of entries are counted so, whatever the size of the log's own sectors
_LARGEST = 1 << 20


class NotALogError(ValueError):
    """The file is no such log, or says what such a disk cannot have done."""


def events_of(path: str) -> Iterator[Event]:
    """Yield what a disk did, as the events of a record of one disk; a log that qemu had not begun is empty."""
    if os.path.getsize(path) == 0:
        return
    with open(path, "rb") as stream:
        sector = _sector(stream)
        while (entry := _entry(stream, sector)) is not None:
            yield from entry


def written_in(events: Sequence[Event]) -> int:
    """Return how long a log of the usual sectors is after these events."""
    return _UNIT + sum(_UNIT + (len(event.data) if isinstance(event, Write) else 0) for event in events)


def _sector(stream: BinaryIO) -> int:
    """Return the size of the log's sectors, and stand behind the first one."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        raise NotALogError("no head")
    magic, version, _, sector = HEAD.unpack(head)
    if (magic, version) != (MAGIC, VERSION) or sector < _UNIT:
        raise NotALogError(f"head {magic:x}, version {version}, sectors of {sector}")
    stream.seek(sector)
    return int(sector)


def _entry(stream: BinaryIO, sector: int) -> list[Event] | None:
    """Return the events of the next entry, None when there is none that is whole."""
    head = stream.read(sector)
    if len(head) < sector:
        return None
    start, count, flags, _ = ENTRY.unpack_from(head)
    if flags & ~(FLUSH | DISCARD):
        # A forced write is durable alone; the disk of the machine offers none, so the kernel sends a flush in its place.
        raise NotALogError(f"an entry with flags {flags}")
    found: list[Event] = []
    offset, length = start * sector, count * sector
    if flags & DISCARD:
        found += [Write(0, at, bytes(min(_LARGEST, offset + length - at))) for at in range(offset, offset + length, _LARGEST)]
    elif count:
        data = stream.read(length)
        if len(data) < length:
            return None
        found.append(Write(0, offset, data))
    if flags & FLUSH:
        found.append(Flush(0))
    return found or None
