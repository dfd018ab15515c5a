"""Walks the declared slots through `Disk` into an inventory. Looks only; bounded by what the slots declare."""

from __future__ import annotations

import errno
import os
import re
from fnmatch import fnmatchcase
from sys import intern
from types import MappingProxyType
from typing import TYPE_CHECKING

from upgradeconverter.model.entry import Document, Entry, Inventory, Item, Kind
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.model.layout import Part, Slot

# What is wrong with a document that is not there, or cannot be.
MISSING, LOCKED = "missing", "locked"
_SHORT = 8
# Bytes that a probe gets at once, at most.
_MOST = 1 << 20
# No file has anything behind that (off_t).
_FARTHEST = (1 << 63) - _MOST
_NO_GISTS: Mapping[str, object] = MappingProxyType({})


def scan(disk: Disk, slots: Iterable[Slot]) -> tuple[Inventory, tuple[Skip, ...]]:
    """Return what lies in the slots, and a skip for every entry that no rule recognises (D8)."""
    items: list[Item] = []
    strangers: list[tuple[str, Entry]] = []
    skips: list[Skip] = []
    for slot in {slot.name: slot for slot in slots}.values():
        for entry in (entry for place in places(disk, slot) for entry in _listed(disk, slot, place, skips)):
            item = _recognise(disk, slot, entry)
            if isinstance(item, Item):
                items.append(item)
            elif not (slot.shared and item.reason is Reason.NAME_NOT_RECOGNISED):
                strangers.append((slot.name, entry))
                skips.append(item)
    ordered = tuple(sorted(items, key=lambda item: os.fsencode(item.path)))
    return Inventory(items=ordered, strangers=tuple(strangers)), tuple(dict.fromkeys(skips))


def places(disk: Disk, slot: Slot) -> tuple[str, ...]:
    """Return the directories that a slot stands for: the one that it names, or all that there are of those."""
    found = [""]
    for part in slot.directory.split("/"):
        if "*" not in part:
            found = [f"{above}/{part}" if above else part for above in found]
            continue
        found = [entry.path for above in found for entry in _folders(disk, above) if fnmatchcase(entry.name, part)]
    return tuple(found)


def _folders(disk: Disk, path: str) -> list[Entry]:
    try:
        entry = disk.find(path)
        inside = disk.entries(path) if entry is not None and entry.kind is Kind.DIRECTORY else ()
    except OSError:
        # Who lists what lies there tells of it.
        return []
    return [each for each in inside if each.kind is Kind.DIRECTORY]


def _listed(disk: Disk, slot: Slot, place: str, skips: list[Skip]) -> tuple[Entry, ...]:
    """Return what lies in a slot's directory; one that cannot be listed is a skip, and no reason to leave the others (D10)."""
    try:
        way = _way(disk, place)
        if way is None:
            return ()
        if _is_locked(disk, way.path):
            skips.append(Skip(path=way.path, reason=Reason.VAULT_LOCKED, detail="it is encrypted, and its key is not there"))
            return ()
        if slot.whole and way.path == place and (way.kind is Kind.DIRECTORY or slot.kind is None):
            return (way,)
        if way.kind is Kind.DIRECTORY:
            return disk.entries(place, labels=slot.labels)
        if slot.shared:
            return ()
        skip = Skip(path=way.path, reason=Reason.NOT_A_DIRECTORY, detail=f"found a {way.kind.value}")
    except OSError as error:
        skip = Skip(path=place, reason=Reason.DISK_FAILED, detail=error.strerror or str(error))
    skips.append(skip)
    return ()


def _way(disk: Disk, path: str) -> Entry | None:
    """Return what lies at a path, or the first thing on the way there that is no directory, or is locked; None for nothing."""
    parts = path.split("/")
    entry = None
    for length in range(1, len(parts) + 1):
        entry = disk.find("/".join(parts[:length]))
        if entry is None or entry.kind is not Kind.DIRECTORY or _is_locked(disk, entry.path):
            break
    return entry


def _is_locked(disk: Disk, path: str) -> bool:
    """Return whether names below a directory only look absent, since they are encrypted and the key is not there."""
    return disk.vault_state(path) == "locked"


def _recognise(disk: Disk, slot: Slot, entry: Entry) -> Item | Skip:
    if slot.whole:
        return Item(slot=slot.name, entry=entry, keys={})
    match = re.fullmatch(slot.pattern, entry.name) if slot.pattern is not None else None
    if match is None:
        return Skip(path=entry.path, reason=Reason.NAME_NOT_RECOGNISED, detail=f"not a name of slot {slot.name}")
    if entry.kind not in slot.kinds:
        reason = Reason.NOT_A_DIRECTORY if slot.kind is Kind.DIRECTORY else Reason.NOT_A_REGULAR_FILE
        return Skip(path=entry.path, reason=reason, detail=f"found a {entry.kind.value}")
    try:
        children = disk.entries(entry.path) if slot.children and entry.kind is Kind.DIRECTORY else ()
        files = [each.path for each in (entry, *children) if each.kind is Kind.FILE] if slot.probe is not None else []
        gists = {path: slot.probe(_parts_of(disk, path)) for path in files} if slot.probe and files else _NO_GISTS
        used_by = disk.used_by(entry.path) if slot.marks else ""
    except OSError as error:
        return Skip(path=entry.path, reason=Reason.DISK_FAILED, detail=error.strerror or str(error))
    # Formats and counters are the same few words everywhere.
    keys = {
        name: value if len(value) > _SHORT else intern(value) for name, value in match.groupdict().items() if value is not None
    }
    return Item(slot=slot.name, entry=entry, keys=keys, children=children, gists=gists, used_by=used_by)


def _parts_of(disk: Disk, path: str) -> Part:
    def part(start: int, size: int) -> bytes:
        return disk.part(path, start, min(size, _MOST)) if 0 <= start < _FARTHEST and size > 0 else b""

    return part


def read_document(disk: Disk, path: str, limit: int) -> Document:
    """Read one small input file; what is wrong with it becomes part of the document, never an error."""
    entry = disk.find(path)
    if entry is None:
        way = _way(disk, path)
        locked = way is not None and _is_locked(disk, way.path)
        return Document(path=path, content=None, problem=LOCKED if locked else MISSING)
    if entry.kind is not Kind.FILE:
        return Document(path=path, content=None, problem=f"a {entry.kind.value}, not a regular file")
    try:
        return Document(path=path, content=disk.read(path, limit), mtime_ns=entry.mtime_ns)
    except OSError as error:
        problem = f"larger than {limit} bytes" if error.errno == errno.EFBIG else error.strerror or str(error)
        return Document(path=path, content=None, problem=problem)


def read_folder(disk: Disk, path: str, limit: int) -> tuple[Document, ...]:
    """Read every entry directly in a directory as a document; nothing there gives none."""
    entry = disk.find(path)
    if entry is None or entry.kind is not Kind.DIRECTORY:
        return ()
    return tuple(read_document(disk, inner.path, limit) for inner in disk.entries(path))
