"""One instance at a time per root; the lock is an flock, so it dies with its holder.

The one door to `filelock`. Its fall-back to a mere existence lock is off: after a power cut that would lock us out for ever.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from upgradeconverter.errors import LockHeldError

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUN = "/run"


def lock_path(root_fd: int) -> str | None:
    """Return where the lock of a root lies under /run, or None where that cannot be written."""
    facts = os.fstat(root_fd)
    if os.path.isdir(_RUN) and os.access(_RUN, os.W_OK):
        return f"{_RUN}/upgradeconverter-{os.major(facts.st_dev)}-{os.minor(facts.st_dev)}-{facts.st_ino}.lock"
    return None


@contextmanager
def held(path: str) -> Iterator[None]:
    """Hold the lock while the body runs; LockHeldError at once when somebody else has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockHeldError(path, _holder(path)) from error
    try:
        _note_holder(path)
        yield
    finally:
        lock.release()


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
