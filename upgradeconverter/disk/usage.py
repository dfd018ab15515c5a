"""Who else uses a file or a tree, by what the kernel tells: leases for files, /proc for directories. Best effort.

A lease for reading is granted only when nobody has the file open for writing, or mapped so; one for writing only when nobody else
has it open at all (fcntl(2)). Somebody who comes while a lease is held waits, until it is given back or 45 seconds are over; its
holder is told by a signal, which is SIGIO and deadly unless another one is asked for.

Must not know: plans, what is done about it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from upgradeconverter.disk import native
from upgradeconverter.disk.port import SourceChangedError, SourceInUseError
from upgradeconverter.disk.walking import Stretch, folder, regular_file, stretches
from upgradeconverter.disk.workers import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_REFUSED = (errno.EAGAIN, errno.EBUSY)
# By what a broken lease is told of instead; ignored by default, since who holds a lease here asks whether it is broken.
_INSTEAD = [signal.SIGURG]


def ignore_breaks() -> None:
    """Have the signal ignored that tells of a broken lease: for a process that does nothing but ask and copy."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    _INSTEAD.clear()


def take_lease(fd: int, kind: int) -> bool | None:
    """Take a lease (`F_RDLCK` or `F_WRLCK`) on a file open for reading; False when it is in use, None when nobody can tell.

    It ends at the latest when the file is closed.
    """
    try:
        for number in _INSTEAD:
            fcntl.fcntl(fd, fcntl.F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
    except OSError as error:
        return False if error.errno in _REFUSED else None
    return True


def is_used(fd: int, kind: int) -> bool:
    """Return whether a lease of that kind is refused because others have the file open."""
    granted = take_lease(fd, kind)
    if granted:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return granted is False


class Unwritten:
    """Holds off writers of an open file until that is closed.

    Raises:
        SourceInUseError: somebody has the file open for writing.
    """

    __slots__ = ("_fd", "_granted", "_path")

    def __init__(self, fd: int, path: Callable[[], str]) -> None:
        """Begin to hold them off, where that can be done at all."""
        self._fd, self._path, self._granted = fd, path, take_lease(fd, fcntl.F_RDLCK)
        if self._granted is False:
            message = f"{path()} is open for writing in another process"
            raise SourceInUseError(message)

    def check(self) -> None:
        """Raise SourceChangedError when somebody waits to write; asked often, it does not keep them waiting."""
        if self._granted and fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            message = f"{self._path()} is about to be written to by another process"
            raise SourceChangedError(message)


def is_written_inside(root_fd: int, path: str) -> bool:
    """Return whether another process has a file inside a directory open for writing."""
    found: list[bool] = []
    with folder(root_fd, path) as top, closing(Crew(_written, prepare=ignore_breaks)) as crew:
        for step in stretches(top):
            if isinstance(step, Stretch):
                crew.give((step.fd,), [row.name for row in step.rows if row.is_file], lambda _, result: found.append(result))
            if any(found):
                return True
        crew.finish()
    return any(found)


def _written(fds: tuple[int, ...], names: Sequence[str]) -> bool:
    """Return whether one of the files in an open directory is open for writing."""
    for name in names:
        with regular_file(fds[0], name) as fd:
            if take_lease(fd, fcntl.F_RDLCK) is False:
                return True
    return False


def lived_in(root_fd: int, trees: Iterable[str], folders: Iterable[str]) -> frozenset[str]:
    """See `Disk.lived_in`; all of them have to be directories."""
    tops: dict[tuple[int, int], set[str]] = {}
    for path, is_whole in (*((path, True) for path in trees), *((path, False) for path in folders)):
        with folder(root_fd, path) as top:
            tops.setdefault(_identity(os.fstat(top)), set()).add(path)
            for step in stretches(top) if is_whole else ():
                if not isinstance(step, Stretch):
                    tops.setdefault(_identity(step.facts), set()).add(path)
    used = (place for name in _processes() for place in _places(f"/proc/{name}")) if tops else ()
    return frozenset(path for place in used if place in tops for path in tops[place])


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def _processes() -> list[str]:
    own = str(os.getpid())
    try:
        return [name for name in os.listdir("/proc") if name.isdecimal() and name != own]
    except OSError:
        return []


def _places(process: str) -> Iterator[tuple[int, int]]:
    """Yield device and inode of what a process works in, has as its root, or has open."""
    places = [f"{process}/cwd", f"{process}/root"]
    # Processes come to their end while they are looked at, and some are not ours to look at.
    with suppress(OSError):
        places += [f"{process}/fd/{name}" for name in os.listdir(f"{process}/fd")]
    for place in places:
        with suppress(OSError):
            yield native.inode_of(place)
