"""Small files outside of the root, for others to read: whole or not at all, and nothing depends on them, so nothing is synced."""

from __future__ import annotations

import os
from contextlib import suppress

# Who may look at figures need not be root; reports are for root.
_DIRECTORY = 0o755


def make(directory: str) -> None:
    """Make a directory in one that is there; OSError when refused."""
    with suppress(FileExistsError):
        os.mkdir(directory)
        os.chmod(directory, _DIRECTORY)


def remove(directory: str, name: str) -> None:
    """Remove a file if it is there; OSError when refused."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(f"{directory}/{name}")


def put(directory: str, name: str, content: bytes, mode: int) -> None:
    """Put a file into a directory, made where only that is missing, in the place of the one before; OSError when refused."""
    fresh = f"{directory}/.{name}.{os.getpid()}"
    make(directory)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as stream:
            stream.write(content)
            os.fchmod(fd, mode)
        os.rename(fresh, f"{directory}/{name}")
    except OSError:
        with suppress(OSError):
            os.unlink(fresh)
        raise
