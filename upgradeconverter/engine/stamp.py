"""The stamp: a small text file that says which layout the disk carries, and what a start with nothing to do may answer at once.

One word per line, values after blanks, paths last, so that the preflight reads it without any parser. After the general lines
comes one section for each way of starting (`phase`) that was found to have nothing to do: the conditions under which that holds
(`asked`, `release`, `config`), what must still be as it was (`watch`: inode, mtime and ctime of a path; `absent`: not there),
and the finished answer for people (`text`) and for tools (`json`). The last line holds a checksum of all before it. Written to
a fresh name and renamed.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from upgradeconverter.engine.places import ENGINE_FOLDER, STAMP
from upgradeconverter.errors import StampDamagedError
from upgradeconverter.model.plan import Attributes
from upgradeconverter.preflight import HEADER, LIMIT, checksum, lines_of

if TYPE_CHECKING:
    from upgradeconverter.disk.port import Disk

_FRESH = f"{STAMP}.new"
_GENERAL = ("pack", "layout", "run")
_CONDITIONS = ("asked", "release", "config")

Signature = tuple[int, int, int]


class Section(Struct, frozen=True, kw_only=True):
    """Under which conditions one way of starting has nothing to do, and what it answers then.

    Attributes:
        asked: target that was asked for explicitly, or empty.
        release: what the system's release files say, or empty.
        config: signature of the settings file, or empty where there is none.
        watched: signature by path, None for a path that must be absent.
        text, json: the report; `json` is one line, and so is `told`, without names that only the vault knows.
    """

    phase: str
    asked: str
    release: str
    config: str
    watched: tuple[tuple[str, Signature | None], ...]
    text: str
    json: str
    told: str


class Stamp(Struct, frozen=True, kw_only=True):
    """What the stamp says; `run` is the last run that changed the disk, or empty."""

    pack: str
    layout: str
    run: str = ""
    sections: tuple[Section, ...] = ()


def encode(stamp: Stamp) -> bytes:
    """Return the stamp as text."""
    lines = [HEADER, f"pack {stamp.pack}", f"layout {stamp.layout}", f"run {stamp.run or '-'}"]
    for section in stamp.sections:
        lines.append(f"phase {section.phase}")
        lines += [f"{name} {getattr(section, name) or '-'}" for name in _CONDITIONS]
        for path, signature in section.watched:
            numbers = "" if signature is None else " ".join(str(number) for number in signature)
            lines.append(f"absent {path}" if signature is None else f"watch {numbers} {path}")
        lines += [f"text {line}" for line in section.text.split("\n")]
        lines.append(f"json {section.json}")
        if section.told != section.json:
            lines.append(f"told {section.told}")
    body = os.fsencode("\n".join(lines))
    return body + b"\nend " + checksum(body) + b"\n"


def decode(content: bytes) -> Stamp:
    """Read a stamp back; StampDamagedError when it is not whole."""
    lines = lines_of(content)
    if lines is None:
        raise StampDamagedError(STAMP, "something that is not whole or was altered")
    parts: list[list[tuple[str, str]]] = [[]]
    for line in lines:
        word, _, value = line.partition(" ")
        if word == "phase":
            parts.append([])
        parts[-1].append((word, value))
    try:
        general = _words(parts[0], _GENERAL)
        sections = tuple(_section(part) for part in parts[1:])
    except (KeyError, ValueError) as error:
        raise StampDamagedError(STAMP, f"a line that is not understood ({error})") from error
    return Stamp(pack=general["pack"], layout=general["layout"], run=general["run"], sections=sections)


def _words(part: list[tuple[str, str]], names: tuple[str, ...]) -> dict[str, str]:
    """Return the values of words that occur once; `-` stands for nothing."""
    found = {word: "" if value == "-" else value for word, value in part}
    return {name: found[name] for name in names}


def _section(part: list[tuple[str, str]]) -> Section:
    watched: list[tuple[str, Signature | None]] = []
    for word, value in part:
        if word == "absent":
            watched.append((value, None))
        elif word == "watch":
            inode, mtime, ctime, path = value.split(" ", 3)
            watched.append((path, (int(inode), int(mtime), int(ctime))))
        elif word not in ("phase", "text", "json", "told", *_CONDITIONS):
            raise KeyError(word)
    words = _words(part, ("phase", "json", *_CONDITIONS))
    text = "\n".join(value for word, value in part if word == "text")
    told = next((value for word, value in part if word == "told"), words["json"])
    return Section(**words, watched=tuple(watched), text=text, told=told)


def read_stamp(disk: Disk) -> Stamp | None:
    """Return the stamp of a disk, or None when there is none."""
    if disk.find(STAMP) is None:
        return _fresh_stamp(disk)
    try:
        return decode(disk.read(STAMP, LIMIT))
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise StampDamagedError(STAMP, f"more than {LIMIT} bytes") from error
        raise


def _fresh_stamp(disk: Disk) -> Stamp | None:
    """Return the stamp that was about to take the place of the old one when the machine stopped."""
    if disk.find(_FRESH) is None:
        return None
    with suppress(OSError, StampDamagedError):
        return decode(disk.read(_FRESH, LIMIT))
    return None


def is_settled(disk: Disk) -> bool:
    """Return whether the last writing of the stamp came to its end: nothing of it is left beside the stamp, or in its stead."""
    return disk.find(_FRESH) is None


def discard_unfinished(disk: Disk) -> None:
    """Remove what was to become the stamp; there must be another one, or none that could be read."""
    disk.remove(_FRESH)


def write_stamp(disk: Disk, stamp: Stamp) -> None:
    """Write the stamp durably; while the old one is gone for a moment, the fresh one is read in its stead."""
    content = encode(stamp)
    if len(content) > LIMIT:
        # So much was left alone that nobody would read the stamp back; without sections every start looks for itself.
        content = encode(replace(stamp, sections=()))
    if disk.find(STAMP) is None and _fresh_stamp(disk) is not None:
        # It is the only one there is. Until the sync below one of the two names is there, so none is needed here.
        disk.rename(_FRESH, STAMP)
    disk.remove(_FRESH)
    try:
        disk.write_file(_FRESH, content, Attributes(mode=0o600))
        disk.sync_file(_FRESH)
    except OSError:
        with suppress(OSError):
            discard_unfinished(disk)
        raise
    disk.remove(STAMP)
    disk.rename(_FRESH, STAMP)
    disk.sync_directory(ENGINE_FOLDER)
