"""Old devices of any size, built from nothing but numbers: the same seed gives the same bytes.

A `Device` collects what its saved configuration has to say while volumes are added, and `finish` writes it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from migrations.eve import eve_pb2 as pb
from migrations.eve.media_types import LAYER, escaped

if TYPE_CHECKING:
    from collections.abc import Iterable

TARGET = "latest"
VOLUMES, VERIFIED, STORE = "vault/volumes", "vault/verifier/verified", "vault/containerd"
_TIMES = (1_594_000_000_000_000_000, 1_594_000_000_123_456_789)
_PIECE = 1 << 20
_DRIVES = 16
_IN_FOLDER = 250
# How a disk image begins, so that its media type is known.
_IMAGE = b"QFI\xfb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One file or tree of the old device, and where ours has to put it; both relative to the root."""

    source: str
    target: str


@dataclass(slots=True)
class Device:
    """A root with an old device in the making; the vault is there already."""

    root: str
    random: Random = field(default_factory=lambda: Random(5))  # noqa: S311 - filler that can be made again
    moved: list[Moved] = field(default_factory=list)
    _drives: list[pb.Drive] = field(default_factory=list)
    _volumes: list[str] = field(default_factory=list)

    def volume(self, size: int, extents: Iterable[tuple[int, int]], form: str = "raw") -> None:
        """Add a volume of a virtual machine, with data in (offset, length), and holes elsewhere."""
        name, target = self._claim(form.upper(), form)
        place = self._place(f"img/{name}.{form}")
        with open(place, "wb", buffering=0) as stream:
            for offset, length in extents:
                for start in range(offset, offset + length, _PIECE):
                    data = self.random.randbytes(min(_PIECE, offset + length - start))
                    os.pwrite(stream.fileno(), data, start)
            stream.truncate(size)
        self._dress(place, 0o644)
        self.moved.append(Moved(source=f"img/{name}.{form}", target=target))

    def container(self, files: int, size: int) -> None:
        """Add one container with so many files of about that size."""
        name, target = self._claim("CONTAINER", "container")
        self.moved.append(Moved(source=f"runx/pods/prepared/{name}", target=target))
        self._tree(self._place(f"runx/pods/prepared/{name}"), files, size)

    def store(self, files: int, size: int) -> None:
        """Add a containerd store with so many files of about that size."""
        self.moved.append(Moved(source="containerd", target=STORE))
        self._tree(self._place("containerd"), files, size)

    def verified(self, size: int) -> None:
        """Add one downloaded file that is named by its digest."""
        content = _IMAGE + self.random.randbytes(max(0, size - len(_IMAGE)))
        digest = hashlib.sha256(content).hexdigest()
        source = f"downloads/appImg.obj/verified/{digest}/{digest[:16]}.qcow2"
        place = self._place(source)
        with open(place, "wb") as stream:
            stream.write(content)
        self._dress(place, 0o400)
        self.moved.append(Moved(source=source, target=f"{VERIFIED}/{digest}.{escaped(LAYER)}"))

    def finish(self) -> None:
        """Write the saved configuration that names everything."""
        apps = [
            pb.AppInstanceConfig(
                uuidandversion=pb.UUIDandVersion(uuid=_uuid("a", start // _DRIVES)),
                drives=self._drives[start : start + _DRIVES],
                volumeRefList=[pb.VolumeRef(uuid=each) for each in self._volumes[start : start + _DRIVES]],
            )
            for start in range(0, len(self._drives), _DRIVES)
        ]
        config = pb.EdgeDevConfig(
            id=pb.UUIDandVersion(uuid=_uuid("d", 0)), apps=apps, volumes=[pb.Volume(uuid=each) for each in self._volumes]
        )
        with open(self._place("checkpoint/lastconfig"), "wb") as stream:
            stream.write(pb.ConfigResponse(config=config).SerializeToString())

    def _claim(self, form: str, ending: str) -> tuple[str, str]:
        """Let an application have one volume more; returns its old name without ending, and its new place."""
        number = len(self._drives)
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        self._drives.append(pb.Drive(image=pb.Image(sha256=digest, iformat=form)))
        self._volumes.append(_uuid("f", number))
        return f"{digest}-{_uuid('a', number // _DRIVES)}", f"{VOLUMES}/{_uuid('f', number)}#0.{ending}"

    def _place(self, path: str) -> str:
        place = f"{self.root}/{path}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        return place

    def _tree(self, top: str, files: int, size: int) -> None:
        """Files of many sizes, with what a container has: owners, links, an extended attribute here and there."""
        os.mkdir(top)
        folder = top
        for number in range(files):
            if number % _IN_FOLDER == 0:
                folder = f"{top}/rootfs-{number // _IN_FOLDER}/usr/lib"
                os.makedirs(folder)
                os.symlink("../lib", f"{folder}/link")
                # Long ago like all else: rsync takes times within one second for the same.
                os.utime(f"{folder}/link", ns=_TIMES, follow_symlinks=False)
            place = f"{folder}/file-{number}"
            with open(place, "wb", buffering=0) as stream:
                stream.write(self.random.randbytes(self.random.randrange(2 * size)))
            if number % 100 == 0:
                os.setxattr(place, "user.bench", b"%d" % number)
            self._dress(place, 0o755 if number % 7 else 0o640, owner=1000 if number % 3 else 0)
        for where, folders, _ in os.walk(top, topdown=False):
            for name in folders:
                self._dress(f"{where}/{name}", 0o755)
        self._dress(top, 0o755)

    @staticmethod
    def _dress(place: str, mode: int, owner: int = 0) -> None:
        os.chown(place, owner, owner)
        os.chmod(place, mode)
        os.utime(place, ns=_TIMES)


def _uuid(kind: str, number: int) -> str:
    return f"{kind * 8}-1111-4222-8333-{number:012x}"
