"""Which partitions the image of a disk has: GUID partition table, and the labels of what lies in them. Pure.

Sources: UEFI specification 2.10, sections 5.3.2 and 5.3.3 (header, entries); Microsoft, "FAT: General Overview" (label of FAT32);
Linux, `fs/ext4/ext4.h`.
"""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from upgradeconverter.packs.api import Part

ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_SECTORS, _HEADER = (512, 4096), 92
_MOST_ENTRIES, _LARGEST_ENTRY, _LEAST_ENTRY = 256, 1024, 128
_NOTHING = uuid.UUID(int=0)


class Partition(Struct, frozen=True, kw_only=True):
    """One partition: its type, its own name, what lies in it, and how many bytes it has."""

    type: str
    name: str
    filesystem: str
    label: str
    size: int


class Table(Struct, frozen=True, kw_only=True):
    """The partitions of an image, or why there are none."""

    partitions: tuple[Partition, ...] = ()
    problem: str = ""

    @classmethod
    def of_file(cls, part: Part) -> Table:
        """Return what a file tells."""
        sector = next((size for size in _SECTORS if part(size, 8) == b"EFI PART"), 0)
        if not sector:
            return cls(problem="expected a GUID partition table, found none")
        header = part(sector, _HEADER)
        if len(header) < _HEADER:
            return cls(problem="its partition table is cut off")
        first, count, size = struct.unpack("<QII", header[72:88])
        if count > _MOST_ENTRIES or not _LEAST_ENTRY <= size <= _LARGEST_ENTRY:
            return cls(problem="its partition table says what none can have")
        entries = (part(first * sector + number * size, size) for number in range(count))
        return cls(partitions=tuple(_partition(entry, sector, part) for entry in entries if entry[:16].strip(b"\0")))


def _partition(entry: bytes, sector: int, part: Part) -> Partition:
    first, last = struct.unpack("<QQ", entry[32:48])
    filesystem, label = _filesystem(first * sector, part)
    return Partition(
        type=str(uuid.UUID(bytes_le=entry[:16])),
        name=entry[56:128].decode("utf-16-le", "replace").rstrip("\0"),
        filesystem=filesystem,
        label=label,
        size=(last - first + 1) * sector,
    )


def _filesystem(start: int, part: Part) -> tuple[str, str]:
    boot = part(start, 512)
    if boot[82:87] == b"FAT32":
        return "fat32", boot[71:82].decode("ascii", "replace").rstrip()
    if boot[:4] == b"hsqs":
        return "squashfs", ""
    block = part(start + 1024, 256)
    if block[56:58] == b"\x53\xef":
        return "ext4", block[120:136].rstrip(b"\0").decode("utf-8", "replace")
    return "", ""
