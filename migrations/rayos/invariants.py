"""What must always be true of a data root, and of the partitions of a disk that carries one: for `verify`.

Sources: RayOS, "Disk Layout & Persistence Spec" sections 2, 4 and 5; "Policy Configuration Schema" section 3. The labels are
those of RayOS's installer, whose pool for machines is the data partition.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from upgradeconverter.packs.api import Check, DiskState, Input, Kind, Range, Slot, Zone

from . import policy, registry
from .images import Image
from .layouts import DATA, file_at
from .names import NotUnderstoodError, leads_out
from .partitions import ESP_TYPE, Partition, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from upgradeconverter.packs.api import Document, Item

_ANYTHING = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.SOCKET, Kind.FIFO)
_INPUTS = (Input(path=registry.PLACE), Input(path=policy.PLACE))
_MIB = 1 << 20
_ESP_LEAST, _ESP_MOST = 256 * _MIB, 1024 * _MIB
# What a machine's record may lead to lies at most so deep.
_LEVELS = ("vm", "vm/*", "vm/*/*", "vm/*/*/*")
_NETWORKS = {"network", "networks", "nic", "netdev"}
_MOUNTS = {"mounts", "shares", "virtiofs", "host_mounts", "9p"}


def _slot(directory: str) -> Slot:
    return Slot(
        name=f"all of {directory}",
        directory=directory,
        owner="host",
        mode=0o755,
        zone=Zone.PLAIN,
        pattern=r"(?s:.+)",
        kind=_ANYTHING,
        probe=Image.of_file,
        shared=True,
    )


def holds(state: DiskState) -> tuple[str, ...]:
    """Return every deviation of a data root."""
    said = state.documents[registry.PLACE]
    if said.problem == "missing":
        found_there = [item.path for item in state.in_slot("all of vm")]
        return (f"{registry.PLACE}: expected a registry beside {found_there[0]}, found none",) if found_there else ()
    try:
        known = registry.read(said.content or b"")
    except NotUnderstoodError as error:
        return (f"{registry.PLACE}: {error}",)
    rules = _policy(state.documents[policy.PLACE])
    found = [rules] if isinstance(rules, str) else [f"{policy.PLACE}: {each}" for each in _broken(rules, known)]
    if known.is_foreign:
        found.append(f"{registry.PLACE}: expected version {registry.VERSION}, found a registry with absolute paths")
    items = {item.path: item for level in _LEVELS for item in state.in_slot(f"all of {level}")}
    for vm_id, record in known.records.items():
        found += [
            f"{registry.PLACE}: {vm_id}: {each}" for each in _record(record, items, {} if isinstance(rules, str) else rules)
        ]
    return tuple(found)


def _policy(document: Document) -> dict[str, Any] | str:
    if document.content is None:
        return f"{policy.PLACE}: expected a policy, found {document.problem or 'none'}"
    try:
        return policy.read(document.content)
    except NotUnderstoodError as error:
        return f"{policy.PLACE}: {error}"


def _broken(rules: Mapping[str, Any], known: registry.Registry) -> Iterator[str]:
    places = {str(path) for record in known.records.values() for path in registry.paths(record).values()}
    kinds = {record["kind"] for record in known.records.values()}
    for key, path in policy.paths(rules).items():
        if key.partition(".")[0] in kinds and path not in places and not leads_out(path):
            yield f"expected {key} to be what the registry has, found {path!r}"
    for key in policy.strays(rules):
        yield f"expected {key} to lie in the data root, found {policy.paths(rules)[key]!r}"


def _record(record: Mapping[str, Any], items: Mapping[str, Item], rules: Mapping[str, Any]) -> Iterator[str]:
    kind, devices = str(record["kind"]), record.get("devices", {})
    paths = registry.paths(record)
    for name, path in paths.items():
        yield from _path(name, path, items)
        if re.match(f"vm/{kind}/(?!{re.escape(record['vm_id'])}/)[^/]+/", str(path)):
            yield f"expected {name} in the folder of that identity, found {path}: was the identity changed?"
    if "disk" not in paths:
        yield "expected a disk, found none"
    elif (disk := items.get(str(paths["disk"]))) is not None and disk.entry.kind is Kind.FILE:
        yield from _disk(record, disk)
    devices = devices if isinstance(devices, dict) else {}
    if kind == "windows":
        yield from (f"expected {name}, found none" for name in ("ovmf_vars", "tpm_state") if name not in paths)
        if not devices.get("vtpm"):
            yield "expected a vTPM, found none"
    yield from _exposures(kind, {*record, *devices}, rules)


def _exposures(kind: str, words: set[str], rules: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a machine's record lets it reach of the host or of the network that it must not."""
    if _MOUNTS & words:
        yield f"expected no directory of the host, found {', '.join(sorted(_MOUNTS & words))}"
    if _NETWORKS & words and not policy.allows_networking(rules, kind):
        yield "expected no network, as the policy has it off, found one"


def _path(name: str, path: object, items: Mapping[str, Item]) -> Iterator[str]:
    if leads_out(path):
        yield f"expected {name} to lie in the data root, found {path!r}"
        return
    item = items.get(str(path))
    wanted = Kind.DIRECTORY if name == "tpm_state" else Kind.FILE
    if item is None:
        yield f"expected {name} at {path}, found nothing"
    elif item.entry.kind is not wanted:
        yield f"expected {name} at {path} to be a {wanted.value}, found a {item.entry.kind.value}"


def _disk(record: Mapping[str, Any], disk: Item) -> Iterator[str]:
    image, storage = disk.gists[disk.path], record["storage"]
    if not isinstance(image, Image):
        return
    if storage.get("format", image.format) != image.format:
        yield f"expected {disk.path} to be {storage['format']}, found {image.format}"
    if disk.path.endswith(".ext4") and image.filesystem != "ext4":
        yield f"expected {disk.path} to be an ext4 file system, found none"
    if image.backing:
        yield f"expected {disk.path} to be whole, found that it needs {image.backing!r}"
    if image.problem:
        yield f"{disk.path}: {image.problem}"
    snapshot = record.get("saved_state", {}).get("snapshot") if isinstance(record.get("saved_state", {}), dict) else None
    if snapshot and snapshot not in image.snapshots:
        yield f"expected the saved state {snapshot!r} in {disk.path}, found none"


# --- partitions ----------------------------------------------------------------------------------------------------------


def named_image(_: Mapping[str, Document], options: Mapping[str, str]) -> tuple[Slot, ...]:
    """Return the slot of the image that is given, if one is."""
    return (file_at("image", options["image"], Table.of_file, Kind.FILE),) if "image" in options else ()


def partitions(state: DiskState) -> tuple[str, ...]:
    """Return every deviation of the image of a disk."""
    found: list[str] = []
    for item in state.in_slot("image"):
        table = item.gists[item.path]
        if isinstance(table, Table):
            found += [f"{item.path}: {each}" for each in _partitions(table)]
    return tuple(found)


def _partitions(table: Table) -> Iterator[str]:
    if table.problem:
        yield table.problem
        return
    yield from _esp([each for each in table.partitions if each.type == ESP_TYPE])
    for label, kinds in (("RAYOS_SYSTEM", ("ext4", "squashfs")), ("RAYOS_VM_POOL", ("ext4",))):
        named = [each for each in table.partitions if label in (each.label, each.name)]
        if len(named) != 1:
            yield f"expected one partition {label}, found {len(named)}"
        elif named[0].filesystem not in kinds:
            yield f"expected {' or '.join(kinds)} on {label}, found {named[0].filesystem or 'nothing known'}"


def _esp(found: list[Partition]) -> Iterator[str]:
    if len(found) != 1:
        yield f"expected one ESP, found {len(found)}"
    for each in found:
        if each.filesystem != "fat32":
            yield f"expected FAT32 on the ESP, found {each.filesystem or 'nothing known'}"
        if not _ESP_LEAST <= each.size <= _ESP_MOST:
            yield f"expected about 512 MiB for the ESP, found {each.size // _MIB} MiB"


CHECK = Check(
    id="rayos-invariants",
    reads=tuple(_slot(level) for level in _LEVELS),
    inputs=_INPUTS,
    targets=(Range(DATA),),
    holds=holds,
)
PARTITIONS = Check(id="rayos-partitions", reads=(), names=named_image, targets=(Range(DATA),), holds=partitions)
