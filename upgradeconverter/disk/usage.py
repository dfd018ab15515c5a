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
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from upgradeconverter.disk import native
from upgradeconverter.disk.port import SourceChangedError, SourceInUseError
from upgradeconverter.disk.walking import folder, regular_file, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REFUSED = (errno.EAGAIN, errno.EBUSY)


def take_lease(fd: int, kind: int) -> bool | None:
    """Take a lease (`F_RDLCK` or `F_WRLCK`) on a file open for reading; False when it is in use, None when nobody can tell."""
    try:
        # Ignored by default: who holds a lease here asks whether it is broken.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
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


@contextmanager
def unwritten(fd: int, path: str) -> Iterator[Callable[[], None]]:
    """Hold off writers of a file while it is read; yields what raises SourceChangedError as soon as one waits.

    Raises:
        SourceInUseError: somebody has the file open for writing.
    """
    granted = take_lease(fd, fcntl.F_RDLCK)
    if granted is False:
        message = f"{path} is open for writing in another process"
        raise SourceInUseError(message)

    def check() -> None:
        if granted and fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            message = f"{path} is about to be written to by another process"
            raise SourceChangedError(message)

    try:
        yield check
        check()
    finally:
        if granted:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def is_written_inside(root_fd: int, path: str) -> bool:
    """Return whether another process has a file inside a directory open for writing."""
    with folder(root_fd, path) as top:
        for visit in walk(top):
            if stat.S_ISREG(visit.facts.st_mode):
                with regular_file(visit.fd, visit.name) as file_fd:
                    if is_used(file_fd, fcntl.F_RDLCK):
                        return True
    return False


def is_lived_in(root_fd: int, path: str) -> bool:
    """Return whether a directory, or one inside, is open, the root or the working directory of another process."""
    with folder(root_fd, path) as top:
        facts = os.fstat(top)
        directories = {(facts.st_dev, facts.st_ino)}
        inside = (visit.facts for visit in walk(top))
        directories |= {(facts.st_dev, facts.st_ino) for facts in inside if stat.S_ISDIR(facts.st_mode)}
    return any(_uses(f"/proc/{name}", directories) for name in _processes())


def _processes() -> list[str]:
    own = str(os.getpid())
    try:
        return [name for name in os.listdir("/proc") if name.isdecimal() and name != own]
    except OSError:
        return []


def _uses(process: str, directories: set[tuple[int, int]]) -> bool:
    """Return whether a process works in one of some directories, has it as its root, or has it open."""
    places = [f"{process}/cwd", f"{process}/root"]
    # Processes come to their end while they are looked at, and some are not ours to look at.
    with suppress(OSError):
        places += [f"{process}/fd/{name}" for name in os.listdir(f"{process}/fd")]
    for place in places:
        with suppress(OSError):
            if native.inode_of(place) in directories:
                return True
    return False
