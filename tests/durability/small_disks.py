"""The small disks that the sweeps convert: as few entries as reach every operation and every shape of a step. Needs root.

A vault is a plain directory, a mount of its own (`bound`, so that everything that goes there has to be copied), or behind a real
key (`fscrypt`). Mounts are made in the caller's mount namespace, which should be its own.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.durability.packs.everything import EMPTY
from tests.powercut.oracle import moves_of
from tests.support import vaults
from tests.support.cases import load_cases
from tests.support.disktree import Tree, build

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKS = Path(__file__).resolve().parent / "packs"
SET_ASIDE = ""
VAULTS = ("plain", "bound", "fscrypt")
_LONG_AGO = 1_594_000_000_000_000_000
_MIB = 1 << 20
_LESS_LONG_AGO = 1_595_000_000_000_000_000
_MS_BIND, _MS_REMOUNT, _MNT_DETACH = 4096, 32, 2
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """One disk.

    Attributes:
        moves: old and new name of each artifact; `SET_ASIDE` as the new one where it fails the digest in its name.
        words: what names pack and target to the program.
        comes_back: whether a rollback gives all that was; a file that nobody needs any more is gone for good.
        looks: in which stories calls that only look fail too, by the end of their names.
        recovered: whether there are stories that begin with a start which died.
        stories: the only ones that are told of it; all when there are none.
        room: bytes that are free on a file system of its own, in memory; 0 for a disk with as much as it likes.
        rewritten: files of which somebody makes a new version while a trial waits, with its text; under their new names it is
            the new system, whose version is never lost.
    """

    name: str
    tree: Tree
    moves: tuple[tuple[str, str], ...]
    vault: str
    words: tuple[str, ...] = ("--target", "latest")
    comes_back: bool = True
    looks: tuple[str, ...] = ()
    recovered: bool = False
    rewritten: tuple[tuple[str, str], ...] = ()
    stories: tuple[str, ...] = ()
    room: int = 0


def _entry(path: str, kind: str, **members: Any) -> dict[str, Any]:
    mode = "0755" if kind == "directory" else "0777" if kind == "symlink" else "0640"
    return {"path": path, "kind": kind, "mode": mode, "mtime": _LONG_AGO, **members}


def _folder(path: str, **members: Any) -> dict[str, Any]:
    return _entry(path, "directory", **members)


def _file(path: str, text: str, **members: Any) -> dict[str, Any]:
    return _entry(path, "file", size=len(text), data=[[0, "text", text]] if text else [], **members)


def _everything(*more: dict[str, Any]) -> Tree:
    sparse = _file("old/tree/sub/sparse", "x")
    sparse |= {"size": 1 << 20, "data": [[1 << 19, "text", "in the middle of a hole"]]}
    entries = (
        _folder(""),
        _folder("vault", mode="0700"),
        _folder("vault/new", mode="0700"),
        _folder("old"),
        _file("old/file", "a file", owner="1000:1000", xattrs={"user.vital": "eA=="}),
        _folder("old/tree", owner="7:8"),
        _folder("old/tree/sub", mode="2770"),
        _file("old/tree/sub/one", "two names", mode="4755"),
        _entry("old/tree/sub/other", "file", link="old/tree/sub/one"),
        sparse,
        _entry("old/tree/pipe", "fifo"),
        _entry("old/tree/link", "symlink", to="/etc"),
        _file("old/twin", "the same under both names", mode="0600"),
        _file("vault/new/twin", "the same under both names", mode="0600"),
        _file("old/near", "stays in its domain"),
        _folder("old/grove"),
        _file("old/grove/leaf", "in a tree that stays in its domain"),
        _file("old/kept", "is copied and stays"),
        _file("old/settings", "old settings"),
        _folder("old/relocated"),
        _file("old/relocated/inside", "is found by a link"),
        _folder("plain", mode="0700"),
        _file("plain/inplace", "old settings"),
        _file("old/adjusted", "gets another mode", mode="0600"),
        _folder("emptied"),
        _folder("emptied/one"),
        _folder("claims"),
        _folder("claims/right"),
        _file(f"claims/right/{EMPTY}", ""),
        _folder("claims/wrong"),
        _file(f"claims/wrong/{EMPTY}", "not what it says"),
        *more,
    )
    return {entry["path"]: entry for entry in entries}


def _large(path: str, *extents: tuple[int, int], size: int) -> dict[str, Any]:
    """Return a file with filler at some offsets, of so many bytes each."""
    data = [[offset, "shake256", f"{path} {offset}:{length}"] for offset, length in extents]
    return _entry(path, "file", size=size, data=data, owner="7:8")


def _large_things() -> Tree:
    """Return a disk with a file and a tree, of each of which there is no room for a copy, and little that is small."""
    entries = (
        _folder(""),
        _folder("vault", mode="0700"),
        _folder("vault/new", mode="0700"),
        _folder("old"),
        # Their ends are no ends of chunks, and in each chunk that is behind a hole there is something.
        _large("old/file", (0, _MIB + 4096), (_MIB + 8192, _MIB + 300_000), size=2 * _MIB + 512 * 1024),
        _folder("old/tree", owner="7:8"),
        _large("old/tree/first", (0, _MIB + 200_005), size=_MIB + 200_005),
        _file("old/tree/second", "two names", mode="4755", xattrs={"user.vital": "eA=="}),
        _entry("old/tree/third", "file", link="old/tree/second"),
        _folder("old/tree/sub"),
        _file("old/tree/sub/empty", ""),
        _large("old/tree/sub/large", (4096, _MIB), size=_MIB + 8192),
        _entry("old/tree/sub/link", "symlink", to="/etc"),
        _file("old/tree/sub/small", "short"),
    )
    return {entry["path"]: entry for entry in entries}


_MOVES = (
    ("old/file", "vault/new/file"),
    ("old/tree", "vault/new/tree"),
    ("old/twin", "vault/new/twin"),
    ("old/near", "plain/near"),
    ("old/grove", "plain/grove"),
    ("old/kept", "vault/new/copied"),
    (f"claims/right/{EMPTY}", "vault/new/right"),
    (f"claims/wrong/{EMPTY}", SET_ASIDE),
)
_WORDS = ("--pack", "everything", "--target", "latest")
_REWRITTEN = (
    ("old/file", "what the old system made of a file"),
    ("vault/new/file", "what the new system made of the same file"),
    ("old/tree/sub/one", "what the old system made of a file in a tree"),
)


_ALL_STORIES = ("run", "trial", "confirm", "rollback")


@cache
def small_disks() -> dict[str, SmallDisk]:
    """Return all small disks by name."""
    unneeded = _file("old/unneeded", "nobody needs it")
    case = next(case for case in load_cases("eve") if case.name == "multi_drive_app")
    rayos = next(case for case in load_cases("rayos") if case.name == "no_compat")
    disks = (
        SmallDisk(
            "everything bound", _everything(), _MOVES, "bound", _WORDS, looks=_ALL_STORIES, recovered=True, rewritten=_REWRITTEN
        ),
        SmallDisk("everything fscrypt", _everything(), _MOVES, "fscrypt", _WORDS, rewritten=_REWRITTEN),
        SmallDisk("everything plain", _everything(unneeded), _MOVES, "plain", _WORDS, comes_back=False),
        SmallDisk("multi_drive_app plain", case.tree, moves_of(case), "plain", looks=("run",)),
        SmallDisk("rayos plain", rayos.tree, moves_of(rayos), "plain", ("--pack", "rayos", "--no-compat", "--target", "latest")),
        # Of that a MiB is never planned with; the rest is twice the smallest piece, and a little.
        SmallDisk(
            "large things full",
            _large_things(),
            _MOVES[:2],
            "bound",
            _WORDS,
            looks=("run", "rollback"),
            recovered=True,
            stories=("run", "rollback"),
            room=3 * _MIB + 96 * 1024,
        ),
    )
    return {disk.name: disk for disk in disks}


def rewrite(disk: SmallDisk, top: str) -> None:
    """Make the new versions of the files of a disk that are there, as those do whose disk it is."""
    for name, text in disk.rewritten:
        path = Path(top, name)
        if path.exists():
            path.write_text(text, encoding="utf-8")
            os.utime(path, ns=(_LESS_LONG_AGO, _LESS_LONG_AGO))


# --- places --------------------------------------------------------------------------------------------------------------


def own_mounts() -> None:
    """Let all that this process mounts from now on be seen by it and its children only, and go away with them."""
    _call(_libc.unshare, _CLONE_NEWNS)
    _call(_libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@dataclass(slots=True)
class Place:
    """Where small disks are made: a folder in memory for plain and bound vaults, an ext4 with a key for real ones."""

    memory: Path
    encrypted: Path
    identifier: bytes
    number: int = 0

    @contextmanager
    def disk(self, disk: SmallDisk) -> Iterator[str]:
        """Make a disk; yields its root."""
        self.number += 1
        folder = (self.encrypted if disk.vault == "fscrypt" else self.memory) / str(self.number)
        vault = folder / "persist/vault"
        folder.mkdir()
        try:
            if disk.room:
                _call(_libc.mount, b"tmpfs", os.fsencode(folder), b"tmpfs", 0, None)
            vault.mkdir(parents=True)
            if disk.vault == "fscrypt":
                vaults.encrypt(str(vault), self.identifier)
            build(disk.tree, str(folder / "persist"))
            if disk.vault == "bound":
                _call(_libc.mount, os.fsencode(vault), os.fsencode(vault), None, _MS_BIND, None)
            if disk.room:
                _leave_free(folder, disk.room)
            yield str(folder / "persist")
        finally:
            if disk.vault == "bound":
                _libc.umount2(os.fsencode(vault), _MNT_DETACH)
            if disk.room:
                _libc.umount2(os.fsencode(folder), _MNT_DETACH)
            shutil.rmtree(folder)


def _leave_free(folder: Path, room: int) -> None:
    """Make a file system in memory as small as leaves so many bytes."""
    facts = os.statvfs(folder)
    size = (facts.f_blocks - facts.f_bfree) * facts.f_frsize + room
    _call(_libc.mount, b"tmpfs", os.fsencode(folder), b"tmpfs", _MS_REMOUNT, f"size={size}".encode())


@contextmanager
def place_in(scratch: Path, *, encrypted: bool) -> Iterator[Place]:
    """Make a place in a folder that lies in memory; the encrypted part only where it is wanted."""
    memory = scratch / "memory"
    memory.mkdir()
    if not encrypted:
        yield Place(memory, memory, b"")
        return
    with vaults.mounted(str(scratch / "image"), str(scratch / "encrypted")) as top:
        yield Place(memory, Path(top), vaults.add_key(top))
