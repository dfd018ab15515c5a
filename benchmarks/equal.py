"""What counts as the same result: content, holes, modes, owners, extended attributes and times of all that was moved."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONTENT = frozenset({"kind", "size", "digest", "to"})
ATTRIBUTES = frozenset({"mode", "owner", "mtime_ns", "xattrs"})
HOLES = frozenset({"allocated"})
ALL = CONTENT | ATTRIBUTES | HOLES

_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)
# The engine's own mark on a volume, which nobody else sets.
_OURS = "user.upgradeconverter."
_SLACK = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What one entry is; `allocated` in bytes, `digest` that of the content wherever its holes are."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    xattrs: tuple[tuple[str, bytes], ...]
    size: int = 0
    allocated: int = 0
    digest: str = ""
    to: str = ""


Facts = dict[str, Fact]


def facts_of(path: str) -> Facts:
    """Return what a file or a tree is, by relative name, "" for itself; OSError where it cannot be read."""
    found: Facts = {"": _fact(path)}
    if stat.S_ISDIR(found[""].kind):
        for name in sorted(os.listdir(path)):
            inside = facts_of(f"{path}/{name}")
            found |= {f"{name}/{below}" if below else name: fact for below, fact in inside.items()}
    return found


def _fact(path: str) -> Fact:
    seen = os.lstat(path)
    kind = stat.S_IFMT(seen.st_mode)
    is_file = kind == stat.S_IFREG
    names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith(_OURS))
    return Fact(
        kind=kind,
        mode=stat.S_IMODE(seen.st_mode),
        owner=(seen.st_uid, seen.st_gid),
        mtime_ns=seen.st_mtime_ns,
        xattrs=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
        size=seen.st_size if is_file else 0,
        allocated=seen.st_blocks * 512 if is_file else 0,
        digest=digest_of(path) if is_file else "",
        to=os.readlink(path) if kind == stat.S_IFLNK else "",
    )


def digest_of(path: str) -> str:
    """Return a digest that is the same wherever the holes are: over each block that is not zero, and where it lies."""
    found = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as stream:
        for start, end in _data(stream.fileno()):
            for offset in range(start - start % _BLOCK, end, _BLOCK):
                block = os.pread(stream.fileno(), _BLOCK, offset)
                if block != _ZEROS[: len(block)]:
                    found.update(b"%d:" % offset)
                    found.update(block)
    return found.hexdigest()


def _data(fd: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has data, no block twice."""
    end = 0
    while True:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno == errno.ENXIO:
                return
            raise
        stop = os.lseek(fd, start, os.SEEK_HOLE)
        # A block that the stretch before has begun is read as a whole by that one.
        stop += -stop % _BLOCK
        yield start, stop
        end = stop


def differences(expected: Facts, found: Facts, keeps: frozenset[str]) -> Iterator[str]:
    """Yield in words how a result differs from what was there before, in what a way claims to keep."""
    for name in sorted(expected.keys() - found.keys()):
        if keeps >= ATTRIBUTES or not stat.S_ISLNK(expected[name].kind):
            yield f"{name or 'it'} is missing"
    for name in sorted(found.keys() - expected.keys()):
        yield f"{name or 'it'} is there too"
    for name in sorted(expected.keys() & found.keys()):
        for what in sorted(keeps - HOLES):
            wanted, got = getattr(expected[name], what), getattr(found[name], what)
            if wanted != got:
                yield f"{name or 'it'}: {what} is {got!r}, expected {wanted!r}"
    most = allocated(expected) * 101 // 100 + _SLACK
    if keeps >= HOLES and allocated(found) > most:
        yield f"{allocated(found)} bytes are allocated, expected at most {most}"


def allocated(facts: Mapping[str, Fact]) -> int:
    """Return the bytes that all files occupy."""
    return sum(fact.allocated for fact in facts.values())
