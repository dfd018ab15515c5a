"""Has what was written to files written back early, by several processes, while others are still being written.

A file system with encryption encrypts in whoever writes back, and one alone writes back what a sync finds: more of them, from the
start, keep all processors and the disk busy.

Guarantees: these are hints; what they do is durable only once the file system is synced, as without them. What is lost on the
way is told by `finish`.

Must not know: which files, what a sync is good for.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from upgradeconverter.disk import native
from upgradeconverter.disk.workers import Crew, processors

if TYPE_CHECKING:
    from collections.abc import Sequence

# Less than this (bytes) a sync writes back in no time, by itself.
WORTH_HINTING = 8 << 20
# Smaller files are not worth a message each.
_WORTH_TELLING = 1 << 15
# A range of this size is part of something large, which is not kept in memory once it is on the disk.
_LARGE = 8 << 20
# More would only wait for one another.
_FLUSHERS = 2


class Flusher:
    """Writes back in other processes; to be closed whatever happens."""

    def __init__(self) -> None:
        """Begin without any process."""
        self._crew: Crew | None = None
        self._seen = 0
        self._failed: OSError | None = None

    def expect(self, size: int) -> None:
        """Prepare for so many bytes, as long as there is only one thread."""
        if self._seen + size >= WORTH_HINTING and self._crew is None and processors() > 1:
            self._crew = Crew(_write_back, count=_FLUSHERS, worth=0, at_once=1)
            self._crew.fork()

    def written(self, fd: int, start: int, size: int) -> None:
        """Take note of what was written to an open file, which may be closed after this."""
        self._seen += size if size >= _WORTH_TELLING else 0
        self.expect(0)
        if size < _WORTH_TELLING or self._crew is None or self._failed is not None:
            return
        try:
            self._crew.give((fd,), ((start, size),), self._take)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # The hint could not be given; the sync does it all the same.
                return
            # Of another file than the one that is being written: all of them are synced together, and fail together.
            self._failed = error

    def _take(self, _: tuple[int, ...], failed: int) -> None:
        if failed and self._failed is None:
            self._failed = OSError(failed, os.strerror(failed))

    def finish(self) -> None:
        """Wait until all hints were taken; OSError when something of what was written is lost."""
        try:
            if self._crew is not None and self._failed is None:
                self._crew.finish()
            if self._failed is not None:
                raise self._failed
        finally:
            self.close()

    def close(self) -> None:
        """End all processes, and forget what was lost."""
        if self._crew is not None:
            self._crew.close()
        self._crew, self._seen, self._failed = None, 0, None


class Inline(Flusher):
    """Writes back at once, in this process: for one of several that write files."""

    def expect(self, size: int) -> None:
        """Nothing has to be prepared."""

    def written(self, fd: int, start: int, size: int) -> None:
        """See `Flusher.written`; OSError here when something is lost."""
        native.write_back(fd, start, size)


def _write_back(fds: tuple[int, ...], ranges: Sequence[tuple[int, int]]) -> int:
    """Write ranges of an open file back; returns an errno, or 0."""
    for start, size in ranges:
        try:
            native.write_back(fds[0], start, size)
        except OSError as error:
            return error.errno or -1
        if size >= _LARGE and start >= size:
            # What lies before is on the disk by now, or stays.
            with suppress(OSError):
                os.posix_fadvise(fds[0], 0, start, os.POSIX_FADV_DONTNEED)
    return 0
