"""Does the target layout hold? Compares what is declared with what lies there; changes nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from upgradeconverter.model.entry import Kind

if TYPE_CHECKING:
    from upgradeconverter.engine.session import Session
    from upgradeconverter.model.entry import Entry
    from upgradeconverter.model.layout import Slot


def deviations(session: Session, *, deep: bool = False) -> tuple[str, ...]:
    """Return every deviation from the target layout as one sentence; `deep` also reads files whose name is their digest."""
    found: list[str] = []
    if session.pack.vault is not None and session.disk.vault_state(session.pack.vault) == "locked":
        return (f"{session.pack.vault}: locked, so nothing behind it can be verified",)
    for slot in session.layout().slots:
        entry = session.disk.find(slot.directory)
        if entry is None:
            continue
        if entry.kind is not Kind.DIRECTORY:
            found.append(f"{slot.directory}: expected a directory, found a {entry.kind.value}")
            continue
        found += _check_attributes(session, slot, entry)
        if slot.entry_mode is not None:
            for inner in session.disk.entries(slot.directory):
                found += _check_entry(session, slot, inner, deep=deep)
    return tuple(found)


def _check_attributes(session: Session, slot: Slot, entry: Entry) -> list[str]:
    owner = session.agents.get(slot.owner, (0, 0))
    found = []
    if entry.mode & 0o022:
        found.append(f"{slot.directory}: writable by others than {slot.owner} (mode {entry.mode:04o}, expected {slot.mode:04o})")
    if (entry.uid, entry.gid) != owner:
        found.append(f"{slot.directory}: expected owner {owner[0]}:{owner[1]} ({slot.owner}), found {entry.uid}:{entry.gid}")
    return found


def _check_entry(session: Session, slot: Slot, entry: Entry, *, deep: bool) -> list[str]:
    found = []
    if entry.kind is Kind.FILE and entry.mode & ~(slot.entry_mode or 0) & 0o222:
        found.append(f"{entry.path}: expected mode {slot.entry_mode or 0:04o}, found {entry.mode:04o}")
    if deep and entry.kind is Kind.FILE and re.fullmatch("[0-9a-f]{64}", entry.name):
        digest = session.disk.sha256(entry.path)
        if digest != entry.name:
            found.append(f"{entry.path}: expected the SHA-256 of its name, found {digest}")
    return found
