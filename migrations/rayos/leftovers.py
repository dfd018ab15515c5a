"""Logs move to where the data root has them; what is no state is left where it is, by name and with the reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from upgradeconverter.packs.api import DiskState, Kind, Migration, Move, Proposal, Range, Reason, Skip

from .device import INPUTS
from .finding import desktop_machine, is_converted, known_machines, look, named_disks
from .layouts import (
    ALPINE,
    BOOT_LOG,
    BOOT_LOGS,
    CACHES,
    COMPAT,
    DATA,
    DESKTOP,
    DESKTOP_LOG,
    DESKTOP_LOGS,
    DEVELOPMENT,
    DEVELOPMENT_AGAIN,
    DISK_LOG,
    LINUX,
    MACHINE,
    NO_STATE,
    STATE,
    TAG,
    TOP,
    TPM_MARKS,
    VM_LOGS,
    found,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from upgradeconverter.packs.api import Item

_CARRIED = "the registry has what it says, if the disk has that snapshot"
_DOWNLOADED = "it is downloaded again when it is needed"


def name(state: DiskState) -> Proposal:
    """Return what is left, and why."""
    finding = look(state)
    if finding.refusals or finding.running:
        return Proposal(migration=NO_STATE_HERE.id)
    taken = {machine.disk for machine in finding.machines}
    return Proposal(migration=NO_STATE_HERE.id, skips=tuple(_left(state, taken)))


def plan(state: DiskState) -> Proposal:
    """Return where the logs go, once the machines are where these go to."""
    if not is_converted(state):
        return Proposal(migration=MIGRATION.id)
    logs = (*_top_logs(state, desktop_machine(state)), *_machine_logs(state, known_machines(state)))
    return Proposal(migration=MIGRATION.id, operations=logs)


def _top_logs(state: DiskState, desktop: str) -> Iterator[Move]:
    for item in found(state, TOP):
        name = item.entry.name
        if item.entry.kind is not Kind.FILE:
            continue
        if re.fullmatch(DISK_LOG, name) and desktop:
            yield Move(source=item.path, target=f"vm/linux/{desktop}/logs/{name}", slot=VM_LOGS["linux"].name)
        elif re.fullmatch(DESKTOP_LOG, name):
            yield Move(source=item.path, target=f"{DESKTOP_LOGS.directory}/{name}", slot=DESKTOP_LOGS.name)
        elif re.fullmatch(f"{BOOT_LOG}|{DISK_LOG}", name):
            yield Move(source=item.path, target=f"{BOOT_LOGS.directory}/{name}", slot=BOOT_LOGS.name)


def _machine_logs(state: DiskState, known: set[str]) -> Iterator[Move]:
    for item in found(state, MACHINE):
        folder, _, name = item.path.rpartition("/")
        vm_id = folder.rpartition("/")[2]
        if name.endswith(".log") and item.entry.kind is Kind.FILE and vm_id in known:
            yield Move(source=item.path, target=f"vm/windows/{vm_id}/logs/{name}", slot=VM_LOGS["windows"].name)


def _left(state: DiskState, taken: set[str]) -> Iterator[Skip]:
    yield from _of_table(found(state, TOP), {re.escape(TAG): _CARRIED, **NO_STATE})
    yield from _of_table(found(state, LINUX), CACHES)
    yield from _of_table(found(state, ALPINE), {r"[0-9][^/]*": _DOWNLOADED})
    yield from _of_table(found(state, MACHINE), {TPM_MARKS: "it only means something while the machine runs"})
    for item in (*found(state, DESKTOP), *found(state, MACHINE)):
        is_disk = re.fullmatch(r".+\.(?:ext4|qcow2|img|raw)", item.entry.name) is not None
        if is_disk and item.entry.kind is Kind.FILE and item.path not in taken:
            yield Skip(path=item.path, reason=Reason.NO_OWNER_IN_CONFIG, detail="no registry and no policy names it")


def _of_table(items: tuple[Item, ...], why: Mapping[str, str]) -> Iterator[Skip]:
    for item in items:
        reason = next((reason for pattern, reason in why.items() if re.fullmatch(pattern, item.entry.name)), None)
        if reason is not None:
            yield Skip(path=item.path, reason=Reason.NO_STATE, detail=reason)


NO_STATE_HERE = Migration(
    id="rayos-no-state",
    summary="What is no state stays, and is named.",
    phase="state",
    reads=DEVELOPMENT,
    names=named_disks,
    inputs=INPUTS,
    targets=(Range(DATA),),
    after=("rayos-machines",),
    plan=name,
)
MIGRATION = Migration(
    id="rayos-logs",
    summary="Logs move to logs/ and to their machines.",
    phase="rest",
    reads=DEVELOPMENT_AGAIN,
    names=named_disks,
    inputs=INPUTS,
    writes=(*STATE, *COMPAT),
    targets=(Range(DATA),),
    after=("rayos-machines",),
    plan=plan,
)
