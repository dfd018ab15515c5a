"""The stamp: a small text file that says which layout the disk carries and what must still be as it was for nothing to be to do.

One word per line, values after blanks, paths last, so that the preflight reads it without any parser. `watch` lines hold inode,
size, mtime and ctime of a path; `absent` lines name paths that must not be there. Written to a fresh name and renamed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upgradeconverter.engine.places import ENGINE_FOLDER, STAMP
from upgradeconverter.errors import StampDamagedError
from upgradeconverter.model.plan import Attributes

if TYPE_CHECKING:
    from upgradeconverter.disk.port import Disk

HEADER = "upgradeconverter-stamp 1"
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What the stamp says.

    Attributes:
        release: what the release files said, so that a new system is noticed; `-` for nothing.
        phases: phases that have nothing to do while the watched paths stay as they are.
        watched: signature by path, None for a path that must be absent.
    """

    pack: str
    layout: str
    asked: str
    release: str
    run: str
    phases: tuple[str, ...]
    watched: tuple[tuple[str, tuple[int, int, int] | None], ...] = ()


def encode(stamp: Stamp) -> bytes:
    """Return the stamp as text."""
    lines = [
        HEADER,
        f"pack {stamp.pack}",
        f"layout {stamp.layout}",
        f"asked {stamp.asked or '-'}",
        f"release {stamp.release or '-'}",
        f"run {stamp.run or '-'}",
        *(f"phase {phase}" for phase in stamp.phases),
    ]
    for path, signature in stamp.watched:
        if signature is None:
            lines.append(f"absent {path}")
        else:
            lines.append(f"watch {signature[0]} {signature[1]} {signature[2]} {path}")
    return os.fsencode("\n".join(lines) + "\nend\n")


def decode(content: bytes) -> Stamp:
    """Read a stamp back; StampDamagedError when it is not whole."""
    lines = os.fsdecode(content).split("\n")
    if lines[0] != HEADER or lines[-2:] != ["end", ""]:
        raise StampDamagedError(STAMP, "something without its first or last line")
    words: dict[str, str] = {}
    phases: list[str] = []
    watched: list[tuple[str, tuple[int, int, int] | None]] = []
    try:
        for text in lines[1:-2]:
            word, _, value = text.partition(" ")
            if word == "phase":
                phases.append(value)
            elif word == "absent":
                watched.append((value, None))
            elif word == "watch":
                inode, mtime, ctime, path = value.split(" ", 3)
                watched.append((path, (int(inode), int(mtime), int(ctime))))
            else:
                words[word] = "" if value == "-" else value
        return Stamp(
            pack=words["pack"],
            layout=words["layout"],
            asked=words["asked"],
            release=words["release"],
            run=words["run"],
            phases=tuple(phases),
            watched=tuple(watched),
        )
    except (KeyError, ValueError) as error:
        raise StampDamagedError(STAMP, f"a line that is not understood ({error})") from error


def read_stamp(disk: Disk) -> Stamp | None:
    """Return the stamp of a disk, or None when there is none."""
    if disk.find(STAMP) is None:
        return None
    return decode(disk.read(STAMP, _LIMIT))


def write_stamp(disk: Disk, stamp: Stamp) -> None:
    """Write the stamp durably; the old one is gone for a moment, which only costs the next start a look."""
    fresh = f"{STAMP}.new"
    disk.remove(fresh)
    disk.write_file(fresh, encode(stamp), Attributes(mode=0o600))
    disk.sync_file(fresh)
    disk.remove(STAMP)
    disk.rename(fresh, STAMP)
    disk.sync_directory(ENGINE_FOLDER)


def remove_stamp(disk: Disk) -> None:
    """Forget what the disk carries; the next run looks for itself."""
    if disk.find(STAMP) is not None:
        disk.remove(STAMP)
        disk.sync_directory(ENGINE_FOLDER)
