"""The machines: disks, firmware, TPM, the registry that names them, and the policy that governs them, all at once or not at all.

A registry that names a disk which is not there, or a disk that no registry names, would make the host scripts create a new one.
Nothing happens while any machine runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upgradeconverter.packs.api import (
    Copy,
    DiskState,
    EnsureDirectory,
    Migration,
    Move,
    Proposal,
    Range,
    Retire,
    Rewrite,
    Write,
)

from . import compat, policy, registry
from .device import INPUTS, Device
from .finding import ALPINE_DISK, WINDOWS_DISK, device_of, look, named_disks
from .layouts import (
    BOOT,
    BOOT_LOGS,
    COMPAT,
    CRASH,
    DATA,
    DESKTOP_LOGS,
    DEVELOPMENT,
    LINUX_VM,
    LOGS,
    POLICY,
    STATE,
    VM,
    VM_LOGS,
    WINDOWS_VM,
)
from .names import NotUnderstoodError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from upgradeconverter.packs.api import Operation

    from .machine import Machine


def plan(state: DiskState) -> Proposal:
    """Return what takes all machines over at once."""
    device, finding = device_of(state), look(state)
    if not finding.machines and not device.known.is_foreign and not finding.refusals:
        return Proposal(migration=MIGRATION.id, skips=tuple(finding.skips), warnings=tuple(finding.warnings))
    if finding.refusals:
        return Proposal(migration=MIGRATION.id, skips=tuple(finding.skips), refusals=tuple(finding.refusals))
    operations = [*_folders(finding.machines)]
    for machine in finding.machines:
        operations += _take_over(machine, device)
    operations += _registry(finding.machines, device)
    operations += _policy(finding.machines, device, state, finding.warnings)
    has_compat = state.options[compat.OPTION] == "on"
    operations += _host_registry(finding.machines, device, state)
    if has_compat and any(machine.legacy(device.top) for machine in finding.machines):
        finding.warnings.append("host scripts find what has moved under its old names as well: links are left there")
    return Proposal(
        migration=MIGRATION.id,
        operations=tuple(operations),
        skips=tuple(finding.skips),
        warnings=tuple(finding.warnings),
        whole=True,
    )


def _folders(machines: Iterable[Machine]) -> list[Operation]:
    made: list[Operation] = [EnsureDirectory(target=slot.directory, slot=slot.name) for slot in (LOGS, BOOT_LOGS, DESKTOP_LOGS)]
    made += [EnsureDirectory(target=slot.directory, slot=slot.name) for slot in (*CRASH, BOOT)]
    for machine in machines:
        made.append(EnsureDirectory(target=f"{machine.folder}/logs", slot=VM_LOGS[machine.kind].name))
    return made


def _take_over(machine: Machine, device: Device) -> list[Operation]:
    slot = LINUX_VM.name if machine.kind == "linux" else WINDOWS_VM.name
    moves: list[Operation] = []
    if machine.disk.startswith(WINDOWS_DISK):
        moves.append(Copy(source=machine.disk, target=machine.target, slot=slot))
    else:
        moves.append(Move(source=machine.disk, target=machine.target, slot=slot))
    moves += [Move(source=source, target=target, slot=name) for source, target, name in machine.parts]
    moves += [Retire(source=path, why="left by a program that ran", keeps=True) for path in machine.leftovers]
    if not device.top:
        moves += [Retire(source=folder, why="emptied", once_empty=True) for folder in machine.emptied]
    return moves


def _registry(machines: Iterable[Machine], device: Device) -> list[Operation]:
    records = device.known.records | {machine.vm_id: machine.record(device.top) for machine in machines}
    content = registry.written(records)
    if device.known_file is not None and device.known_file.content == content:
        return []
    if device.known_file is None:
        return [Write(target=registry.PLACE, content=content, slot=VM.name)]
    basis = device.known_file.digest
    return [Rewrite(source=registry.PLACE, target=registry.PLACE, content=content, basis=basis, slot=VM.name)]


def _warn_of_policy(device: Device, machines: Iterable[Machine], places: Mapping[str, str], warnings: list[str]) -> None:
    """Tell what a policy does not say of machines, since nobody else decides that."""
    said = device.policy or {}
    known = {str(path) for record in device.known.records.values() for path in registry.paths(record).values()}
    kinds = {machine.kind for machine in machines}
    for key, path in policy.paths(said).items():
        if key.partition(".")[0] in kinds and path not in {*places, *places.values(), *known}:
            warnings.append(f"{policy.PLACE}: {key} names {path}, which no machine has")
    missing = sorted(kind for kind in kinds if kind not in said)
    warnings += [f"{policy.PLACE} says nothing of {kind} machines, and one was added; it is left to people" for kind in missing]


def _policy(machines: Iterable[Machine], device: Device, state: DiskState, warnings: list[str]) -> list[Operation]:
    machines = tuple(machines)
    if device.policy_file is None:
        wants = {machine.kind: _with_disk(machine) for machine in sorted(machines, key=_is_usual) if machine.wants}
        has_own = device.top and state.documents[policy.PLACE].content is not None
        content = policy.default(wants)
        return [] if has_own or not machines else [Write(target=policy.PLACE, content=content, slot=POLICY.name)]
    places = {old: new for machine in machines for old, new in machine.legacy(device.top).items()}
    places |= _disk_elsewhere(device, machines, places)
    content = policy.moved(device.policy_file.content or b"", places)
    _warn_of_policy(device, machines, places, warnings)
    source = f"{device.top}{policy.PLACE}"
    if source == policy.PLACE and content == device.policy_file.content:
        return []
    basis = device.policy_file.digest
    return [Rewrite(source=source, target=policy.PLACE, content=content, basis=basis, slot=POLICY.name)]


def _is_usual(machine: Machine) -> bool:
    """Return whether a machine has the identity that the host scripts give, and so is the one that a policy is about."""
    return machine.vm_id in ("linux-desktop-001", "windows-desktop-001")


def _disk_elsewhere(device: Device, machines: Iterable[Machine], places: Mapping[str, str]) -> dict[str, str]:
    """Return the new path of the Windows disk that a policy names, where that is none in the root: it was given by somebody."""
    said = policy.paths(device.policy or {}).get("windows.storage.disk")
    vm_id = (device.policy or {}).get("windows", {}).get("vm_id")
    windows = [machine for machine in machines if machine.kind == "windows"]
    meant = [machine for machine in windows if machine.vm_id == vm_id] or (windows if vm_id is None else [])
    known = {str(path) for record in device.known.records.values() for path in registry.paths(record).values()}
    is_free = said is not None and said not in {*places, *places.values(), *known}
    return {said: meant[0].target} if is_free and said is not None and len(meant) == 1 else {}


def _with_disk(machine: Machine) -> dict[str, dict[str, Any]]:
    tables = {table: dict(values) for table, values in machine.wants.items() if values}
    for key in ("root_disk", "disk"):
        if key in tables["storage"]:
            tables["storage"][key] = machine.target
    return tables


def _host_registry(machines: Iterable[Machine], device: Device, state: DiskState) -> list[Operation]:
    desktop = next((machine for machine in machines if machine.kind == "linux" and machine.old != ALPINE_DISK), None)
    old, place = device.host_file, registry.HOST_PLACE
    if desktop is None:
        return []
    has_compat = state.options[compat.OPTION] == "on"
    content = registry.for_host(device.host, desktop.vm_id, desktop.name, desktop.target)
    slot = f"compat {place.rpartition('/')[0]}"
    if old is not None and has_compat and not device.top:
        return [Rewrite(source=place, target=place, content=content, basis=old.digest, slot=slot)]
    left: list[Operation] = [] if old is None else [Retire(source=f"{device.top}{place}", why="rewritten", keeps=True)]
    there = state.documents[place]
    if not has_compat or there.content == content:
        return left
    if there.content is not None and _names(there.content, desktop.target):
        # It is ours, and the host scripts' own has changed since.
        return [*left, Rewrite(source=place, target=place, content=content, basis=there.digest, slot=slot)]
    return [*left, Write(target=place, content=content, slot=slot)]


def _names(host: bytes, disk: str) -> bool:
    try:
        return registry.read_host(host).disk_path == disk
    except NotUnderstoodError:
        return False


MIGRATION = Migration(
    id="rayos-machines",
    summary="Machines with their disks, firmware and TPM move to vm/, with the registry and the policy that go with them.",
    phase="state",
    reads=DEVELOPMENT,
    names=named_disks,
    inputs=INPUTS,
    writes=(*STATE, *COMPAT),
    targets=(Range(DATA),),
    plan=plan,
)
