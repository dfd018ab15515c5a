"""The ordering points inside the real disk, which no model sees: each is removed, and what it is for looked at on a file system.

What syncs is found in the source. Its verb is used on a disk that is recorded (see `tests.powercut.recorder`), and the power is
cut right after the verb has returned: whatever the disk kept of what was under way, what the verb promised must be there. The
others are no syncs, so their meaning is tried directly. Needs root.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.mutation.points import PROGRAM, places, title
from tests.powercut.blockdev import die_with, mounted, own_mounts
from tests.powercut.recorder import Mark, events_of, mark, recorded
from tests.powercut.stories import EXT4
from tests.powercut.survivors import Replay, Survivor
from upgradeconverter.disk import native
from upgradeconverter.disk.port import CopyOrder, Place, StreamOrder
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SYNCS = ("fsync", "fdatasync", "syncfs")
CHOICES = 12
OLD, MORE = b"what was there before\n" * 400, b"what came later\n" * 400
Look = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Promise:
    """What a verb of the disk promises to be durable: how it is used, and what must be there then, by path."""

    use: Callable[[PosixDisk], None]
    wanted: Look


def _copy_and_sync(disk: PosixDisk) -> None:
    disk.copy(CopyOrder(source="old", target="new", after=Attributes()))
    disk.sync_filesystem("")


def _write_and_sync(disk: PosixDisk) -> None:
    with open(f"{disk.root_path}/old/file", "ab") as stream:
        stream.write(MORE)
    disk.sync_file("old/file")


def _rename_and_sync(disk: PosixDisk) -> None:
    disk.rename("old/file", "old/renamed")
    disk.sync_directory("old")


def _stream_a_piece(disk: PosixDisk) -> None:
    """Let a file go over as far as its place is to be kept: what the place claims must be durable then."""

    class StopError(Exception):
        pass

    def stop(place: Place) -> None:
        raise StopError(place)

    disk.copy(CopyOrder(source="old/file", target="new", after=Attributes(), hollow=True))
    disk.sync_filesystem("")
    with suppress(StopError):
        disk.stream(StreamOrder(source="old/file", target="new", piece=1 << 20), stop)


# By the function in which the sync stands.
PROMISES = {
    "PosixDisk.append": Promise(lambda disk: disk.append("old/file", MORE), {"old/file": OLD + MORE}),
    "PosixDisk.truncate": Promise(lambda disk: disk.truncate("old/file", 100), {"old/file": OLD[:100]}),
    "PosixDisk.sync_directory": Promise(_rename_and_sync, {"old/renamed": OLD}),
    "PosixDisk.sync_file": Promise(_write_and_sync, {"old/file": OLD + MORE}),
    "_Stream._sync": Promise(_stream_a_piece, {"new": OLD}),
    "sync_filesystem": Promise(_copy_and_sync, {"old/file": OLD, "new/file": OLD}),
}


@dataclass(frozen=True, slots=True)
class RealPoint:
    """One point inside the real disk: `removed` takes it away for the body of a `with`, `tried` returns what is wrong then."""

    name: str
    removed: Callable[[pytest.MonkeyPatch], None]
    tried: Callable[[], str]


def all_points() -> tuple[RealPoint, ...]:
    """Return the points: every sync in the source of the real disk, and what else puts effects in order there."""
    found = []
    for file in sorted((PROGRAM / "disk").glob("*.py")):
        for place in places(str(file)):
            if place.called in SYNCS:
                name = title(str(file), place)
                found.append(RealPoint(name, _without(place.called, place.function), _kept(place.function)))
    return (*found, *DIRECT)


def _without(called: str, function: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what makes one sync do nothing where it stands in one function."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        owner: Any = native._libc if called == "syncfs" else os
        original = getattr(owner, called)

        def sync(*arguments: Any) -> Any:
            return 0 if sys._getframe(1).f_code.co_qualname == function else original(*arguments)

        patch.setattr(owner, called, sync)

    return remove


# --- what must be there after a power cut ----------------------------------------------------------------------------------


def _kept(function: str) -> Callable[[], str]:
    promise = PROMISES.get(function)
    return (lambda: "") if promise is None else lambda: broken(promise)


def broken(promise: Promise) -> str:
    """Use a verb on a recorded disk, cut the power right after that, and return what is missing; empty when nothing is."""
    with tempfile.TemporaryDirectory(prefix="mutation-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        image, top, log = f"{scratch}/image", f"{scratch}/top", f"{scratch}/log"
        _make(image, top)
        with recorded([image], scratch, log) as (device,), mounted(device, top, EXT4.kind, EXT4.options):
            disk = PosixDisk.at(top)
            promise.use(disk)
            mark(log, "promised")
            disk.close()
        return _first_missing(scratch, image, list(events_of(log)), promise.wanted)


def _make(image: str, top: str) -> None:
    os.mkdir(top)
    with open(image, "wb") as stream:
        stream.truncate(EXT4.size)
    subprocess.run([*EXT4.maker, image], check=True, stdout=subprocess.DEVNULL)
    with mounted(image, top, EXT4.kind, EXT4.options):
        os.mkdir(f"{top}/old")
        with open(f"{top}/old/file", "wb") as stream:
            stream.write(OLD)


def _first_missing(scratch: str, image: str, events: list[Any], wanted: Look) -> str:
    cut = events.index(Mark("promised")) + 1
    replay = Replay([image], events, scratch)
    random = Random(cut)  # noqa: S311 - choices that can be repeated
    try:
        replay.go_to(cut)
        pending = tuple(replay.under_way)
        some = (tuple(number for number in pending if random.random() < 0.5) for _ in range(CHOICES))
        for chosen in dict.fromkeys(((), pending, *some)):
            replay.make(Survivor(cut, "subset", chosen), [f"{scratch}/cut"])
            with mounted(f"{scratch}/cut", f"{scratch}/top", EXT4.kind, EXT4.options):
                for path, content in wanted.items():
                    found = _read(f"{scratch}/top/{path}")
                    if found != content:
                        size = "not there" if found is None else f"{len(found)} bytes"
                        return f"{path} is {size}, not {len(content)} bytes, {len(chosen)} of {len(pending)} writes kept"
    finally:
        replay.close()
    return ""


def _read(path: str) -> bytes | None:
    with suppress(FileNotFoundError), open(path, "rb") as stream:
        return stream.read()
    return None


# --- what is no sync -------------------------------------------------------------------------------------------------------


@contextmanager
def _folder() -> Iterator[tuple[str, PosixDisk]]:
    with tempfile.TemporaryDirectory(prefix="mutation-") as top:
        disk = PosixDisk.at(top)
        try:
            yield top, disk
        finally:
            disk.close()


def _somebody_was_quicker() -> str:
    """Rename to a name that somebody took just before; what is his must stay."""
    with _folder() as (top, disk):
        for name in ("ours", "his"):
            disk.write_file(name, name.encode(), Attributes())
        with suppress(FileExistsError):
            disk.rename("ours", "his")
        found = _read(f"{top}/his")
        return "" if found == b"his" else f"what somebody else had put under the name is replaced by {found!r}"


def _somebody_was_quicker_on_an_old_kernel() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_libc", object())
        return _somebody_was_quicker()


def _half_a_record() -> str:
    """Append more than fits; what was written of it must be taken away again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with _folder() as (top, disk):
        disk.append("journal", OLD)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(OLD) + 10, before[1]))
        try:
            disk.append("journal", MORE)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        found = _read(f"{top}/journal") or b""
        return "" if found == OLD else f"{len(found) - len(OLD)} bytes of what was refused stay behind the last record"


def _replace_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(native, "_RENAME_NOREPLACE", 0)


def _not_looking(patch: pytest.MonkeyPatch) -> None:
    original = os.stat

    def stat(*arguments: Any, **options: Any) -> Any:
        if sys._getframe(1).f_code.co_qualname == "rename_exclusively":
            raise FileNotFoundError
        return original(*arguments, **options)

    patch.setattr(os, "stat", stat)


DIRECT = (
    RealPoint("disk/native.py rename_exclusively: RENAME_NOREPLACE", _replace_all, _somebody_was_quicker),
    RealPoint("disk/native.py rename_exclusively: look before rename", _not_looking, _somebody_was_quicker_on_an_old_kernel),
    RealPoint(
        "disk/posix.py PosixDisk.append: ftruncate after half a record", _without("ftruncate", "PosixDisk.append"), _half_a_record
    ),
)


# --- the rows --------------------------------------------------------------------------------------------------------------


def verdicts_of(numbers: Iterable[int]) -> list[tuple[str, str, str]]:
    """Return of each point its name, what is wrong without it, and what is wrong although it is there."""
    # Mounts of one's own need a process of one's own.
    with multiprocessing.get_context("fork").Pool(1, initializer=_alone) as pool:
        return pool.map(_verdict, numbers, chunksize=1)


def _alone() -> None:
    own_mounts()
    die_with(signal.SIGKILL)


def _verdict(number: int) -> tuple[str, str, str]:
    point = all_points()[number]
    with pytest.MonkeyPatch.context() as patch:
        point.removed(patch)
        without = point.tried()
    return point.name, without, point.tried()
