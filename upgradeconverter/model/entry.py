"""Facts about what lies on the disk. Times are nanoseconds since 1970, sizes are bytes, paths are relative to the root.

Paths are `str` made by `os.fsdecode`, so a name that is not UTF-8 survives; `""` is the root itself.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping

XATTR_PREFIX = "user.upgradeconverter."
OWNER_XATTR = XATTR_PREFIX + "owner"
FORMAT_XATTR = XATTR_PREFIX + "format"


class Kind(StrEnum):
    """What a directory entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER = "character device"
    BLOCK = "block device"


class Entry(Struct, frozen=True, kw_only=True):
    """What `lstat` and our own extended attributes tell of one path.

    Attributes:
        identity: inode number; with size and mtime it tells whether a file is still the one that was planned for.
        labels: our own xattrs, by name without `XATTR_PREFIX`; empty unless they were asked for.
        fixed: whether the immutable or append-only flag forbids to change it; None unless labels were asked for and it is known.
    """

    path: str
    kind: Kind
    size: int
    allocated: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    identity: int
    ctime_ns: int = 0
    links: int = 1
    fixed: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]


class Item(Struct, frozen=True, kw_only=True):
    """One entry of a slot: the entry, what its name says, and for directories what lies directly inside.

    Attributes:
        slot: name of the slot it was found in.
        keys: the named parts of the slot's pattern.
        children: entries directly inside, when the slot asks for them.
        gists: what the slot's probe tells of files among them, or of the entry itself, by path.
        used_by: who shows, by a slot's entry that marks a running program, that it runs; empty where it does not.
    """

    slot: str
    entry: Entry
    keys: Mapping[str, str]
    children: tuple[Entry, ...] = ()
    gists: Mapping[str, object] = field(default_factory=dict)
    used_by: str = ""

    @property
    def path(self) -> str:
        """Path relative to the root."""
        return self.entry.path


class SharedFile(Struct, frozen=True, kw_only=True):
    """A file that has names outside of what was walked.

    Attributes:
        identity: device and inode.
        inside: how many of its names were seen; `links`: how many it has.
    """

    identity: str
    inside: int
    links: int


class TreeFacts(Struct, frozen=True, kw_only=True):
    """What a walk over a file or tree tells, without reading content.

    Attributes:
        entries: number of files, directories and everything else, the top included; 0 of a directory that nobody looked into.
        size: sum of file sizes.
        allocated: sum of allocated bytes, hard links counted once.
        bare: those of them that belong to no file: directories, and links too long for an inode.
        fingerprint: digest over path, kind, size, mtime, mode, owner and inode of every entry, and over the ctime of all but
            the top, which a rename changes, and of what has other names.
        mounts: paths inside at which another file system is mounted.
        immutable: paths inside that carry the immutable or append-only flag.
        top_names: names directly inside, sorted.
        zones: directories inside with another encryption policy than the one that holds them.
        shared: files that have other names outside.
        longest_link: bytes of the longest destination of a symbolic link.
        fixed_inside: an immutable or append-only file inside that has several names, if there is one.
        flags: letters of all inode flags that are set on files and directories (chattr(1)).
        projects: quota projects other than 0 that they belong to.
        hints: whether some have hints for the file system's allocator, which have no letters.
        xattrs: extended attributes of theirs that the kernel does not let anybody set.

    The last five are known only after a close look.
    """

    entries: int
    size: int
    allocated: int
    fingerprint: str
    mounts: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    top_names: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    shared: tuple[SharedFile, ...] = ()
    longest_link: int = 0
    fixed_inside: str = ""
    flags: str = ""
    projects: tuple[int, ...] = ()
    hints: bool = False
    xattrs: tuple[str, ...] = ()
    bare: int = 0


class Domain(Struct, frozen=True, kw_only=True):
    """The part of the disk inside which `rename` works: one mount, one encryption policy, one quota project.

    Attributes:
        home: topmost directory of the domain, relative to the root; the engine's folder of the domain lies in it.
        key: comparable identity, e.g. mount, policy and project.
        encrypted: whether an encryption policy covers it.
        flags: letters of the inode flags that can be set there (chattr(1)).
        project: quota project that its home hands on to all that is made there.
        any_project: whether any project can be set there, also where nothing is known to have one.
        longest_link: bytes that the destination of a symbolic link can have there.
    """

    home: str
    key: str
    encrypted: bool = False
    flags: str = ""
    project: int | None = None
    any_project: bool = False
    longest_link: int = 4095


class Space(Struct, frozen=True, kw_only=True):
    """What is free on the file system of a domain."""

    filesystem: str
    free: int
    free_inodes: int
    block_size: int


class Document(Struct, frozen=True, kw_only=True):
    """One small input file as it was read: its bytes, or why there are none (`missing`, `locked`, `not a regular file`, ...).

    Attributes:
        mtime_ns: when it was last written to, as far as the clock was right then; 0 where there is none.
    """

    path: str
    content: bytes | None
    problem: str = ""
    mtime_ns: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of what was read."""
        return hashlib.sha256(self.content or b"").hexdigest()


class Inventory(Struct, frozen=True, kw_only=True):
    """Facts about everything found in the scanned slots.

    Attributes:
        items: what slots' patterns recognised, sorted by path.
        strangers: entries of the slots that no pattern recognised, with the slot's name.
    """

    items: tuple[Item, ...] = ()
    strangers: tuple[tuple[str, Entry], ...] = ()

    def in_slot(self, slot: str) -> tuple[Item, ...]:
        """Return the recognised items of one slot, sorted by path."""
        return tuple(item for item in self.items if item.slot == slot)
