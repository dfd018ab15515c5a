"""The file systems that a case is tried on, each in a file on a loop device. Needs root.

Nothing stays behind: what is mounted here is unmounted on the way out, also by an interruption; the command line puts all of it
into a mount namespace of its own (see `__main__`), so that even a killed run leaves no mount and no loop device.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support import vaults

from .cases import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# xfs refuses less.
_SMALLEST = 512 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A file system and what the vault is on it."""

    name: str
    about: str
    kind: str
    vault: str


GROUNDS = {
    each.name: each
    for each in (
        Ground(name="vault", about="ext4, the vault behind a real fscrypt key", kind="ext4", vault="fscrypt"),
        Ground(name="plain", about="ext4, the vault a plain directory", kind="ext4", vault="directory"),
        Ground(name="xfs", about="xfs with reflinks, the vault a plain directory", kind="xfs", vault="directory"),
        Ground(name="btrfs", about="btrfs, the vault a subvolume: only reflinks go there", kind="btrfs", vault="subvolume"),
    )
}


def make(image: Path, ground: Ground, *, room: int, files: int) -> None:
    """Make an empty file system with room for so many bytes and files; the image takes only what is written."""
    with open(image, "wb") as stream:
        stream.truncate(max(_SMALLEST, room))
    inodes = ("-N", str(files + 20_000)) if ground.kind == "ext4" else ()
    subprocess.run([*vaults.MAKERS[ground.kind], *inodes, str(image)], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def mounted(image: Path, place: Path, ground: Ground) -> Iterator[Path]:
    """Mount a file system, with its vault unlocked, and yield the root of the device: a folder, with room beside it."""
    place.mkdir(exist_ok=True)
    # No thread that fills in what mkfs has left out, while others are measured.
    options = "loop,noinit_itable" if ground.kind == "ext4" else "loop"
    try:
        # Who is told to stop just now has it mounted, perhaps, without having seen that.
        subprocess.run(["mount", "-o", options, str(image), str(place)], check=True)
        root = place / "persist"
        identifier = vaults.add_key(str(place)) if ground.vault == "fscrypt" else b""
        if not root.exists():
            root.mkdir()
            _make_vault(root / "vault", ground, identifier)
        yield root
    finally:
        if os.path.ismount(place):
            _unmount(place)


def _make_vault(vault: Path, ground: Ground, identifier: bytes) -> None:
    if ground.vault == "subvolume":
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(vault)], check=True)
    else:
        vault.mkdir()
    vault.chmod(0o700)
    if ground.vault == "fscrypt":
        vaults.encrypt(str(vault), identifier)


def _unmount(place: Path) -> None:
    if subprocess.run(["umount", str(place)], check=False, stderr=subprocess.DEVNULL).returncode:
        subprocess.run(["umount", "-l", str(place)], check=True)
    place.rmdir()


def throw_out(image: Path) -> None:
    """Make a file durable and throw it out of the page cache: what is mounted from it next begins cold."""
    fd = os.open(image, os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def duplicate(template: Path, image: Path) -> None:
    """Copy an image with its holes, so that every way begins with the same disk, laid out in the same way."""
    subprocess.run(["cp", "--sparse=auto", str(template), str(image)], check=True)
    throw_out(template)
    throw_out(image)


def leave_free(root: Path, free: int) -> None:
    """Occupy what is free on an ext4 file system, outside of the device's root, but for about so many bytes."""
    ballast = root.parent / "ballast"
    with open(ballast, "wb") as stream:
        for step in (MIB, 4096):
            space = os.statvfs(root)
            excess = (space.f_bavail * space.f_frsize - free) // step * step
            if excess > 0:
                os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, excess)
        os.fsync(stream.fileno())
