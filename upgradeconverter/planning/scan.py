"""Walks the declared slots through `Disk` into an inventory. Looks only; bounded by what the slots declare."""

from __future__ import annotations

import errno
import os
import re
from sys import intern
from types import MappingProxyType
from typing import TYPE_CHECKING

from upgradeconverter.model.entry import Document, Entry, Inventory, Item, Kind
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.model.layout import Slot


# What is wrong with a document that is not there, or cannot be.
MISSING, LOCKED = "missing", "locked"
_SHORT = 8
_NO_GISTS: Mapping[str, object] = MappingProxyType({})


def scan(disk: Disk, slots: Iterable[Slot]) -> tuple[Inventory, tuple[Skip, ...]]:
    """Return what lies in the slots, and a skip for every entry that no rule recognises (D8)."""
    items: list[Item] = []
    strangers: list[tuple[str, Entry]] = []
    skips: list[Skip] = []
    for slot in {slot.name: slot for slot in slots}.values():
        for entry in _listed(disk, slot, skips):
            item = _recognise(disk, slot, entry)
            if isinstance(item, Item):
                items.append(item)
            else:
                strangers.append((slot.name, entry))
                skips.append(item)
    ordered = tuple(sorted(items, key=lambda item: os.fsencode(item.path)))
    return Inventory(items=ordered, strangers=tuple(strangers)), tuple(dict.fromkeys(skips))


def _listed(disk: Disk, slot: Slot, skips: list[Skip]) -> tuple[Entry, ...]:
    """Return what lies in a slot's directory; one that cannot be listed is a skip, and no reason to leave the others (D10)."""
    try:
        way = _way(disk, slot.directory)
        if way is None:
            return ()
        if _is_locked(disk, way.path):
            skips.append(Skip(path=way.path, reason=Reason.VAULT_LOCKED, detail="it is encrypted, and its key is not there"))
            return ()
        if slot.whole and way.path == slot.directory and (way.kind is Kind.DIRECTORY or slot.kind is None):
            return (way,)
        if way.kind is Kind.DIRECTORY:
            return disk.entries(slot.directory, labels=slot.labels)
        skip = Skip(path=way.path, reason=Reason.NOT_A_DIRECTORY, detail=f"found a {way.kind.value}")
    except OSError as error:
        skip = Skip(path=slot.directory, reason=Reason.DISK_FAILED, detail=error.strerror or str(error))
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
    wanted = (slot.kind,) if slot.kind is not None else (Kind.FILE, Kind.DIRECTORY)
    if entry.kind not in wanted:
        reason = Reason.NOT_A_DIRECTORY if slot.kind is Kind.DIRECTORY else Reason.NOT_A_REGULAR_FILE
        return Skip(path=entry.path, reason=reason, detail=f"found a {entry.kind.value}")
    try:
        children = disk.entries(entry.path) if slot.children and entry.kind is Kind.DIRECTORY else ()
        files = [each.path for each in (entry, *children) if each.kind is Kind.FILE] if slot.peek else []
        gists = {path: slot.gist(disk.head(path, slot.peek)) for path in files} if files else _NO_GISTS
    except OSError as error:
        return Skip(path=entry.path, reason=Reason.DISK_FAILED, detail=error.strerror or str(error))
    # Formats and counters are the same few words everywhere.
    keys = {
        name: value if len(value) > _SHORT else intern(value) for name, value in match.groupdict().items() if value is not None
    }
    return Item(slot=slot.name, entry=entry, keys=keys, children=children, gists=gists)


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
