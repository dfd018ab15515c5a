"""Takes the content of a file or tree over into another of the same shape, piece by piece, where both do not fit on the disk.

Definitions. The *hollow* one has all names, sizes and attributes, and no content. A *place* says how far one has come: all
content before it is in the one, all from it on in the other, in the order of a walk and within a file from its beginning.

Guarantees: a piece is durable where it goes to, its times included, before `keep` is told of the place behind it; only then it is
let go where it came from. So whatever place was kept last, everything before it is whole in the one and everything after it in
the other, and a stream can go on from there, or back. At most a piece lies in both. Neither loses a name: both are walked alike.

Must not know: plans, journals, what becomes of the one that was emptied.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from upgradeconverter.disk import attributes, native
from upgradeconverter.disk.manifest import CHUNK, data_chunks
from upgradeconverter.disk.port import Place, SourceInUseError
from upgradeconverter.disk.usage import is_used
from upgradeconverter.disk.walking import folder, holder, regular_file, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upgradeconverter.disk.port import Keep, Progress, StreamOrder
    from upgradeconverter.disk.walking import Visit

_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# What a small file takes at the least on the file systems that there are.
_BLOCK = 4096
# Names of whole files that are remembered for one piece, however small they are.
_FILES = 4096


class _Pair(Struct, frozen=True):
    """One file in both trees, open; `place` is its beginning, with what writing to it takes away."""

    path: str
    giving: int
    taking: int
    size: int
    place: Place


class _Stream(Struct):
    """One stream on its way, forth or back.

    Attributes:
        giving, taking: tops of the one that has the content, and of the one that gets it.
        room: bytes that the open piece may still take.
        whole: files, with their size, of which everything that was left lies in the open piece.
    """

    root_fd: int
    order: StreamOrder
    keep: Keep
    progress: Progress | None
    giving: str
    taking: str
    room: int
    whole: list[tuple[str, int]] = field(default_factory=list)

    # --- forth: from the first file to the last, each from its beginning ---------------------------------------------

    def forth(self) -> None:
        """Take over everything from the start on."""
        start, last = self.order.start, None
        for path in self._behind_start():
            with self._open(path) as pair:
                self._give_forth(pair, start.offset if path == start.path else 0)
                last = replace(pair.place, offset=pair.size)
            if len(self.whole) >= _FILES:
                self._end_piece(last)
        if self.whole and last is not None:
            self._end_piece(last)

    def _behind_start(self) -> Iterator[str]:
        """Yield the files from the one that the start lies in on; what lies before that is let go, if it was not yet."""
        start, is_over = self.order.start, self.order.start != Place()
        for path, size, allocated in self._files():
            if is_over and path == start.path:
                self._let_go(path, start.offset, size)
                is_over = False
            if not is_over:
                yield path
            elif allocated:
                self._empty(path, 0, size)

    def _give_forth(self, pair: _Pair, begin: int) -> None:
        def end_at(offset: int) -> None:
            self._end_piece(replace(pair.place, offset=offset), pair)
            self._let_go(pair.path, offset, pair.size)

        self._give_all(pair, _chunks(pair.giving, begin, pair.size), end_at)

    def _let_go(self, path: str, end: int, size: int) -> None:
        """Let go what a file has up to some place; the file stays as long as it was."""
        if end >= size:
            self._empty(path, 0, size)
        elif end:
            with self._writable(self.giving, path) as fd:
                native.punch_hole(fd, 0, end)

    # --- back: from where one stands to the beginning ----------------------------------------------------------------

    def back(self) -> None:
        """Bring back everything before the start."""
        start, first = self.order.start, None
        if start == Place():
            # What there is has not come to the end of its piece, or is back already.
            return
        for path in reversed(self._up_to_start()):
            with self._open(path) as pair:
                end = start.offset if path == start.path else pair.size
                self._give_back(pair, end)
                first = pair.place
            if len(self.whole) >= _FILES:
                self._end_piece(first)
        self._end_piece(Place())

    def _up_to_start(self) -> list[str]:
        """Return the files of which something is over; what is back already is let go, if it was not yet."""
        start, found, is_behind = self.order.start, [], False
        for path, size, allocated in self._files():
            if is_behind:
                if allocated:
                    self._empty(path, 0, size)
                continue
            is_behind = path == start.path
            if is_behind:
                self._empty(path, start.offset, size)
            if start.offset or not is_behind:
                found.append(path)
        return found

    def _give_back(self, pair: _Pair, end: int) -> None:
        def end_at(offset: int) -> None:
            behind = min(offset + CHUNK, pair.size)
            self._end_piece(replace(pair.place, offset=behind), pair)
            self._empty(pair.path, behind, pair.size)

        self._give_all(pair, _chunks(pair.giving, 0, end)[::-1], end_at)

    # --- both ways ---------------------------------------------------------------------------------------------------

    def _give_all(self, pair: _Pair, chunks: list[int], end_at: Callable[[int], None]) -> None:
        """Copy some chunks; `end_at` ends the open piece before one of them."""
        for offset in (index * CHUNK for index in chunks):
            if self._is_full(pair, offset):
                end_at(offset)
            try:
                self._give(pair, offset)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                # Somebody else took some: there is room again once what lies in both was let go.
                end_at(offset)
                self._give(pair, offset)
        self._restore(pair)
        self.whole.append((pair.path, pair.size))

    def _is_full(self, pair: _Pair, offset: int) -> bool:
        """Return whether the open piece cannot take one more chunk."""
        return self.room < -(-min(CHUNK, pair.size - offset) // _BLOCK) * _BLOCK

    def _give(self, pair: _Pair, offset: int) -> None:
        """Copy one chunk; what is a hole in it stays one."""
        end = min(offset + CHUNK, pair.size)
        while offset < end and (data := _next_data(pair.giving, offset, end)) is not None:
            first, last = data
            content = memoryview(os.pread(pair.giving, last - first, first))
            if not content:
                raise OSError(errno.EIO, "it ends before its size", pair.path)
            offset = first + len(content)
            if self.progress is not None:
                self.progress(len(content))
            while content:
                content = content[os.pwrite(pair.taking, content, offset - len(content)) :]
            self.room -= -(-(last - first) // _BLOCK) * _BLOCK

    def _restore(self, pair: _Pair) -> None:
        """Give a file back what writing to it took away: times, and capabilities (capabilities(7))."""
        if pair.place.capability:
            attributes.set_capability(pair.taking, bytes.fromhex(pair.place.capability))
        os.utime(pair.taking, ns=(pair.place.atime_ns, pair.place.mtime_ns))

    def _end_piece(self, place: Place, unfinished: _Pair | None = None) -> None:
        """Make the piece durable, have its end kept, and let go where they came from the files that are whole."""
        if unfinished is not None:
            self._restore(unfinished)
        self._sync(unfinished)
        self.keep(place)
        for path, size in self.whole:
            self._empty(path, 0, size)
        self.whole.clear()
        self.room = self.order.piece

    def _empty(self, path: str, begin: int, size: int) -> None:
        """Let go what a file has from some place on; the file stays as long as it was."""
        with self._writable(self.giving, path) as fd:
            # Frees the last block too, which a hole that ends with the file would not do everywhere.
            os.ftruncate(fd, begin)
            os.ftruncate(fd, size)

    def _sync(self, unfinished: _Pair | None) -> None:
        if unfinished is not None and not self.whole:
            os.fsync(unfinished.taking)
        elif unfinished is None and len(self.whole) == 1:
            with self._writable(self.taking, self.whole[0][0]) as fd:
                os.fsync(fd)
        else:
            with folder(self.root_fd, self.taking) as fd:
                native.sync_filesystem(fd, self.taking)

    def _files(self) -> Iterator[tuple[str, int, int]]:
        """Yield each file once, under the first of its names, with size and allocated bytes; a single one has the name `""`."""
        seen: set[tuple[int, int]] = set()
        with holder(self.root_fd, self.giving) as (above, name):
            facts = os.stat(name, dir_fd=above, follow_symlinks=False)
            if stat.S_ISREG(facts.st_mode):
                yield "", facts.st_size, facts.st_blocks * 512
                return
            with folder(above, name) as top:
                for visit in walk(top):
                    if self.order.apart and visit.path in self.order.apart:
                        visit.prune = True
                    elif _is_first_name(visit, seen):
                        yield visit.path, visit.facts.st_size, visit.facts.st_blocks * 512

    @contextmanager
    def _open(self, path: str) -> Iterator[_Pair]:
        with (
            holder(self.root_fd, _join(self.giving, path)) as (above, name),
            regular_file(above, name) as giving,
            self._writable(self.taking, path) as taking,
        ):
            if is_used(giving, fcntl.F_RDLCK):
                message = f"{_join(self.giving, path)} is open for writing in another process"
                raise SourceInUseError(message)
            facts = os.fstat(giving)
            size = max(facts.st_size, os.fstat(taking).st_size)
            if os.fstat(taking).st_size != size:
                # It was cut off and not made as long again when the power failed.
                os.ftruncate(taking, size)
            yield _Pair(path, giving, taking, size, self._place(path, giving, facts))

    def _place(self, path: str, fd: int, facts: os.stat_result) -> Place:
        """Return the beginning of a file; of the one that the start lies in, times and capabilities are known from there only."""
        if path == self.order.start.path and self.order.start.offset:
            return replace(self.order.start, offset=0)
        capability = attributes.capability(fd).hex()
        return Place(path=path, atime_ns=facts.st_atime_ns, mtime_ns=facts.st_mtime_ns, capability=capability)

    @contextmanager
    def _writable(self, top: str, path: str) -> Iterator[int]:
        with holder(self.root_fd, _join(top, path)) as (above, name):
            fd = os.open(name, _WRITE, dir_fd=above)
            try:
                yield fd
            finally:
                os.close(fd)


def stream(root_fd: int, order: StreamOrder, keep: Keep, progress: Progress | None, *, back: bool) -> None:
    """Carry out a stream below a root; see `Disk.stream`."""
    giving, taking = (order.target, order.source) if back else (order.source, order.target)
    run = _Stream(root_fd, order, keep, progress, giving, taking, order.piece)
    if back:
        run.back()
    else:
        run.forth()


def _is_first_name(visit: Visit, seen: set[tuple[int, int]]) -> bool:
    """Return whether a visit is to a regular file that was not met under another name before."""
    facts = visit.facts
    if not stat.S_ISREG(facts.st_mode) or (facts.st_dev, facts.st_ino) in seen:
        return False
    if facts.st_nlink > 1:
        seen.add((facts.st_dev, facts.st_ino))
    return True


def _join(top: str, path: str) -> str:
    return f"{top}/{path}" if path else top


def _chunks(fd: int, begin: int, end: int) -> list[int]:
    """Return the numbers of the aligned chunks between two places of a file that hold data; the first begins a chunk."""
    return [index for index in data_chunks(fd, end) if index * CHUNK >= begin]


def _next_data(fd: int, offset: int, end: int) -> tuple[int, int] | None:
    """Return begin and end of the next data between two places of a file, or None."""
    try:
        first = os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return (first, min(os.lseek(fd, first, os.SEEK_HOLE), end)) if first < end else None
