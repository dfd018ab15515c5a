"""Where something is mounted, as this process sees it.

The kernel tells when that changes (proc(5): `/proc/self/mountinfo` can be polled), so it is read once and not for each question.

Must not know: what a root is, or why somebody asks.
"""

from __future__ import annotations

import os
import re
import select
from bisect import bisect_left

_TABLE = "/proc/self/mountinfo"
# How the kernel writes what would end a field: blank, tab, end of line, and the backslash itself (proc(5)).
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


class MountTable:
    """The mount points of this process; to be closed."""

    def __init__(self) -> None:
        """Begin without having looked."""
        self._fd, self._process = -1, 0
        self._points: list[str] = []

    def at(self, path: str) -> list[str]:
        """Return which mount points are at an absolute path or inside of it, sorted; the path must have no end `/`."""
        points, inside = self._now(), f"{path}/"
        here, first = bisect_left(points, path), bisect_left(points, inside)
        last = first
        while last < len(points) and points[last].startswith(inside):
            last += 1
        return [*({path} if points[here : here + 1] == [path] else ()), *points[first:last]]

    def close(self) -> None:
        """Let the table go."""
        if self._fd >= 0 and self._process == os.getpid():
            os.close(self._fd)
        self._fd = -1

    def _now(self) -> list[str]:
        # Who is told of a change is told once, so a fork needs a descriptor of its own.
        if self._fd < 0 or self._process != os.getpid():
            self._fd, self._process = os.open(_TABLE, os.O_RDONLY | os.O_CLOEXEC), os.getpid()
        elif not self._has_changed():
            return self._points
        os.lseek(self._fd, 0, os.SEEK_SET)
        content = b"".join(iter(lambda: os.read(self._fd, 1 << 16), b""))
        self._points = sorted({_point(line) for line in content.splitlines()})
        return self._points

    def _has_changed(self) -> bool:
        waiting = select.poll()
        waiting.register(self._fd, select.POLLPRI)
        return bool(waiting.poll(0))


def _point(line: bytes) -> str:
    """Return the fifth field, the mount point (proc(5))."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ", 5)[4]))
