"""Links under the old names, for host scripts that know no other ones; without `compat` they and the scripts' registry go.

Without the link to a TPM's state a new one would be made in its place, and the machine could not open its disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from upgradeconverter.packs.api import DiskState, Input, Kind, Link, Migration, Proposal, Range, Retire, Write

from . import registry
from .layouts import ALPINE, COMPAT, DATA, DESKTOP, MACHINE
from .names import NotUnderstoodError, beside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upgradeconverter.packs.api import Document, Operation

OPTION = "compat"
_INPUT = Input(path=registry.PLACE)
_HOST = Input(path=registry.HOST_PLACE)


def _records(document: Document) -> dict[str, dict[str, Any]]:
    try:
        return registry.read(document.content).records if document.content is not None else {}
    except NotUnderstoodError:
        # The first phase has said so.
        return {}


def _links(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for record in records.values():
        found |= registry.host_paths(record)
    return found


def plan(state: DiskState) -> Proposal:
    """Return the links that are missing, or those that are to go."""
    records = _records(state.documents[_INPUT.key])
    links = _links(records)
    there = {item.path: item for slot in (DESKTOP, ALPINE, MACHINE) for item in state.in_slot(slot.name)}
    operations: list[Operation] = []
    if state.options[OPTION] == "on":
        slots = {slot.name: slot for slot in COMPAT}
        for old, new in sorted(links.items()):
            slot = next((name for name, slot in slots.items() if slot.is_at(old.rpartition("/")[0])), None)
            if old not in there and slot is not None:
                operations.append(Link(target=old, destination=beside(old, new), slot=slot))
        operations += _host_registry(state, records)
        return Proposal(migration=MIGRATION.id, operations=tuple(operations))
    gone = [old for old in sorted(links) if old in there and there[old].entry.kind is Kind.SYMLINK]
    operations += [Retire(source=old, why="not wanted", keeps=True) for old in gone]
    host = state.documents[_HOST.key].content
    if host is not None and _names_known(host, set(links.values())):
        operations.append(Retire(source=registry.HOST_PLACE, why="not wanted", keeps=True))
    return Proposal(migration=MIGRATION.id, operations=tuple(operations))


def _host_registry(state: DiskState, records: Mapping[str, Mapping[str, Any]]) -> list[Operation]:
    """Return the registry of the host scripts, where there is none: without it they would make a new disk."""
    if state.documents[_HOST.key].problem != "missing":
        return []
    for vm_id, record in sorted(records.items()):
        disk = registry.paths(record).get("disk")
        folder = registry.HOST_PLACE.rpartition("/")[0]
        is_theirs = any(new == disk and old.startswith(f"{folder}/") for old, new in registry.host_paths(record).items())
        if is_theirs:
            content = registry.for_host(None, vm_id, str(record.get("name", "")), str(disk))
            return [Write(target=registry.HOST_PLACE, content=content, slot=f"compat {folder}")]
    return []


def _names_known(host: bytes, known: set[str]) -> bool:
    try:
        return registry.read_host(host).disk_path in known
    except NotUnderstoodError:
        return False


MIGRATION = Migration(
    id="rayos-compat",
    summary="Links under the old names lead host scripts to the new ones.",
    phase="rest",
    reads=tuple(replace(slot, shared=True) for slot in (DESKTOP, ALPINE, MACHINE)),
    inputs=(_INPUT, _HOST),
    writes=COMPAT,
    targets=(Range(DATA),),
    after=("rayos-machines",),
    plan=plan,
)
