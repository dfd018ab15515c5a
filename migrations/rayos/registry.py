"""The registries of machines: the one of the host scripts, the one with absolute paths, and the data root's own, version 0. Pure.

Four unrelated things in RayOS are called `registry.json`; which one a file is shows by its shape.

Sources: RayOS, "Disk Layout & Persistence Spec" section 5; "VM Registry Specification", draft v0, sections 2 and 3; the script
`run-linux-subsystem-desktop-auto.sh`; for the others `scripts/build-iso.sh` and `surface_bridge.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from .names import MOUNT, NotUnderstoodError, is_id, leads_out

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = "vm/registry.json"
HOST_PLACE = "linux-guest/desktop/vm_registry.json"
VERSION = 0
_KINDS = ("linux", "windows")
# More of processors or MiB than any machine has.
_LARGEST = 1 << 31
_SURFACES = {"surfaces", "windows", "focused_window_id", "z_order"}
_INSTALLER = {"installer_mode", "boot_mode", "kernel_binary_path", "rayos_version", "bootloader_config"}


class HostRecord(Struct, frozen=True, kw_only=True):
    """What the host scripts know of the one Linux machine; `whole` is all that they wrote."""

    vm_id: str
    name: str
    disk_path: str
    devices: Mapping[str, Any]
    policy: Mapping[str, Any]
    whole: Mapping[str, Any]


class Registry(Struct, frozen=True, kw_only=True):
    """The records of the data root by identity, and whether the file has to be written anew for them."""

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_foreign: bool = False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what says one thing twice: readers would disagree on which of both counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        message = f"a name twice among {', '.join(name for name, _ in pairs)}"
        raise ValueError(message)
    return found


def _read(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise NotUnderstoodError(f"expected JSON, found {error}") from error
    try:
        # What JSON does not have, or Unicode, cannot be written again either.
        json.dumps(data, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise NotUnderstoodError(f"expected JSON that others can read, found {error}") from error
    if isinstance(data, dict) and _SURFACES & data.keys():
        message = "expected a registry of machines, found that of the surface bridge"
    elif isinstance(data, list) or (isinstance(data, dict) and _INSTALLER & data.keys()):
        message = "expected a registry of machines, found that of the installer, which belongs on the ESP"
    elif not isinstance(data, dict):
        message = "expected a registry of machines, found no object"
    else:
        return data
    raise NotUnderstoodError(message)


def _table(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        raise NotUnderstoodError(f"expected {name} to be an object, found {found!r}")
    return found


def read_host(content: bytes) -> HostRecord:
    """Return what the host scripts' registry says; NotUnderstoodError where it is none."""
    data = _read(content)
    path, vm_id = data.get("disk_path"), data.get("vm_id", "")
    if not isinstance(path, str) or not path:
        raise NotUnderstoodError("expected the registry of one machine with its disk_path, found none")
    if vm_id != "" and not is_id(vm_id):
        raise NotUnderstoodError(f"expected vm_id to be an identity, found {vm_id!r}")
    record = HostRecord(
        vm_id=vm_id,
        name=data.get("name", ""),
        disk_path=path,
        devices=_table(data, "device_config"),
        policy=_table(data, "policy"),
        whole=data,
    )
    _check(record.devices, {"mem": int, "smp": int, "gpu": str, "keyboard": bool, "mouse": bool})
    _check(record.policy, {"autoboot": bool, "networking": bool, "present_on_boot": bool})
    _check(data, {"name": str})
    return record


def _check(table: Mapping[str, Any], wanted: Mapping[str, type]) -> None:
    for name, kind in wanted.items():
        value: Any = table.get(name)
        is_right = type(value) is kind and (not isinstance(value, int) or kind is bool or 0 < value <= _LARGEST)
        if value is not None and not is_right:
            said = "a number that a machine can have" if kind is int else f"of type {kind.__name__}"
            raise NotUnderstoodError(f"expected {name} to be {said}, found {value!r}")


def read(content: bytes) -> Registry:
    """Return the records of the data root's registry; NotUnderstoodError where it is none, or of another version."""
    data = _read(content)
    machines = _table(data, "vms")
    if "vms" not in data:
        raise NotUnderstoodError("expected a registry with vms, found none")
    if "version" not in data:
        return Registry(records={key: _from_absolute(key, _record(machines, key)) for key in machines}, is_foreign=True)
    if type(data["version"]) is not int or data["version"] != VERSION:
        raise NotUnderstoodError(f"expected version {VERSION}, found {data['version']!r}")
    records = {key: _record(machines, key) for key in machines}
    for key, record in records.items():
        if record.get("vm_id") != key or record.get("kind") not in _KINDS or not isinstance(record.get("storage"), dict):
            raise NotUnderstoodError(f"expected {key} to have vm_id, kind and storage, found {sorted(record)}")
    return Registry(records=records)


def _record(machines: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = _table(machines, key)
    if not is_id(key):
        raise NotUnderstoodError(f"expected identities of machines, found {key!r}")
    return found


def _from_absolute(key: str, old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a machine that the other specification's registry has."""
    kind = old.get("type")
    if old.get("id", key) != key or kind not in _KINDS:
        raise NotUnderstoodError(f"expected {key} to have its own id and a type, found {old.get('id')!r} and {kind!r}")
    storage, devices = _table(old, "storage"), _table(old, "devices")
    disks = {name: _relative(path) for name, path in sorted(_table(storage, "disks").items())}
    first = next((name for name in ("root", "system") if name in disks), next(iter(disks), None))
    kept: dict[str, Any] = {"disk": disks.pop(first)} if first is not None else {}
    if disks:
        kept["more"] = disks
    kept |= {name: _relative(storage[name]) for name in ("ovmf_vars", "tpm_state") if name in storage}
    found: dict[str, Any] = {"vm_id": key, "kind": kind, "name": old.get("name", ""), "storage": kept}
    known = {"vcpu": "smp", "memory_mb": "mem"}
    found["devices"] = {known[name]: devices[name] for name in known if name in devices}
    found["devices"] |= {"input": "virtio", "gpu": "virtio", "vtpm": bool(_table(devices, "tpm").get("enabled", False))}
    if isinstance(old.get("policy_profile"), str):
        found["policy_ref"] = old["policy_profile"]
    return found


def _relative(path: object) -> str:
    inside = path.removeprefix(MOUNT) if isinstance(path, str) else path
    if leads_out(inside):
        raise NotUnderstoodError(f"expected a path below {MOUNT}, found {path!r}")
    return str(inside)


def paths(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return all paths of a record, by what they are."""
    storage = record.get("storage", {})
    named = {name: storage[name] for name in ("disk", "ovmf_vars", "tpm_state") if name in storage}
    more = storage.get("more", {})
    return named | ({f"disk {name}": path for name, path in more.items()} if isinstance(more, dict) else {"more": more})


def host_paths(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the new paths of a record by the old ones under which host scripts look for them; only such as it has itself."""
    said, known = record.get("host_paths"), set(map(str, paths(record).values()))
    pairs = said.items() if isinstance(said, dict) else ()
    return {old: new for old, new in pairs if not leads_out(old) and isinstance(new, str) and new in known}


def written(records: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the registry of the data root as a file."""
    return _as_text({"version": VERSION, "vms": {key: records[key] for key in sorted(records)}})


def for_host(old: HostRecord | None, vm_id: str, name: str, disk: str) -> bytes:
    """Return the registry of the host scripts for a disk that lies elsewhere now."""
    whole = dict(old.whole) if old is not None else {"device_config": {}, "policy": {}}
    return _as_text({"vm_id": vm_id, "name": name} | whole | {"vm_id": vm_id, "disk_path": disk})


def _as_text(data: object) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
