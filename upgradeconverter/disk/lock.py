"""One instance at a time per root; the locks are flocks, so they die with their holder.

One lock is a file, which names the holder; the other is the root directory itself, which holds also where two instances do not
see the same /run, as inside and outside of a container.
The one door to `filelock`. Its fall-back to a mere existence lock is off: after a power cut that would lock us out for ever.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from upgradeconverter.disk import outside
from upgradeconverter.errors import LockHeldError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = "/run/upgradeconverter"


def lock_path(root_fd: int) -> str | None:
    """Return where the lock of a root lies under /run, or None where that cannot be written."""
    facts = os.fstat(root_fd)
    with suppress(OSError):
        outside.make(_FOLDER)
    if os.path.isdir(_FOLDER) and os.access(_FOLDER, os.W_OK):
        return f"{_FOLDER}/{os.major(facts.st_dev)}-{os.minor(facts.st_dev)}-{facts.st_ino}.lock"
    return None


@contextmanager
def held(path: str, root_fd: int) -> Iterator[None]:
    """Hold both locks while the body runs; LockHeldError at once when somebody else has one."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockHeldError(path, _holder(path)) from error
    try:
        _note_holder(path)
        _lock_root(path, root_fd)
        try:
            yield
        finally:
            # As long as the root is locked nobody can have taken a lock file of this name anew.
            with suppress(OSError):
                os.unlink(path)
            # Both locks go with the process in any case; what the body had to say must not be lost over them.
            with suppress(OSError):
                fcntl.flock(root_fd, fcntl.LOCK_UN)
    finally:
        with suppress(OSError):
            lock.release()


def _lock_root(path: str, root_fd: int) -> None:
    try:
        fcntl.flock(root_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockHeldError(f"on the persist directory, beside {path},", "a process that does not see this lock file") from error


def _note_holder(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"process {os.getpid()}\n".encode())
    finally:
        os.close(fd)


def _holder(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as text:
            return text.read().strip() or "an unknown process"
    except OSError:
        return "an unknown process"
