"""Disks that write down everything that reaches them, in order: each write, each discard, each flush.

A disk is a file of a tiny file system that this module serves to the kernel (FUSE, spoken on `/dev/fuse`); a loop device on that
file carries the file system under test. Neither the device mapper nor a library is needed. Several disks share one log, so
that their writes keep their order; whoever drives the workload adds marks to it. The loop device passes no forced writes (FUA),
so that the kernel sends a flush in their place. Needs root.

Message layouts and numbers are from `linux/fuse.h`.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.powercut.blockdev import copy_sparse, die_with, mount, punch, unmount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WRITE, _ZERO, _FLUSH, _MARK = range(4)
_ENTRY = struct.Struct("<BBQQ")
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that were sent to a disk; a discard is a write of zeros."""

    disk: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Flush:
    """The disk promised that every write before this one is durable."""

    disk: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What the workload had to say at this point."""

    text: str


Event = Write | Flush | Mark


def events_of(log: str) -> Iterator[Event]:
    """Read a log back."""
    with open(log, "rb") as stream:
        while head := stream.read(_ENTRY.size):
            kind, disk, offset, length = _ENTRY.unpack(head)
            if kind == _WRITE:
                yield Write(disk, offset, stream.read(length))
            elif kind == _ZERO:
                for start in range(offset, offset + length, _LARGEST):
                    yield Write(disk, start, bytes(min(_LARGEST, offset + length - start)))
            elif kind == _FLUSH:
                yield Flush(disk)
            else:
                yield Mark(stream.read(length).decode())


def mark(log: str, text: str) -> None:
    """Add a mark: all that was durable before is so before the mark."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND)
    try:
        os.writev(fd, [_ENTRY.pack(_MARK, 0, 0, len(text.encode())), text.encode()])
    finally:
        os.close(fd)


@contextmanager
def recorded(images: list[str], folder: str, log: str) -> Iterator[list[str]]:
    """Offer copies of images as disks that record; yields their paths, which loop devices can be put on."""
    window, copies = f"{folder}/recorder", [f"{folder}/recorded-{number}" for number in range(len(images))]
    os.makedirs(window, exist_ok=True)
    for image, copy in zip(images, copies, strict=True):
        copy_sparse(image, copy)
    with open(log, "wb"):
        pass
    fuse = os.open("/dev/fuse", os.O_RDWR)
    mount("powercut", window, "fuse.powercut", f"fd={fuse},rootmode=40000,user_id=0,group_id=0,max_read={_LARGEST}")
    server = os.fork()
    if server == 0:
        _serve_until_unmounted(fuse, copies, log)
    os.close(fuse)
    try:
        yield [f"{window}/{number}" for number in range(len(images))]
    finally:
        unmount(window)
        _, status = os.waitpid(server, 0)
        for copy in copies:
            os.unlink(copy)
    if status != 0:
        raise OSError(errno.EIO, "the recorder failed", log)


def _serve_until_unmounted(fuse: int, copies: list[str], log: str) -> None:
    try:
        die_with(signal.SIGKILL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with ExitStack() as stack:
            disks = [os.open(copy, os.O_RDWR) for copy in copies]
            for fd in disks:
                stack.callback(os.close, fd)
            _Server(fuse, disks, os.open(log, os.O_WRONLY | os.O_APPEND)).serve()
    except BaseException as error:  # noqa: BLE001 - a forked process must not return into its parent's code
        sys.stderr.write(f"recorder: {error!r}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


_HEADER = struct.Struct("<IIQQIIIHH")
_FIRST = 2  # node of the first disk; 1 is the directory
_FOREVER = 3600
_FEATURES = 1 << 5 | 1 << 15 | 1 << 22  # big writes, direct I/O in parts, many pages at once
_PUNCH_OR_ZERO = (0x02, 0x10)


class _Server:
    """Answers the kernel, one request after the other, so that the log has the one true order."""

    def __init__(self, fuse: int, disks: list[int], log: int) -> None:
        self.fuse, self.disks, self.log = fuse, disks, log
        self.sizes = [os.fstat(fd).st_size for fd in disks]
        nothing: Callable[[int, bytes], bytes] = lambda _node, _body: b""  # noqa: E731
        self.answers: dict[int, Callable[[int, bytes], bytes]] = {
            **dict.fromkeys((18, 25, 28, 29, 30, 34, 38), nothing),  # releasing, listing and asking for access
            1: self._lookup,
            3: self._attributes,
            4: self._attributes,
            14: self._open,
            15: self._read,
            16: self._write,
            17: lambda _node, _body: struct.pack("<5Q4I24s", 1 << 20, 1 << 19, 1 << 19, 10, 5, 4096, 255, 4096, 0, b""),
            20: self._flush,
            26: self._begin,
            27: self._open,
            43: self._discard,
        }

    def serve(self) -> None:
        """Serve until the window is unmounted."""
        while True:
            try:
                request = os.read(self.fuse, _LARGEST + (1 << 16))
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                raise
            _, code, unique, node, *_ = _HEADER.unpack_from(request)
            if code in (2, 36, 42):  # forgetting and interrupting want no answer
                continue
            self._answer(unique, *self._result(code, node, request[_HEADER.size :]))

    def _result(self, code: int, node: int, body: bytes) -> tuple[int, bytes]:
        answer = self.answers.get(code)
        if answer is None:
            return -errno.ENOSYS, b""
        try:
            return 0, answer(node, body)
        except OSError as error:
            return -(error.errno or errno.EIO), b""

    def _answer(self, unique: int, code: int, body: bytes) -> None:
        try:
            os.writev(self.fuse, [struct.pack("<IiQ", 16 + len(body), code, unique), body])
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):  # nobody waits any more
                raise

    def _facts(self, node: int) -> bytes:
        size, mode = (self.sizes[node - _FIRST], 0o100600) if node >= _FIRST else (4096, 0o40755)
        return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _begin(self, _node: int, body: bytes) -> bytes:
        ahead = struct.unpack_from("<I", body, 8)[0]
        offered = struct.unpack_from("<I", body, 12)[0]
        return struct.pack("<IIIIHHIIHHI28s", 7, 31, ahead, offered & _FEATURES, 64, 48, _LARGEST, 1, 256, 0, 0, b"")

    def _lookup(self, _node: int, body: bytes) -> bytes:
        name = body.rstrip(b"\0").decode()
        if not name.isdecimal() or int(name) >= len(self.disks):
            raise OSError(errno.ENOENT, name)
        node = int(name) + _FIRST
        return struct.pack("<QQQQII", node, 0, _FOREVER, _FOREVER, 0, 0) + self._facts(node)

    def _attributes(self, node: int, _body: bytes) -> bytes:
        return struct.pack("<QII", _FOREVER, 0, 0) + self._facts(node)

    @staticmethod
    def _open(node: int, _body: bytes) -> bytes:
        return struct.pack("<QIi", node, 1, 0)  # 1: no cache in between

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, length = struct.unpack_from("<QQI", body)
        return os.pread(self.disks[node - _FIRST], length, offset)

    def _write(self, node: int, body: bytes) -> bytes:
        _, offset, length = struct.unpack_from("<QQI", body)
        disk, data = node - _FIRST, body[40 : 40 + length]
        os.writev(self.log, [_ENTRY.pack(_WRITE, disk, offset, length), data])
        os.pwrite(self.disks[disk], data, offset)
        return struct.pack("<II", length, 0)

    def _flush(self, node: int, _body: bytes) -> bytes:
        if node >= _FIRST:
            os.write(self.log, _ENTRY.pack(_FLUSH, node - _FIRST, 0, 0))
        return b""

    def _discard(self, node: int, body: bytes) -> bytes:
        _, offset, length, mode = struct.unpack_from("<QQQI", body)
        if not any(mode & flag for flag in _PUNCH_OR_ZERO):
            raise OSError(errno.EOPNOTSUPP, "only discards")
        os.write(self.log, _ENTRY.pack(_ZERO, node - _FIRST, offset, length))
        punch(self.disks[node - _FIRST], offset, length)
        return b""
