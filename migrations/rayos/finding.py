"""Which machines a development root has, what of each goes where, and what forbids to convert any of them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from upgradeconverter.packs.api import (
    DiskState,
    Kind,
    Reason,
    Skip,
    Slot,
)

from . import policy, registry
from .device import Device
from .images import QCOW2, Image
from .layouts import (
    ALPINE,
    DESKTOP,
    MACHINE,
    MACHINE_RUNNING,
    RUNNING,
    TOP,
    TPM,
    TPM_RUNNING,
    VM_TPM,
    WINDOWS,
    WINDOWS_VM,
    file_at,
    found,
    top_of,
)
from .machine import TPM_FOLDER, Machine
from .names import NotUnderstoodError, derived_id, leads_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upgradeconverter.packs.api import Document, Item

DESKTOP_DISK = "linux-guest/desktop/desktop-rootfs.ext4"
ALPINE_DISK = "linux-guest/alpine-iso/alpine-persist.qcow2"
WINDOWS_DISK = "windows-disk."
_NAMED = "named disks"
_FIRMWARE = "OVMF_VARS.fd"


class Finding(Struct, kw_only=True):
    """What was found, while it is looked for."""

    machines: list[Machine] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    refusals: list[Skip] = field(default_factory=list)
    running: list[Skip] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def named_disks(documents: Mapping[str, Document], options: Mapping[str, str]) -> tuple[Slot, ...]:
    """Return a slot for each disk that the registry, the policy or somebody on the command line names."""
    paths = [path for name, path in options.items() if name.startswith(WINDOWS_DISK)]
    top = top_of(options)
    for place, read in ((registry.HOST_PLACE, _host_disk), (policy.PLACE, _policy_disk)):
        content = documents[f"{top}{place}"].content
        if content is not None and not leads_out(path := read(content)):
            paths.append(f"{top}{path}")
    return tuple(_slot_of(path) for path in dict.fromkeys(paths))


def _host_disk(content: bytes) -> str:
    try:
        return registry.read_host(content).disk_path
    except NotUnderstoodError:
        return ""


def _policy_disk(content: bytes) -> str:
    try:
        return policy.paths(policy.read(content)).get("windows.storage.disk", "")
    except NotUnderstoodError:
        return ""


def _slot_of(path: str) -> Slot:
    return file_at(f"{_NAMED} {path}", path, Image.of_file, Kind.FILE, Kind.SYMLINK, marks=True)


def _named(state: DiskState, path: str) -> Item | None:
    items = (*state.in_slot(f"{_NAMED} {path}"), *found(state, DESKTOP), *found(state, ALPINE), *found(state, MACHINE))
    return next((item for item in items if item.path == path), None)


def _image(item: Item) -> Image:
    image = item.gists.get(item.path)
    return image if isinstance(image, Image) else Image()


# --- looking for them ----------------------------------------------------------------------------------------------------


def look(state: DiskState) -> Finding:
    """Return the machines of the development root, what of it is left and why, and what forbids to convert any of it."""
    device, finding = device_of(state), Finding()
    _look_for_desktop(state, device, finding)
    _look_for_alpine(state, device, finding)
    for item in found(state, WINDOWS):
        _look_for_windows(state, device, item, finding)
    windows = [machine for machine in finding.machines if machine.kind == "windows"]
    if device.tag and windows and not any(machine.snapshot for machine in windows):
        told = f"no disk has the snapshot {device.tag!r}, so its machine starts anew; what notes that stays"
        finding.warnings.append(told)
    _check_source(state, device, finding)
    _check_identities(device, finding)
    finding.refusals += [problem for problem in device.problems if problem.path.endswith(registry.HOST_PLACE)]
    has_work = bool(finding.machines or finding.refusals or device.known.is_foreign)
    _look_who_runs(state, finding)
    _check_disks(state, device, finding)
    if has_work:
        # Where there is nothing to convert machines may run, and what is wrong with the data root's own files is not for us.
        finding.refusals += [problem for problem in device.problems if problem not in finding.refusals]
        finding.refusals += finding.running
    return finding


def device_of(state: DiskState) -> Device:
    """Return what the device's own files say."""
    device = state.checkpoint.content
    if not isinstance(device, Device):
        message = "the checkpoint is none of this pack's"
        raise TypeError(message)
    return device


def _check_source(state: DiskState, device: Device, finding: Finding) -> None:
    """Refuse a source that is no development root: nobody would see that nothing came from it."""
    names = {item.entry.name for item in found(state, TOP)}
    if device.top and not names & {"linux-guest", "windows-guest"}:
        detail = "expected a development root with linux-guest or windows-guest, found neither"
        finding.refusals.append(Skip(path=device.top.rstrip("/"), reason=Reason.MISSING, detail=detail))


def _look_who_runs(state: DiskState, finding: Finding) -> None:
    """A machine runs where a lock is held, and also where only its disk is open."""
    taken = {path for machine in finding.machines for path in (machine.disk, *(source for source, _, _ in machine.parts))}
    inside = [item for slot in (DESKTOP, ALPINE, MACHINE, TPM) for item in found(state, slot)]
    disks = [item for path in taken for item in state.in_slot(f"{_NAMED} {path}")]
    running = [item for slot in (RUNNING, MACHINE_RUNNING, TPM_RUNNING) for item in found(state, slot)]
    running += [item for item in (*inside, *disks) if item.path in taken]
    used = {item.path: item.used_by for item in running if item.used_by}
    finding.running += [Skip(path=path, reason=Reason.IN_USE, detail=who) for path, who in sorted(used.items())]


def _check_disks(state: DiskState, device: Device, finding: Finding) -> None:
    """Refuse what would give one disk to two machines, or to one that nobody has."""
    owned = {str(path): vm_id for vm_id, record in device.known.records.items() for path in registry.paths(record).values()}
    for machine in finding.machines:
        for path in (machine.disk, *(source for source, _, _ in machine.parts)):
            if path in owned and owned[path] != machine.vm_id:
                detail = f"it belongs to {owned[path]} and to {machine.vm_id}"
                finding.refusals.append(Skip(path=path, reason=Reason.DUPLICATE_IDENTITY, detail=detail))
            owned[path] = machine.vm_id
        if machine.disk.removeprefix(device.top) in (registry.HOST_PLACE, registry.PLACE, policy.PLACE):
            detail = f"{machine.vm_id} has it for its disk, and it is none"
            finding.refusals.append(Skip(path=machine.disk, reason=Reason.UNEXPECTED_CONTENT, detail=detail))
    there = {item.entry.name for item in found(state, WINDOWS)} | set(device.known.records)
    given = [name.removeprefix(WINDOWS_DISK) for name in state.options if name.startswith(WINDOWS_DISK)]
    for vm_id in given:
        if vm_id not in there:
            detail = f"--windows-disk names a disk of {vm_id}, and there is no such machine"
            finding.refusals.append(Skip(path=f"windows-guest/{vm_id}", reason=Reason.MISSING, detail=detail))


def is_converted(state: DiskState) -> bool:
    """Return whether every machine that is there is one that the data root has."""
    device, finding = device_of(state), look(state)
    records = device.known.records
    has_all = all(machine.vm_id in records and _is_its(records[machine.vm_id], machine) for machine in finding.machines)
    return device.known_file is not None and has_all and not finding.refusals and not finding.running


def known_machines(state: DiskState) -> set[str]:
    """Return the identities of the machines that the data root knows already."""
    return set(device_of(state).known.records)


def desktop_machine(state: DiskState) -> str:
    """Return the identity of the machine of the Linux desktop, as far as the data root knows it; else nothing."""
    folder = registry.HOST_PLACE.rpartition("/")[0]
    records = sorted(device_of(state).known.records.items())
    paths = ((vm_id, old) for vm_id, record in records for old in registry.host_paths(record))
    return next((vm_id for vm_id, old in paths if old.startswith(f"{folder}/")), "")


def _look_for_desktop(state: DiskState, device: Device, finding: Finding) -> None:
    host = device.host
    path = host.disk_path if host is not None else DESKTOP_DISK
    item = _named(state, f"{device.top}{path}") if not leads_out(path) else None
    if host is not None and any(path in registry.paths(known).values() for known in device.known.records.values()):
        # It was converted already; on trial, what it was converted from is there still.
        old = [old for known in device.known.records.values() for old, new in registry.host_paths(known).items() if new == path]
        path = next((each for each in old if f"{device.top}{each}" in state.waiting), "")
        item = _named(state, f"{device.top}{path}") if path else None
        if item is None or item.entry.kind is not Kind.FILE:
            return
    if item is None:
        if host is not None and not leads_out(path) and not _is_known_place(device, path):
            detail = f"disk_path names {path}, and nothing is there"
            finding.refusals.append(Skip(path=f"{device.top}{registry.HOST_PLACE}", reason=Reason.MISSING, detail=detail))
        return
    if item.entry.kind is not Kind.FILE:
        is_link = item.entry.kind is Kind.SYMLINK and _is_known_place(device, path)
        if host is not None and not is_link:
            detail = f"expected a disk, found a {item.entry.kind.value}"
            finding.refusals.append(Skip(path=item.path, reason=Reason.NOT_A_REGULAR_FILE, detail=detail))
        return
    machine = _desktop(device, path, item)
    _take(machine, finding)
    if host is not None and host.policy.get("networking") is True and not policy.allows_networking(device.policy or {}, "linux"):
        told = f"the registry wants it for {machine.vm_id}, the policy says off"
        finding.warnings.append(f"RAYOS_POLICY_VIOLATION:networking:{told}")


def _desktop(device: Device, path: str, item: Item) -> Machine:
    """Return the machine of the Linux desktop, whose disk lies at a path."""
    host = device.host
    image, config = _image(item), host.devices if host is not None else {}
    said = host.policy if host is not None else {}
    record = _known_at(device, path)
    devices = {name: config[name] for name in ("mem", "smp") if name in config}
    devices |= {"gpu": config.get("gpu", "virtio"), "input": {name: config.get(name, True) for name in ("keyboard", "mouse")}}
    devices |= {"vtpm": False}
    if host is None and isinstance(record.get("devices"), dict):
        # The host scripts' registry has gone already, and this disk waits to follow it.
        devices = record["devices"]
    known = (("smp", "cpus"), ("mem", "mem_mib"))
    limits = {new: config[old] for old, new in known if config.get(old) is not None}
    vm_id = (host.vm_id if host is not None else "") or record.get("vm_id") or derived_id("linux", path, image.volume)
    table = {name: said.get(name) is True for name in ("autoboot", "present_on_boot")}
    return Machine(
        vm_id=vm_id,
        kind="linux",
        name=host.name if host is not None else str(record.get("name", "")),
        image=image,
        size=item.entry.size,
        disk=item.path,
        old=path,
        devices=devices,
        wants={
            "": {"enabled": True, "vm_id": vm_id, **table, "networking": "off"},
            "limits": limits,
            "storage": {"root_disk": ""},
        },
    )


def _is_known_place(device: Device, path: str) -> bool:
    """Return whether a disk that lay there is one of the data root by now."""
    return bool(_known_at(device, path))


def _known_at(device: Device, path: str) -> dict[str, Any]:
    """Return the record of the machine whose disk lay at a path, or nothing."""
    return next((known for known in device.known.records.values() if path in registry.host_paths(known)), {})


def _look_for_alpine(state: DiskState, device: Device, finding: Finding) -> None:
    item = _named(state, f"{device.top}{ALPINE_DISK}")
    if item is None or item.entry.kind is not Kind.FILE or (device.host is not None and device.host.disk_path == ALPINE_DISK):
        return
    image = _image(item)
    vm_id = derived_id("linux", ALPINE_DISK, image.volume)
    devices = {"gpu": "virtio", "input": {"keyboard": True, "mouse": True}, "vtpm": False}
    machine = Machine(
        vm_id=vm_id,
        kind="linux",
        name="Alpine",
        image=image,
        size=item.entry.size,
        disk=item.path,
        old=ALPINE_DISK,
        devices=devices,
    )
    _take(machine, finding)


def _look_for_windows(state: DiskState, device: Device, folder: Item, finding: Finding) -> None:
    vm_id, top = folder.entry.name, f"{folder.path}/"
    inside = {item.path: item for item in found(state, MACHINE) if item.path.startswith(top)}
    tpm = [item for item in found(state, TPM) if item.path.startswith(f"{top}{TPM_FOLDER}/")]
    marks = {item.path for item in found(state, TPM_RUNNING)}
    firmware = inside.get(f"{top}{_FIRMWARE}")
    state_files = [item for item in tpm if item.path not in marks and item.entry.kind in (Kind.FILE, Kind.DIRECTORY)]
    has_firmware = firmware is not None and firmware.entry.kind is Kind.FILE
    disk = _windows_disk(state, device, vm_id, inside)
    if not has_firmware and not state_files and (disk is None or vm_id in device.known.records):
        return
    strange = [item for item in tpm if item not in state_files and item.path not in marks]
    if strange:
        # The directory would stay, and in it a new TPM would be made.
        detail = f"found a {strange[0].entry.kind.value} beside the state of a TPM, so that machine stays as it is"
        finding.skips.append(Skip(path=strange[0].path, reason=Reason.UNEXPECTED_CONTENT, detail=detail))
        return
    if vm_id in device.known.records and not (has_firmware and state_files and disk is not None):
        detail = f"{vm_id} was converted, and somebody has made this under an old name since; what it has now lies in vm/windows"
        found_there = (
            firmware.path if has_firmware and firmware is not None else f"{top}{TPM_FOLDER}" if state_files else folder.path
        )
        finding.skips.append(Skip(path=found_there, reason=Reason.DUPLICATE_IDENTITY, detail=detail))
        return
    missing = [
        what
        for what, is_there in (
            (f"its disk, which --windows-disk {vm_id}=PATH names", disk is not None),
            ("its firmware variables", has_firmware),
            ("the state of its TPM", bool(state_files)),
        )
        if not is_there
    ]
    if missing or disk is None:
        finding.skips.append(Skip(path=folder.path, reason=Reason.MISSING, detail=f"there is not {' nor '.join(missing)}"))
        return
    image, folder_path = _image(disk), f"vm/windows/{vm_id}"
    parts = [(f"{top}{_FIRMWARE}", f"{folder_path}/ovmf_vars.fd", WINDOWS_VM.name)]
    parts += [(item.path, f"{folder_path}/{TPM_FOLDER}/{item.entry.name}", VM_TPM.name) for item in state_files]
    is_in_place = not device.top
    machine = Machine(
        vm_id=vm_id,
        kind="windows",
        name="",
        image=image,
        size=disk.entry.size,
        disk=disk.path,
        old=disk.path.removeprefix(device.top) if disk.path.startswith(top) else "",
        devices={"gpu": "virtio", "input": {"keyboard": True, "mouse": True}, "vtpm": True},
        parts=tuple(parts),
        leftovers=tuple(sorted(item.path for item in tpm if item.path in marks)) if is_in_place else (),
        emptied=(f"{top}{TPM_FOLDER}",),
        wants={
            "": {"enabled": True, "vm_id": vm_id, "autoboot": False, "present_on_boot": False, "networking": "off"},
            "storage": {"disk": "", "ovmf_vars": f"{folder_path}/ovmf_vars.fd", "vtpm_state_dir": f"{folder_path}/{TPM_FOLDER}"},
            "devices": {"vtpm": True},
        },
        snapshot=device.tag if device.tag in image.snapshots else "",
        storage={"ovmf_vars": f"{folder_path}/ovmf_vars.fd", "tpm_state": f"{folder_path}/{TPM_FOLDER}"},
    )
    _take(machine, finding)


def _windows_disk(state: DiskState, device: Device, vm_id: str, inside: Mapping[str, Item]) -> Item | None:
    """Return the disk of a Windows machine: as somebody says, as the policy says, or the only one that lies beside the rest."""
    said = state.options.get(f"{WINDOWS_DISK}{vm_id}", "")
    if said:
        return _named(state, said)
    table = (device.policy or {}).get("windows", {})
    named = policy.paths(device.policy or {}).get("windows.storage.disk")
    if any(named in registry.paths(record).values() for record in device.known.records.values()):
        # That is what the policy calls it since it was converted.
        named = None
    if named and table.get("vm_id", vm_id) == vm_id and (item := _named(state, f"{device.top}{named}")) is not None:
        return item if item.entry.kind is Kind.FILE else None
    beside = [item for item in inside.values() if item.entry.kind is Kind.FILE and _image(item).format == QCOW2]
    return beside[0] if len(beside) == 1 else None


def _take(machine: Machine, finding: Finding) -> None:
    if machine.image.backing:
        detail = f"it only holds what differs from {machine.image.backing!r}; make it whole with `qemu-img rebase -b ''`"
        finding.refusals.append(Skip(path=machine.disk, reason=Reason.LEADS_OUT, detail=detail))
    elif machine.image.problem:
        finding.refusals.append(Skip(path=machine.disk, reason=Reason.UNEXPECTED_CONTENT, detail=machine.image.problem))
    finding.machines.append(machine)


def _check_identities(device: Device, finding: Finding) -> None:
    known = dict.fromkeys(device.known.records, registry.PLACE)
    for machine in finding.machines:
        record = device.known.records.get(machine.vm_id)
        if record is not None and _is_its(record, machine):
            # What waits for a trial to be confirmed is known already.
            continue
        if machine.vm_id in known:
            detail = f"identity {machine.vm_id} is that of {known[machine.vm_id]} as well"
            finding.refusals.append(Skip(path=machine.disk, reason=Reason.DUPLICATE_IDENTITY, detail=detail))
        known.setdefault(machine.vm_id, machine.disk)


def _is_its(record: Mapping[str, Any], machine: Machine) -> bool:
    return record.get("kind") == machine.kind and registry.paths(record).get("disk") == machine.target
