"""Whether what a running program leaves as a mark tells of one that still runs: locks, numbers, sockets. Best effort.

Sources: flock(2), fcntl(2), proc(5) for `/proc/locks`, `/proc/net/unix`, `/proc/stat` and `/proc/PID`.

Must not know: which names mark what, and what is done about it.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from upgradeconverter.disk import usage
from upgradeconverter.disk.walking import regular_file

if TYPE_CHECKING:
    from collections.abc import Iterator

# What holds a number holds little else.
_SHORT = 64
# Which field has the path that a socket is bound to.
_BOUND = 7
_NUMBER = re.compile(rb"\s*([1-9][0-9]{0,9})\s*")


def used_by(folder_fd: int, name: str, mode: int, path: str) -> str:
    """Return who uses a file or a socket in an open directory, in words; empty for nobody. `path` is its absolute one."""
    if stat.S_ISSOCK(mode):
        return "somebody listens there" if _is_bound(path) else ""
    if not stat.S_ISREG(mode):
        return ""
    with regular_file(folder_fd, name) as fd:
        facts = os.fstat(fd)
        if process := _locked_by(facts) or _named(os.pread(fd, _SHORT, 0), facts.st_mtime):
            return f"process {process}"
        return "another process has it open" if usage.is_used(fd, fcntl.F_WRLCK) else ""


def _named(content: bytes, written: float) -> str:
    """Return the number of the process that a file names, unless it was written before that began to run."""
    found = _NUMBER.fullmatch(content)
    if found is None:
        return ""
    number = found[1].decode()
    with suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{number}/stat", "rb") as text:
            # The name of the program, which may have blanks, ends with the last bracket; the 22nd field is when it began.
            ticks = int(text.read().rpartition(b")")[2].split()[19])
        # The clock may have been set since the boot, and a number is written down a moment after a process has begun.
        if written + 1 >= _booted() + ticks / os.sysconf("SC_CLK_TCK"):
            return number
    return ""


def _booted() -> float:
    with open("/proc/stat", "rb") as text:
        return next(float(line.split()[1]) for line in text if line.startswith(b"btime "))


def _locked_by(facts: os.stat_result) -> str:
    """Return the number of the process that holds a lock of a file, as far as the kernel tells."""
    wanted = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    for fields in _rows("/proc/locks"):
        # Who waits for a lock has an arrow there.
        held = [field for field in fields if field != "->"]
        if wanted in held and "LEASE" not in held:
            return held[4] if held[4].isdecimal() else "of another namespace"
    return ""


def _is_bound(path: str) -> bool:
    """Return whether a socket is bound to a path; a relative one counts where it ends alike, since nobody knows whence."""
    for fields in _rows("/proc/net/unix"):
        bound = fields[_BOUND] if len(fields) > _BOUND else ""
        if bound == path or (bound and not bound.startswith(("/", "@")) and path.endswith(f"/{bound.removeprefix('./')}")):
            return True
    return False


def _rows(table: str) -> Iterator[list[str]]:
    with suppress(OSError), open(table, encoding="utf-8", errors="surrogateescape") as text:
        for line in text:
            yield line.rstrip("\n").split(maxsplit=_BOUND)
