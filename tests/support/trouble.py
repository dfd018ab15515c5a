"""What others do to a disk before and while the program works on it: flags, mounts, open files, bad blocks, writers, power cuts.

Where there is a means by which it happens to a device, that is used; the two that are a matter of the moment hang on a verb of
the disk or a record of the journal. Needs root.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.running import run
from upgradeconverter import preflight
from upgradeconverter.disk import native
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.journal.log import Journal
from upgradeconverter.journal.record import RecordKind

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECOND = 1_000_000_000


@contextmanager
def release(path: str, text: str) -> Iterator[None]:
    """Let the system's release file be this one, and none when there is no text, whatever system the tests run on."""
    if text:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(f"{text}\n")
    read_release = preflight.read_release
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "read_release", lambda _: read_release((path,)))
        yield


@contextmanager
def immutable(place: str) -> Iterator[None]:
    """Set the immutable flag."""
    # What is moved keeps the flag, so that the way back to it is not the name.
    fd = os.open(place, os.O_RDONLY)
    subprocess.run(["chattr", "+i", place], check=True)
    try:
        yield
    finally:
        native.clear_fixed_flag(fd)
        os.close(fd)


@contextmanager
def mount_inside(place: str) -> Iterator[None]:
    """Make a directory a mount point without changing what is in it."""
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def read_only(place: str) -> Iterator[None]:
    """Mount a directory read-only."""
    with mount_inside(place):
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        yield


@contextmanager
def hold_open(place: str) -> Iterator[None]:
    """Have a file open for reading."""
    fd = os.open(place, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(fd)


def damage(image: str, top: str, path: str) -> None:
    """Overwrite the blocks of a directory in the image of a mounted ext4, so that the kernel refuses to list it."""
    # Freezing empties ext4's journal, which would write the blocks over again.
    subprocess.run(["fsfreeze", "--freeze", top], check=True)
    subprocess.run(["fsfreeze", "--unfreeze", top], check=True)
    told = subprocess.run(["debugfs", "-R", f'blocks "/{path}"', image], check=True, capture_output=True, text=True)
    size = os.statvfs(top).f_bsize
    with open(image, "r+b") as stream:
        for block in told.stdout.split():
            stream.seek(int(block) * size)
            stream.write(b"\xff" * size)
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as caches:
        caches.write("3")


def write_anew(place: str, text: str = "written anew\n") -> None:
    """Write a file as if it had never been there, with the directory above it; always the same, so that results compare."""
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    with open(place, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.utime(place, ns=(1_600_000_000 * _SECOND, 1_600_000_000 * _SECOND))


@contextmanager
def restless(place: str, verb: str) -> Iterator[None]:
    """Append to a file each time that a verb of the disk has done its work, as a process does that was not stopped."""
    original = getattr(PosixDisk, verb)

    def and_write(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        before = os.stat(place).st_mtime_ns
        with open(place, "ab") as stream:
            stream.write(b".")
        # Two writes within one tick of the clock would have the same time.
        os.utime(place, ns=(before + _SECOND, before + _SECOND))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosixDisk, verb, and_write)
        yield


class _PowerCut(BaseException):
    """The end of an interrupted start; no handler of the program may catch it."""


def interrupt(arguments: tuple[str, ...], record: str) -> None:
    """Start the program and let it die just before it writes a record to the journal."""
    append = Journal.append

    def die(journal: Journal, txid: str, kind: RecordKind, payload: dict[str, Any]) -> None:
        if kind is RecordKind(record):
            raise _PowerCut
        append(journal, txid, kind, payload)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", die)
        with pytest.raises(_PowerCut):
            run(*arguments)
