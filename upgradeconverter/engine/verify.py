"""Does the target layout hold? Compares what is declared with what lies there; changes nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from upgradeconverter.engine.places import JOURNAL, QUARANTINE, WAITING, folder_of
from upgradeconverter.engine.recover import is_trial_lost
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.layout import Access, Zone, access
from upgradeconverter.model.plan import Shape
from upgradeconverter.planning.scan import places

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.engine.session import Session
    from upgradeconverter.journal.log import JournalView
    from upgradeconverter.model.entry import Entry
    from upgradeconverter.model.layout import Slot
    from upgradeconverter.model.plan import Plan, Step


def deviations(session: Session, *, deep: bool = False, waiting: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return every deviation from the target layout as one sentence; `deep` also reads files whose name is their digest.

    A directory that waits for a trial to be confirmed is the old system's still.
    """
    problem = vault_problem(session)
    found: list[str] = [problem] if problem else []
    for slot in session.layout().slots:
        for place in places(session.disk, slot):
            if (problem and slot.zone is Zone.VAULT) or place in waiting:
                continue
            entry = session.disk.find(place)
            if entry is None:
                continue
            if entry.kind is not Kind.DIRECTORY:
                found.append(f"{place}: expected a directory, found a {entry.kind.value}")
                continue
            found += _check_attributes(session, slot, entry)
            for inner in session.disk.entries(place):
                found += _check_entry(session, slot, inner, deep=deep)
    return (*found, *session.broken_rules())


def unfinished(session: Session, view: JournalView, plans: Iterable[Plan]) -> tuple[str, ...]:
    """Return what still has to happen before the disk carries the target layout, as one sentence each."""
    found = [f"transaction {t.txid}: open after {t.last.value}; the next run finishes or undoes it" for t in view.open]
    if is_trial_lost(session.disk, view):
        found.append(f"{WAITING}: a trial waits to be confirmed, but nothing of it is in {JOURNAL}")
    carried, target = session.carried_label(), session.target_label()
    # Where nothing was ever to be done nothing is noted, and only what lies there tells.
    if carried != target and session.stamp() is not None:
        found.append(f"the disk is noted as layout {carried}, expected {target}")
    for plan in plans:
        steps = [s for s in plan.steps if s.shape is not Shape.CREATE and s.source is not None and not s.once_empty]
        found += [f"{step.source}: not converted yet {_way(step)}" for step in steps]
    return tuple(found)


def _way(step: Step) -> str:
    if step.twin is not None and step.keeps:
        return f"(it takes another form, as {step.twin})"
    if step.twin is not None:
        return f"({step.twin} has the same content)"
    return f"({step.operation} to {step.target})" if step.target is not None else f"({step.operation})"


def set_aside(disk: Disk, homes: Iterable[str | None]) -> tuple[str, ...]:
    """Return what earlier runs set aside in domains because nobody could say that it is wanted."""
    folders = [f"{folder_of(home)}/{QUARANTINE}" for home in homes if home is not None]
    return tuple(entry.path for folder in folders if disk.find(folder) is not None for entry in disk.entries(folder))


def vault_problem(session: Session) -> str:
    """Return why the vault cannot be looked into, or nothing."""
    if session.pack.vault is None:
        return ""
    state = session.disk.vault_state(session.pack.vault)
    return "" if state in ("usable", "plain", "read-only") else f"{session.pack.vault}: expected a usable vault, found it {state}"


def _check_attributes(session: Session, slot: Slot, entry: Entry) -> list[str]:
    theirs, found = access(slot, session.agents), []
    mode = theirs.granted(slot.mode, Kind.DIRECTORY)
    if entry.mode & 0o022:
        found.append(f"{entry.path}: writable by others than {slot.owner} (mode {entry.mode:04o}, expected {mode:04o})")
    if (entry.uid, entry.gid) != (theirs.uid, theirs.gid) and not slot.keeps_owner:
        found.append(f"{entry.path}: expected owner {theirs.uid}:{theirs.gid} ({slot.owner}), found {entry.uid}:{entry.gid}")
    return found + _check_readable(slot, theirs, entry)


def _check_readable(slot: Slot, theirs: Access, entry: Entry) -> list[str]:
    if entry.kind not in (Kind.DIRECTORY, Kind.FILE) or (theirs.granted(entry.mode, entry.kind) == entry.mode):
        return []
    return [f"{entry.path}: not readable by {', '.join(slot.readers)} (mode {entry.mode:04o}, group {entry.gid})"]


def _check_entry(session: Session, slot: Slot, entry: Entry, *, deep: bool) -> list[str]:
    found = []
    if slot.pattern is not None and not re.fullmatch(slot.pattern, entry.name):
        found.append(f"{entry.path}: not a name of slot {slot.name}")
    theirs = access(slot, session.agents)
    if slot.entry_mode is not None and entry.kind is Kind.FILE and entry.mode & ~slot.entry_mode & 0o222:
        found.append(f"{entry.path}: expected mode {theirs.granted(slot.entry_mode, entry.kind):04o}, found {entry.mode:04o}")
    found += _check_readable(slot, theirs, entry)
    claim = re.fullmatch(r"([0-9a-f]{64})(\..+)?", entry.name) if deep and slot.entry_mode is not None else None
    if claim is not None and entry.kind is Kind.FILE:
        digest = session.disk.sha256(entry.path)
        if digest != claim[1]:
            found.append(f"{entry.path}: expected the SHA-256 of its name, found {digest}")
    return found
