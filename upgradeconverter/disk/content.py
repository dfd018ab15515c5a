"""Copies what is in one open file into another one that is empty: data and holes, with checksum and digest on the way.

Every byte is read once, since each copy is known by a checksum; `copy_file_range` would spare only the write, and was measured to
be no faster than writing from a buffer. Where a file system can share content (xfs, btrfs) nothing is written at all.

Guarantees: holes stay holes; nothing is durable until the caller syncs; of what is large the page cache keeps little.

Must not know: paths, attributes, orders.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from msgspec import Struct

from upgradeconverter.disk import native
from upgradeconverter.disk.manifest import CHUNK, add_chunk, data_chunks

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from upgradeconverter.disk.flushing import Flusher
    from upgradeconverter.disk.port import Progress

# Chunks that are read ahead, and written back, together.
_TOGETHER = 8
# So many chunks lie between reading and digesting.
_BUFFERS = 4
_ZEROS = bytes(CHUNK)


class Content(Struct, kw_only=True):
    """How content is copied.

    Attributes:
        hashes: whether the SHA-256 is wanted.
        shares: whether the target may share content with the source; found out by trying.
    """

    flusher: Flusher
    progress: Progress | None = None
    hashes: bool = False
    shares: bool = True

    def copy(self, from_fd: int, to_fd: int, size: int, check: Callable[[], None]) -> tuple[str | None, int]:
        """Copy all of it; returns SHA-256, when wanted, and checksum.

        `check` raises when somebody wants to write to the source; asked often, it does not keep them waiting.
        """
        self.shares = self.shares and native.share_content(from_fd, to_fd)
        if size <= CHUNK and not self.shares and has_no_hole(from_fd, size):
            return self._copy_small(from_fd, to_fd, size)
        return self._copy_chunks(from_fd, to_fd, size, check)

    def _copy_small(self, from_fd: int, to_fd: int, size: int) -> tuple[str | None, int]:
        content = os.pread(from_fd, size, 0) if size else b""
        if content:
            write(to_fd, memoryview(content), 0)
            self.flusher.written(to_fd, 0, size)
            self._tell(size)
        return hashlib.sha256(content).hexdigest() if self.hashes else None, add_chunk(0, 0, content)

    def _copy_chunks(self, from_fd: int, to_fd: int, size: int, check: Callable[[], None]) -> tuple[str | None, int]:
        if not self.shares:
            os.ftruncate(to_fd, size)
        chunks = data_chunks(from_fd, size)
        self.flusher.expect(len(chunks) * CHUNK)
        crc, begun = 0, 0
        with _Digest(size, len(chunks), wanted=self.hashes) as digest:
            for number, index in enumerate(chunks):
                if number == 0 or index // _TOGETHER != chunks[number - 1] // _TOGETHER:
                    self._write_back(to_fd, chunks[begun:number])
                    begun = number
                    _read_ahead(from_fd, index // _TOGETHER, size)
                chunk = digest.read(from_fd, index * CHUNK)
                if not self.shares:
                    _write_data(from_fd, to_fd, chunk, index * CHUNK)
                crc = add_chunk(crc, index, chunk)
                digest.add(index * CHUNK, chunk)
                check()
                self._tell(len(chunk))
            self._write_back(to_fd, chunks[begun:])
            return digest.result(), crc

    def _write_back(self, fd: int, chunks: list[int]) -> None:
        if chunks and not self.shares:
            self.flusher.written(fd, chunks[0] * CHUNK, (chunks[-1] + 1 - chunks[0]) * CHUNK)

    def _tell(self, size: int) -> None:
        if self.progress is not None:
            self.progress(size)


class _Digest:
    """Reads chunks, and computes a SHA-256 over them beside what else is done: it takes longer than all of that."""

    def __init__(self, size: int, chunks: int, *, wanted: bool) -> None:
        self._size, self._done = size, 0
        self._hash = hashlib.sha256() if wanted else None
        # One chunk needs nobody else, and so does what is not digested.
        self._thread = threading.Thread(target=self._take_all, daemon=True) if wanted and chunks > 1 else None
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._full: SimpleQueue[tuple[int, memoryview] | None] = SimpleQueue()
        for _ in range(_BUFFERS if self._thread is not None else 1):
            self._free.put(memoryview(bytearray(min(CHUNK, max(size, 1)))))

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._full.put(None)
            self._thread.join()

    def read(self, fd: int, start: int) -> memoryview:
        """Return what a file has there."""
        buffer = self._free.get()
        return buffer[: os.preadv(fd, [buffer], start)]

    def add(self, start: int, chunk: memoryview) -> None:
        """Take a chunk that was read; it must not be used any more."""
        if self._thread is not None:
            self._full.put((start, chunk))
        else:
            self._take(start, chunk)

    def result(self) -> str | None:
        """Return the digest of all, holes included."""
        self.__exit__()
        if self._hash is None:
            return None
        self._take_zeros(self._size)
        return self._hash.hexdigest()

    def _take_all(self) -> None:
        while (item := self._full.get()) is not None:
            self._take(*item)

    def _take(self, start: int, chunk: memoryview) -> None:
        if self._hash is not None:
            self._take_zeros(start)
            self._hash.update(chunk)
            self._done += len(chunk)
        whole = chunk.obj
        self._free.put(memoryview(whole))

    def _take_zeros(self, end: int) -> None:
        while self._hash is not None and self._done < end:
            count = min(CHUNK, end - self._done)
            self._hash.update(_ZEROS[:count])
            self._done += count


def has_no_hole(fd: int, size: int) -> bool:
    """Return whether an open file is data from its beginning to its end (lseek(2), SEEK_HOLE)."""
    return size == 0 or os.lseek(fd, 0, os.SEEK_HOLE) >= size


def _read_ahead(fd: int, group: int, size: int) -> None:
    """Have the next chunks read, and let those go that were: nobody else is going to read a file that is on its way out."""
    if size <= CHUNK:
        return
    length = _TOGETHER * CHUNK
    start = group * length
    with suppress(OSError):
        os.posix_fadvise(fd, start, min(2 * length, size - start), os.POSIX_FADV_WILLNEED)
        if group > 0:
            os.posix_fadvise(fd, 0, start, os.POSIX_FADV_DONTNEED)


def _write_data(from_fd: int, to_fd: int, chunk: memoryview, start: int) -> None:
    """Write the parts of a chunk that are data in the source."""
    end = start + len(chunk)
    position = start
    while position < end:
        try:
            first = os.lseek(from_fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if first >= end:
            return
        last = min(os.lseek(from_fd, first, os.SEEK_HOLE), end)
        write(to_fd, chunk[first - start : last - start], first)
        position = last


def write(fd: int, content: memoryview, offset: int) -> None:
    """Write all of some content at a place."""
    while content:
        count = os.pwrite(fd, content, offset)
        content, offset = content[count:], offset + count
