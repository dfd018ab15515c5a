"""The cases whose state is moved, each by what is built. Sizes are for scale 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .devices import STORE, VERIFIED, VOLUMES, Device

if TYPE_CHECKING:
    from collections.abc import Callable

MIB, GIB = 1 << 20, 1 << 30
ALIGNED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One device.

    `apparent` and `files` are how large it is, `data` what of that is no hole (0 for all). `sources` and `into` are the work as
    rivals do it: entries of a folder of the root, or the folder itself, and where they go; `way` is that of Go's order of work.
    `free` bytes are left for ours, None for plenty.
    """

    name: str
    about: str
    build: Callable[[Device, float], None]
    apparent: int
    files: int
    sources: str
    into: str
    way: str = "copy"
    free: int | None = None
    data: int = 0

    def room(self, scale: float) -> int:
        """Return the bytes of a file system that holds everything twice, holes filled."""
        return round(self.apparent * scale * 2.2) + 256 * MIB

    def budget(self, scale: float) -> int:
        """Return the bytes that this may write: a disk, its duplicate, and in that a copy of all, holes filled."""
        return round((2 * (self.data or self.apparent) + self.apparent) * scale * 1.1) + 256 * MIB


def count(number: int, scale: float) -> int:
    """Return a number of things at a scale, at least one."""
    return max(1, round(number * scale))


def size(number: int, scale: float) -> int:
    """Return a size at a scale, whole blocks and at least one."""
    return max(ALIGNED, round(number * scale) // ALIGNED * ALIGNED)


def _full(device: Device, scale: float) -> None:
    device.volume(size(4 * GIB, scale), [(0, size(4 * GIB, scale))])


def _sparse(device: Device, scale: float) -> None:
    whole, pieces = size(20 * GIB, scale), 100
    step, length = whole // pieces // ALIGNED * ALIGNED, size(200 * MIB // pieces, scale)
    device.volume(whole, [(number * step, min(length, step)) for number in range(pieces)])


def _small_files(device: Device, scale: float) -> None:
    device.container(count(50_000, scale), 6 << 10)


def _volumes(device: Device, scale: float) -> None:
    for _ in range(count(200, scale)):
        device.volume(MIB, [(0, MIB)], "qcow2")


def _field(device: Device, scale: float) -> None:
    device.store(count(10_000, scale), 150_000)


def _blobs(device: Device, scale: float) -> None:
    for _ in range(count(2_000, scale)):
        device.verified(100 << 10)


_DOWNLOADS = "downloads/appImg.obj/verified/*/*"
MOVING = (
    Case(
        name="raw-full",
        about="one raw volume of 4 GiB, full",
        build=_full,
        apparent=4 * GIB,
        files=1,
        sources="img/*",
        into=VOLUMES,
    ),
    Case(
        name="raw-sparse",
        about="one raw volume of 20 GiB with 200 MiB of data in 100 places",
        build=_sparse,
        apparent=20 * GIB,
        data=200 * MIB,
        files=1,
        sources="img/*",
        into=VOLUMES,
    ),
    Case(
        name="small-files",
        about="one container with 50,000 files, 300 MB",
        build=_small_files,
        apparent=400 * MIB,
        files=50_000,
        sources="runx/pods/prepared/*",
        into=VOLUMES,
    ),
    Case(
        name="volumes",
        about="200 qcow2 volumes of 1 MiB",
        build=_volumes,
        apparent=200 * MIB,
        files=200,
        sources="img/*",
        into=VOLUMES,
    ),
    Case(
        name="field",
        about="a containerd store with 10,000 files, 1.5 GB: what once made an update fail",
        build=_field,
        apparent=1600 * MIB,
        files=10_000,
        sources="containerd",
        into=STORE.rpartition("/")[0],
        way="merge",
    ),
    Case(
        name="blobs",
        about="2,000 verified files of 100 KiB; ours compares each with the digest in its name, the others do not",
        build=_blobs,
        apparent=200 * MIB,
        files=2_000,
        sources=_DOWNLOADS,
        into=VERIFIED,
    ),
    Case(
        name="low-space",
        about="one raw volume of 4 GiB, full, and 64 MiB free for ours; the others have room for a copy",
        build=_full,
        apparent=4 * GIB,
        files=1,
        sources="img/*",
        into=VOLUMES,
        free=64 * MIB,
    ),
)
