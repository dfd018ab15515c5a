"""Images as block devices: loop devices that free themselves, mounts of one's own, sparse copies. Needs root.

Numbers are from `linux/loop.h`, `linux/falloc.h` and `linux/sched.h`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CONFIG = 304
_FLAGS_OFFSET = 8 + 52
_AUTOCLEAR = 4
_SECTOR = 512
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_PUNCH_KEEPING_SIZE = 3
_PATIENCE = 200

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def _checked(result: int, path: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)


def own_mounts() -> None:
    """Give this process mounts of its own, which vanish with it; what it mounts nobody else sees."""
    _checked(_libc.unshare(_CLONE_NEWNS), "mount namespace")
    _checked(_libc.mount(b"none", b"/", b"", _MS_REC_PRIVATE, b""), "/")


def die_with(signal: int) -> None:
    """Ask for a signal when the process that started this one ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal), "prctl")


def mount(source: str, directory: str, kind: str, options: str = "") -> None:
    """Mount a file system."""
    _checked(_libc.mount(source.encode(), directory.encode(), kind.encode(), 0, options.encode()), directory)


def unmount(directory: str) -> None:
    """Unmount, and wait for whoever is just about to let go; what nobody lets go is detached, and the error raised."""
    for _ in range(_PATIENCE):
        try:
            _checked(_libc.umount2(directory.encode(), 0), directory)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.01)
        else:
            return
    _checked(_libc.umount2(directory.encode(), _MNT_DETACH), directory)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), directory)


def punch(fd: int, offset: int, length: int) -> None:
    """Let a part of a file read as zeros."""
    _checked(_libc.fallocate(fd, _PUNCH_KEEPING_SIZE, offset, length), "")


def attach(path: str) -> tuple[str, int]:
    """Return a loop device on a file and a descriptor of it; the device goes when the last one who has it open lets go."""
    control = os.open("/dev/loop-control", os.O_RDWR)
    file = os.open(path, os.O_RDWR)
    try:
        while True:
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            loop = os.open(device, os.O_RDWR)
            config = bytearray(_LOOP_CONFIG)
            struct.pack_into("<II", config, 0, file, _SECTOR)
            struct.pack_into("<I", config, _FLAGS_OFFSET, _AUTOCLEAR)
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:  # else somebody was faster
                    raise
            else:
                return device, loop
    finally:
        os.close(control)
        os.close(file)


@contextmanager
def mounted(image: str, directory: str, kind: str, options: str = "") -> Iterator[None]:
    """Mount an image on a directory."""
    device, loop = attach(image)
    try:
        mount(device, directory, kind, options)
    finally:
        os.close(loop)
    try:
        yield
    finally:
        unmount(directory)


@contextmanager
def bound(folder: str, directory: str) -> Iterator[None]:
    """Show a folder in another place as well."""
    _checked(_libc.mount(folder.encode(), directory.encode(), b"", _MS_BIND, b""), directory)
    try:
        yield
    finally:
        unmount(directory)


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the parts of a file that are no holes."""
    size = os.fstat(fd).st_size
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def copy_sparse(source: str, target: str) -> None:
    """Copy a file without its holes."""
    read_fd = os.open(source, os.O_RDONLY)
    write_fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.ftruncate(write_fd, os.fstat(read_fd).st_size)
        for start, end in _extents(read_fd):
            position = os.lseek(write_fd, start, os.SEEK_SET)
            while position < end:
                position += os.sendfile(write_fd, read_fd, position, end - position)
    finally:
        os.close(read_fd)
        os.close(write_fd)


def fingerprint(images: Iterable[str]) -> str:
    """Return a digest of the content of images."""
    digest = hashlib.blake2b(digest_size=16)
    for image in images:
        fd = os.open(image, os.O_RDONLY)
        try:
            for start, end in _extents(fd):
                digest.update(b"%d " % start + os.pread(fd, end - start, start))
        finally:
            os.close(fd)
    return digest.hexdigest()
