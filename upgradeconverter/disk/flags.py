"""Inode flags (chattr(1)) and quota projects: which there are, what of it a file system can keep, and carrying it over.

Only regular files and directories have them here: to ask anything else it would have to be opened.
"""

from __future__ import annotations

import os

from msgspec import Struct

from upgradeconverter.disk import native

# By bit, the letters of chattr(1), of what somebody can have set; `linux/fs.h`.
LETTERS = {
    0x1: "s",
    0x2: "u",
    0x4: "c",
    0x8: "S",
    0x10: "i",
    0x20: "a",
    0x40: "d",
    0x80: "A",
    0x400: "m",
    0x4000: "j",
    0x8000: "t",
    0x10000: "D",
    0x20000: "T",
    0x100000: "V",
    0x800000: "C",
    0x2000000: "x",
    0x20000000: "P",
    0x40000000: "F",
}
_NO_COPY_ON_WRITE = 0x800000
_FIXED = 0x10 | 0x20
# By magic number of the file system, what can be set there (fileattr_set of Linux 6.18). Flags that change how content is kept
# (verity, case folding, direct access) are none of them: content is copied, not its form.
_EXT = 0xEF53
_XFS = 0x58465342
_KEPT = {
    _EXT: "sucSiadAtDT",
    _XFS: "SiadA",
    0x9123683E: "cSiadAmDC",
    0xF2F52010: "cSiadAmD",
    0x01021994: "iadA",
}
# Reserved space, extent sizes and real-time devices are hints of xfs for itself; the rest of `fsx_xflags` is in `LETTERS` too.
_HINTS = 0x100 | 0x400 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x10000


def kept(fd: int) -> str:
    """Return the letters of the flags that can be set on the file system of a descriptor."""
    return _KEPT.get(native.filesystem_type(fd), "")


def keeps_any_project(fd: int) -> bool:
    """Return whether the file system of a descriptor surely takes quota projects: ext4 does so only when it was made for it."""
    return native.filesystem_type(fd) == _XFS


def longest_link(fd: int, *, encrypted: bool) -> int:
    """Return how many bytes the destination of a symbolic link can have on the file system of a descriptor.

    ext4 keeps it with a NUL in one block, fscrypt with two bytes more (`fscrypt_symlink_data`); xfs has a limit of its own.
    """
    kind = native.filesystem_type(fd)
    if kind == _EXT:
        return min(os.fstatvfs(fd).f_frsize, 4096) - (3 if encrypted else 1)
    return 1023 if kind == _XFS else 4095


def letters(flags: int) -> str:
    """Return the letters of flags."""
    return "".join(letter for bit, letter in LETTERS.items() if flags & bit)


def has_hints(extended: int) -> bool:
    """Return whether extended flags say more than can be said by letters."""
    return bool(extended & _HINTS)


class Carrier(Struct, frozen=True):
    """Carries flags and projects over from one directory's file system to another's."""

    bits: int
    projects: bool

    @classmethod
    def between(cls, source_fd: int, target_fd: int) -> Carrier:
        """Return what carries over whatever the target's file system keeps."""
        there = kept(target_fd)
        # A directory that hands on its project takes nothing of another one.
        own = native.inherited_project(target_fd) is not None
        same = os.fstat(source_fd).st_dev == os.fstat(target_fd).st_dev
        projects = not own and (same or keeps_any_project(target_fd))
        return cls(sum(bit for bit, letter in LETTERS.items() if letter in there), projects)

    def prepare(self, source_fd: int, target_fd: int) -> None:
        """Carry over, to a file that is still empty, what can be set only then: not to copy on write (btrfs(5))."""
        if self.bits & _NO_COPY_ON_WRITE:
            self._set(source_fd, target_fd, _NO_COPY_ON_WRITE)

    def finish(self, source_fd: int, target_fd: int) -> int:
        """Carry over, to what is complete, everything but what forbids changes, which is returned: see `fix`.

        From now on writes may be slow.
        """
        flags = self._set(source_fd, target_fd, self.bits & ~_FIXED) if self.bits else 0
        if self.projects:
            extended, project = native.extended_flags(source_fd)
            handed_on = bool(extended & native.PROJECT_IS_INHERITED)
            # What was made in a directory that hands nothing on has none either.
            if (handed_on or project) and (handed_on, project) != (
                native.inherited_project(target_fd) is not None,
                native.extended_flags(target_fd)[1],
            ):
                native.set_project(target_fd, project, handed_on=handed_on)
        return flags & self.bits & _FIXED

    @staticmethod
    def fix(target_fd: int, fixed: int) -> None:
        """Set flags that forbid changes, after which nothing can be set any more."""
        if fixed:
            native.set_inode_flags(target_fd, native.inode_flags(target_fd) | fixed)

    @staticmethod
    def _set(source_fd: int, target_fd: int, bits: int) -> int:
        flags, there = native.inode_flags(source_fd), native.inode_flags(target_fd)
        wanted = flags & bits
        if wanted != there & bits:
            native.set_inode_flags(target_fd, there & ~bits | wanted)
        return flags
