"""What the beginning of a disk image, and its list of snapshots, tell of it. Pure.

Sources: Linux, `fs/ext4/ext4.h` (superblock); QEMU, `docs/interop/qcow2.txt` (header and snapshot table), version 2 and 3.
"""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from upgradeconverter.packs.api import Part

RAW, QCOW2 = "raw", "qcow2"
_QCOW2_MAGIC, _EXT4_MAGIC = b"QFI\xfb", b"\x53\xef"
_HEADER, _SUPERBLOCK, _SUPERBLOCK_AT = 104, 1024, 1024
_ENTRY = 40
# More than anybody has, so that a damaged table costs little.
_MOST_SNAPSHOTS, _LONGEST_NAME = 1024, 1023


class Image(Struct, frozen=True, kw_only=True):
    """A disk image.

    Attributes:
        format: `raw` or `qcow2`.
        filesystem: `ext4` where the image is one as a whole, else empty; `label` and `volume` are its name and UUID.
        size: bytes that the guest sees; 0 for the size of the file.
        backing: the file that it only differs from, which it names as seen from its own directory.
        snapshots: names and identities of those inside.
        problem: why it cannot be what its first bytes say.
    """

    format: str = RAW
    filesystem: str = ""
    label: str = ""
    volume: str = ""
    size: int = 0
    backing: str = ""
    snapshots: tuple[str, ...] = ()
    problem: str = ""

    @classmethod
    def of_file(cls, part: Part) -> Image:
        """Return what a file tells."""
        head = part(0, _SUPERBLOCK_AT + _SUPERBLOCK)
        if head.startswith(_QCOW2_MAGIC):
            return _qcow2(head, part)
        block = head[_SUPERBLOCK_AT:]
        if block[56:58] != _EXT4_MAGIC or len(block) < _SUPERBLOCK:
            return cls()
        label = block[120:136].rstrip(b"\0").decode("utf-8", "replace")
        return cls(filesystem="ext4", label=label, volume=str(uuid.UUID(bytes=block[104:120])))


def _qcow2(head: bytes, part: Part) -> Image:
    if len(head) < _HEADER:
        return Image(format=QCOW2, problem="its header is cut off")
    version, backing_at, backing_size, _, size = struct.unpack(">IQIIQ", head[4:32])
    count, table = struct.unpack(">IQ", head[60:72])
    if version not in (2, 3) or count > _MOST_SNAPSHOTS or backing_size > _LONGEST_NAME:
        return Image(format=QCOW2, problem="its header says what no qcow2 can have")
    backing = part(backing_at, backing_size).decode("utf-8", "replace") if backing_at else ""
    return Image(format=QCOW2, size=size, backing=backing, snapshots=_snapshots(count, table, part))


def _snapshots(count: int, table: int, part: Part) -> tuple[str, ...]:
    found: list[str] = []
    for _ in range(count):
        entry = part(table, _ENTRY)
        if len(entry) < _ENTRY:
            break
        id_size, name_size = struct.unpack(">HH", entry[12:16])
        extra = struct.unpack(">I", entry[36:40])[0]
        words = part(table + _ENTRY + extra, id_size + name_size)
        found += [words[:id_size].decode("utf-8", "replace"), words[id_size:].decode("utf-8", "replace")]
        # Each begins at a multiple of eight bytes.
        table += (_ENTRY + extra + id_size + name_size + 7) // 8 * 8
    return tuple(dict.fromkeys(name for name in found if name))
