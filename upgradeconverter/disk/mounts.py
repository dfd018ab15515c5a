"""Where something is mounted, as this process sees it at this moment.

Nothing is kept: the kernel tells of new and of gone mounts (proc(5)), but not of one that lies elsewhere because a directory
above it was renamed.

Must not know: what a root is, or why somebody asks.
"""

from __future__ import annotations

import os
import re

_TABLE = "/proc/self/mountinfo"
# How the kernel writes what would end a field: blank, tab, end of line, and the backslash itself (proc(5)).
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


def mounts_at(path: str) -> list[str]:
    """Return which mount points are at an absolute path or inside of it, sorted; the path must not end in `/`."""
    with open(_TABLE, "rb", buffering=0) as table:
        points = {_point(line) for line in table.readall().split(b"\n") if line}
    return sorted(point for point in points if point == path or point.startswith(f"{path}/"))


def _point(line: bytes) -> str:
    """Return the fifth field, the mount point (proc(5))."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ", 5)[4]))
